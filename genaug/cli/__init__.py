"""The command ``genaug``. Verbs are imported when they are called, so help and listings stay quick."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import click

from genaug import __version__
from genaug.errors import DataError, GenaugError, PluginWarning, did_you_mean

# verb -> (module:command, one line for the help). The order is the order of a project.
VERBS = {
    "quickstart": ("genaug.cli.quickstart:command", "Show one method at work on data that genaug draws itself."),
    "init": ("genaug.cli.init:command", "Look at a folder of images and masks and write a recipe for it."),
    "check": ("genaug.cli.check:command", "Validate a recipe and read all of its data, listing every problem."),
    "adapt": ("genaug.cli.adapt:command", "Teach the generator your classes from the labelled samples."),
    "generate": ("genaug.cli.generate:command", "Fill the sample store; go on where an earlier run stopped."),
    "filter": ("genaug.cli.filter:command", "Let the recipe's filters judge the samples of the store."),
    "run": ("genaug.cli.run:command", "Check, adapt, generate, filter and report in one go."),
    "report": ("genaug.cli.report:command", "Write the gallery and the quality figures of a store."),
    "push": ("genaug.cli.push:command", "Publish an adapter or a store on the Hugging Face Hub."),
    "pull": ("genaug.cli.pull:command", "Fetch an adapter or a store from the Hugging Face Hub."),
    "export": ("genaug.cli.export:command", "Write a store, or labelled data, in a format that other tools read."),
    "probe": (
        "genaug.cli.probe:command",
        "Find the layers of the base model that matter for adapting (Gradient Probe).",
    ),
    "schema": ("genaug.cli.schema:command", "Print the JSON schema of recipes, for completion and checks in editors."),
    "new-plugin": ("genaug.cli.new_plugin:command", "Make the package of a plugin of your own, tests included."),
    "plugins": ("genaug.cli.plugins:command", "List plugins, what they provide, and what is broken."),
    "doctor": ("genaug.cli.doctor:command", "Report versions, extras, disk space and settings of this machine."),
}

_DEBUG = "genaug.debug"
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Failure(click.ClickException):
    """A `GenaugError` on its way to the terminal: its message and exit code, no traceback."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message to standard error."""
        click.echo(f"genaug: {self.format_message()}", file=file, err=file is None)


class _DataProblems(_Failure):
    """A `DataError`: the exit code that `check` has for the same problems."""

    exit_code = 1


class LazyGroup(click.Group):
    """A group that imports a verb only when that verb is called or asked for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature, as below)
        """Return the verbs in the order of a project."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that was typed, or name the nearest one."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. {did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the verbs' lines from the table above, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; turn errors of genaug and Ctrl-C into a line and an exit code."""
        try:
            return super().invoke(ctx)
        except GenaugError as error:
            if ctx.meta.get(_DEBUG):
                raise
            raise (_DataProblems if isinstance(error, DataError) else _Failure)(str(error)) from None
        except KeyboardInterrupt:
            if ctx.meta.get(_DEBUG):
                raise
            click.echo("\ngenaug: interrupted. The same command goes on where this one stopped.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="genaug")
@click.option("--debug", is_flag=True, envvar="GENAUG_DEBUG", help="Show Python tracebacks. Also: GENAUG_DEBUG=1.")
@click.pass_context
def group(ctx: click.Context, debug: bool) -> None:
    """Augmentation for semantic segmentation with few labels: masks to images, filters, pseudo-labels.

    Results go to standard output, progress and errors to standard error. Exit codes, the same for every verb: 0 done;
    1 the data have problems, some samples failed, or a part of the installation is broken; 2 the command or the recipe
    is wrong, a model it names is not there, or the work could not be done; 130 interrupted.
    """
    ctx.meta[_DEBUG] = debug


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,  # noqa: ARG001  (the standard library's signature)
) -> str:
    """Write genaug's own warnings in one line; where in genaug they were raised helps nobody at a terminal."""
    if issubclass(category, PluginWarning):
        return f"genaug: warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def main() -> None:
    """Run the command line."""
    warnings.formatwarning = _format_warning
    sys.exit(group.main(prog_name="genaug"))
