"""Names of things on the Hub, and the one place where a path may turn out to be such a name. Light."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genaug.errors import ConfigError

PREFIX = "hf-hub:"
RepoType = Literal["model", "dataset"]

_DATASETS = "datasets/"
# The Hub's own rule: letters, digits, single - and . inside.
_NAME = r"[A-Za-z0-9_]+(?:[-.][A-Za-z0-9_]+)*"
_REPO = re.compile(f"{_NAME}/{_NAME}")
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(?:/[\w][\w.-]*)*")
_ALLOWED = "org/name, org/name@revision or datasets/org/name"


@dataclass(frozen=True, slots=True)
class HubRef:
    """A repository on the Hub at a revision.

    Args:
        repo: ``org/name``.
        revision: Branch, tag or commit; None is the main branch.
        type: ``model`` (an adapter, a segmenter) or ``dataset`` (a store).

    Raises:
        ConfigError: No such name can exist.
    """

    repo: str
    revision: str | None = None
    type: RepoType = "model"

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo) or any(len(part) > 96 for part in self.repo.split("/")):
            raise ConfigError(f"{self.repo!r} is no name of a repository", allowed=_ALLOWED)
        if self.revision is not None and (not _REVISION.fullmatch(self.revision) or ".." in self.revision):
            raise ConfigError(
                f"{self.revision!r} is no revision", where=self.repo, allowed="a branch, a tag or a commit"
            )

    @classmethod
    def parse(cls, text: str, *, revision: str | None = None) -> HubRef:
        """Read ``org/name``, ``org/name@revision`` or ``datasets/org/name``, with or without ``hf-hub:`` before it.

        Args:
            text: The name.
            revision: The same as ``@revision``.

        Raises:
            ConfigError: Another form, or two revisions.
        """
        repo, at, named = text.removeprefix(PREFIX).partition("@")
        if at and revision is not None and revision != named:
            raise ConfigError(f"{text!r} and revision {revision!r}", allowed="one revision")
        kind: RepoType = "dataset" if repo.startswith(_DATASETS) and repo.count("/") == 2 else "model"
        return cls(repo.removeprefix(_DATASETS) if kind == "dataset" else repo, named if at else revision, kind)

    def __str__(self) -> str:
        kind = _DATASETS if self.type == "dataset" else ""
        return f"{PREFIX}{kind}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_reference(value: str | Path) -> bool:
    """Return True if a path is the name of something on the Hub."""
    return str(value).startswith(PREFIX)


def local_path(value: str | Path, root: Path | None = None) -> Path:
    """Resolve a path that may be ``hf-hub:org/name@revision``; what lies on the Hub is downloaded and checked first.

    Args:
        value: Path (``~`` is the home folder) or reference.
        root: Folder that relative paths refer to.

    Raises:
        ConfigError: A reference of the wrong form.
        HubError: It cannot be had, or is not safe to use.
    """
    if is_reference(value):
        from genaug.hub.pull import fetch

        return fetch(HubRef.parse(str(value)))
    return (root or Path()) / Path(value).expanduser()


def cached_path(value: str) -> Path | None:
    """Return where an earlier `local_path` put what a reference names; None if it did not, or for paths. Asks nobody.

    Raises:
        ConfigError: A reference of the wrong form.
    """
    if not is_reference(value):
        return None
    from genaug.hub.pull import cached

    return cached(HubRef.parse(value))
