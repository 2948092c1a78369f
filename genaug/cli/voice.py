"""How much genaug says at a terminal: results always, notes and progress unless --quiet, details with --verbose."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

_QUIET, _VERBOSE = "genaug.quiet", "genaug.verbose"
# Libraries read these when they are imported, which no verb has done yet when options are read. Workers inherit them.
_SILENCE = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}


def say(text: str) -> None:
    """Write a note to standard error, unless the user wants quiet."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(_QUIET):
        click.echo(text, err=True)


def is_verbose(context: click.Context) -> bool:
    """Return True if errors are to show Python tracebacks."""
    return bool(context.meta.get(_VERBOSE))


def _set(context: click.Context, parameter: click.Parameter, given: Any) -> None:
    """Note one of the two options, wherever it stood, and make it hold until the command ends."""
    key, resource = (_QUIET, _quiet) if parameter.name == "quiet" else (_VERBOSE, _verbose)
    if given and not context.meta.get(key) and not context.resilient_parsing:
        context.meta[key] = True
        context.find_root().with_resource(resource(context))


@contextmanager
def _quiet(context: click.Context) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _SILENCE}
    os.environ.update(_SILENCE)
    log = logging.getLogger("genaug")
    level = log.level
    if not is_verbose(context):
        log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.setLevel(level)
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _verbose(context: click.Context) -> Iterator[None]:  # noqa: ARG001  (called as `_quiet` is)
    log = logging.getLogger("genaug")
    level, handler = log.level, logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


#: Understood before the verb and after it.
OPTIONS = [
    click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_set,
        help="No progress, notes or warnings: only the result and errors.",
    ),
    click.Option(
        ["-v", "--verbose", "--debug"],
        is_flag=True,
        expose_value=False,
        callback=_set,
        envvar="GENAUG_DEBUG",
        help="Say more, and show Python tracebacks of errors. Also: GENAUG_DEBUG=1.",
    ),
]
