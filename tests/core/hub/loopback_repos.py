"""Repositories of the Hub in this process: their commits, branches, tags and proposals, in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from urllib.parse import unquote


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Entry:
    """A file at a commit; a hostile test may set `size` to a lie."""

    data: bytes
    large: bool
    size: int = -1

    def __post_init__(self) -> None:
        self.size = len(self.data) if self.size < 0 else self.size
        self.oid = git_oid(self.data)
        self.sha256 = hashlib.sha256(self.data).hexdigest()


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    proposals: list[dict[str, object]] = field(default_factory=list)

    def commit(self, files: dict[str, Entry], ref: str = "main") -> str:
        text = repr((len(self.commits), sorted((name, entry.sha256) for name, entry in files.items())))
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = files
        self.refs[ref] = oid
        return oid

    def find(self, revision: str) -> str | None:
        revision = unquote(revision)
        oid = self.refs.get(revision) or self.tags.get(revision) or revision
        return oid if oid in self.commits else None

    @property
    def files(self) -> dict[str, Entry]:
        return self.commits[self.refs["main"]]
