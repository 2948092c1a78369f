"""Every error genaug raises on purpose: where, what was found, what is allowed, what to do."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from typing import Any


class GenaugError(Exception):
    """Base of all errors that genaug raises on purpose.

    Args:
        found: What was found, as a sentence without its full stop.
        where: Recipe key, file or sample id the error is about.
        allowed: What would have been accepted.
        hint: What the reader should do next.
    """

    def __init__(
        self, found: str, *, where: str | None = None, allowed: str | None = None, hint: str | None = None
    ) -> None:
        self.found, self.where, self.allowed, self.hint = found, where, allowed, hint
        parts = [f"{where}: {found}" if where else found]
        if allowed:
            parts.append(f"Allowed: {allowed}")
        if hint:
            parts.append(hint)
        super().__init__(" ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts))

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes send errors home; rebuilding from the message alone would lose its parts.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[GenaugError], args: tuple[Any, ...], fields: dict[str, Any]) -> GenaugError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class ConfigError(GenaugError, ValueError):
    """A recipe, an option or a class table is wrong."""


class UnknownComponentError(GenaugError, KeyError):
    """No plugin provides a component of that name."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class PluginError(GenaugError, ImportError):
    """A plugin could not be loaded, or two plugins clash."""


class PluginWarning(UserWarning):
    """A plugin could not be loaded; everything else goes on without it."""


class MissingDependencyError(GenaugError, ImportError):
    """A library that an extra brings is not installed; the message ends with the pip command."""


class SampleError(GenaugError, ValueError):
    """An image, a mask or what a component returned for it is wrong."""


class DataError(GenaugError, ValueError):
    """The user's data folder has problems; `problems` lists all of them.

    Args:
        problems: One line per problem, each with file names.
    """

    def __init__(
        self, found: str, *, problems: Iterable[str] = (), where: str | None = None, hint: str | None = None
    ) -> None:
        self.problems = tuple(problems)
        listing = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(found, where=where, hint=hint)
        self.args = (self.args[0] + listing,)


class StoreError(GenaugError, OSError):
    """A sample store cannot be opened, written or trusted."""


class AdapterError(GenaugError, ValueError):
    """An adapter folder does not fit the base model, or is not one."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``'Did you mean 'x'?'`` for the nearest known name, else the list of known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return "Known names: " + (", ".join(known) if known else "none")


def missing_dependency(module: str, extra: str, *, where: str) -> MissingDependencyError:
    """Return the error for a library of an extra that is not installed."""
    return MissingDependencyError(
        f"the Python package {module!r} is not installed",
        where=where,
        hint=f"Install it with: pip install 'genaug[{extra}]'",
    )


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called genaug, however many of its own and torch's functions lie between."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _internal(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__")
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, name, registry)


def _internal(module: str) -> bool:
    package = module.partition(".")[0]
    return package == "torch" or package.partition("_")[0] == "genaug"
