"""The command ``genaug``. Verbs are imported when they are called, so help and listings stay quick."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
import warnings
from functools import partial
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

from genaug import __version__
from genaug.cli.voice import OPTIONS, is_verbose
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

#: Verbs that keep what they have done; the others are repeated from the beginning.
RESUMABLE = ("quickstart", "adapt", "generate", "filter", "run", "push", "pull")
INTERRUPTED, TERMINATED = 130, 143  # 128 + the signal's number, as shells report them


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems send some seconds before they kill; handled as Ctrl-C is."""


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
        command.params = [*(p for p in command.params if p not in OPTIONS), *OPTIONS]
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs from the table above, importing none."""
        found = [CompletionItem(verb, help=text) for verb, (_, text) in VERBS.items() if verb.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

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
            _show_traceback(ctx)
            raise (_DataProblems if isinstance(error, DataError) else _Failure)(str(error)) from None
        except KeyboardInterrupt as stop:
            _show_traceback(ctx)
            ended = isinstance(stop, Terminated)
            resumable = ctx.invoked_subcommand in RESUMABLE
            then = "goes on where this one stopped" if resumable else "starts over"
            click.echo(f"\ngenaug: {'terminated' if ended else 'interrupted'}. The same command {then}.", err=True)
            ctx.exit(TERMINATED if ended else INTERRUPTED)


def _show_traceback(ctx: click.Context) -> None:
    if is_verbose(ctx):
        traceback.print_exc()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="genaug")
def group() -> None:
    """Augmentation for semantic segmentation with few labels: masks to images, filters, pseudo-labels.

    Results go to standard output, progress and errors to standard error. Exit codes, the same for every verb: 0 done;
    1 the data have problems, some samples failed, or a part of the installation is broken; 2 the command or the recipe
    is wrong, a model it names is not there, or the work could not be done; 130 interrupted; 143 terminated.

    \b
    Example:
      genaug init my_data && genaug check recipe.yaml && genaug run recipe.yaml
    """


group.params += OPTIONS


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
    _end_as_on_interrupts()
    sys.exit(group.main(prog_name="genaug"))


def _end_as_on_interrupts() -> None:
    """Let SIGTERM end this process as Ctrl-C does, unless somebody else has decided what it does."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(os, "register_at_fork"):
        # Whoever ends a forked worker expects it to die at once. Held back until it can: Python forgets signals that
        # arrive while it forks.
        block = partial(signal.pthread_sigmask, signal.SIG_BLOCK, [signal.SIGTERM])
        unblock = partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, [signal.SIGTERM])
        die = partial(signal.signal, signal.SIGTERM, signal.SIG_DFL)
        os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=lambda: (die(), unblock()))


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (the standard library's signature)
    raise Terminated
