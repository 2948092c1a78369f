"""What a repository says it holds, judged by names and sizes before a byte of it is fetched."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from genaug.hub.errors import HubError, hub_errors
from genaug.hub.reference import HubRef

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MIB, GIB = 2**20, 2**30
#: What may be fetched, and how large one file may be. Nothing here can carry code: no pickle, no Python.
LIMITS = {
    ".safetensors": 32 * GIB, ".json": 16 * MIB, ".jsonl": 4 * GIB, ".yaml": 16 * MIB, ".md": 4 * MIB,
    ".txt": 16 * MIB, ".png": 64 * MIB, ".jpg": 64 * MIB, ".parquet": 4 * GIB,
}  # fmt: skip
#: The same for the client, as patterns; it calls a copy complete that has all of these.
ALLOWED, HIDDEN = [f"*{suffix}" for suffix in LIMITS], [".*", "*/.*"]
MAX_FILES = 200_000
#: Bytes of a file's or folder's name: most systems take 255, and the client appends ``.metadata`` for its notes.
MAX_NAME = 240
#: Bytes of a name with its folders; systems limit that, too, and some folder of the user's stands before it.
MAX_PATH = 1000
#: Of everything that is fetched together.
MAX_BYTES = 32 * GIB


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository.

    Args:
        path: Place inside the repository.
        size: Bytes.
        sha256: Of a large file (git LFS), else None.
        git_oid: Git's own hash of a small file.
    """

    path: str
    size: int
    sha256: str | None
    git_oid: str

    def holds(self, content: Path | bytes) -> bool:
        """Return True if a local file, or bytes, are this file's content."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size != self.size:
            return False
        if self.sha256 is not None:
            return _hash(content, hashlib.sha256()) == self.sha256
        # Git's hashes are SHA-1; a collision would have to be made by the repository's owner, who may write anything.
        return _hash(content, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)) == self.git_oid


def _hash(content: Path | bytes, state: hashlib._Hash) -> str:
    if isinstance(content, bytes):
        state.update(content)
        return state.hexdigest()
    with content.open("rb") as file:
        while piece := file.read(MIB):
            state.update(piece)
    return state.hexdigest()


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit.

    Args:
        ref: What was asked for.
        commit: What it is now.
        private: Whether only some may see it.
        files: Every file, by path.
    """

    ref: HubRef
    commit: str | None
    private: bool
    files: dict[str, RemoteFile]

    def lacks(self, name: str, content: Path | bytes) -> bool:
        """Return True unless a file of this name and content is there."""
        return name not in self.files or not self.files[name].holds(content)

    def wanted(self, max_bytes: int = MAX_BYTES, *, more: str = "allow more with --max-size") -> list[RemoteFile]:
        """Return the files that may be fetched; those of other types are left where they are.

        Args:
            max_bytes: Of all together.
            more: What to do if that is too little.

        Raises:
            HubError: A name leads out of the folder, two cannot lie beside each other, or there is too much of it.
                Files of any type count for names: a repository with such a name is not one to trust with the others.
        """
        where = str(self.ref)
        wanted = [file for file in self.files.values() if is_wanted(file.path)]
        sizes = {file.path: file.size for file in wanted}
        for error in chain(name_errors(self.files, where), clashes(sizes, where), size_errors(sizes, where)):
            raise error
        if (total := sum(file.size for file in wanted)) > max_bytes:
            found, allowed = f"{total / GIB:.1f} GiB in {len(wanted)} files", f"at most {max_bytes / GIB:.1f} GiB"
            raise HubError(found, where=where, allowed=allowed, hint=f"If it is right, {more}")
        return wanted


def is_wanted(path: str) -> bool:
    """Return True if a file is of a type that may be fetched, and not hidden."""
    pure = PurePosixPath(path)
    return pure.suffix in LIMITS and not any(part.startswith(".") for part in pure.parts)


def name_errors(paths: Iterable[str], where: str) -> Iterator[HubError]:
    """Yield what is wrong with names that lead out of a folder, or that some system could not write."""
    for path in paths:
        parts = path.split("/")
        bad = any(part in ("", ".", "..") or part != part.strip() for part in parts)
        if bad or len(parts) > 16 or any(c in '\\:*?"<>|' or not c.isprintable() for c in path):
            found = f"a file called {path!r}"[:200]
            yield HubError(found, where=where, allowed="names inside the folder", hint="Do not trust it")
            continue
        long = max(len(part.encode()) for part in parts)
        if long > MAX_NAME or len(path.encode()) > MAX_PATH:
            found = f"a name of {long} bytes, {len(path.encode())} with its folders: {path[:60]!r}"
            yield HubError(found, where=where, allowed=f"at most {MAX_NAME}, and {MAX_PATH} with folders")


def clashes(paths: Collection[str], where: str) -> Iterator[HubError]:
    """Yield what is wrong with names that some system cannot keep apart, or that are a file and a folder at once."""
    files: dict[str, str] = {}
    for path in paths:
        if (other := files.setdefault(_folded(path), path)) != path:
            found = f"files {other[-80:]!r} and {path[-80:]!r}, which are one where case does not count"
            yield HubError(found, where=where, hint="Ask its author to rename one")
    for path in paths:
        for folder in map(str, PurePosixPath(_folded(path)).parents):
            # The client's notes about a file lie beside each other likewise, in a tree of their own.
            for suffix in ("", ".metadata", ".lock"):
                same = files.get(folder.removesuffix(suffix)) if folder.endswith(suffix) else None
                if same is not None:
                    found = f"{same[-80:]!r} and {path[-80:]!r}, for which it would be file and folder at once"
                    yield HubError(found, where=where, hint="Do not trust it")


def size_errors(sizes: Mapping[str, int], where: str) -> Iterator[HubError]:
    """Yield which files are too large for their type, by their bytes, and whether there are too many."""
    for path, size in sizes.items():
        limit = LIMITS[PurePosixPath(path).suffix]
        if size > limit:
            yield HubError(f"{path} has {size:,} bytes", where=where, allowed=f"at most {limit:,}")
    if len(sizes) > MAX_FILES:
        yield HubError(f"{len(sizes):,} files", where=where, allowed=f"at most {MAX_FILES:,}")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def read_listing(api: HfApi, ref: HubRef) -> Listing:
    """Ask the Hub for a repository's commit and all its files.

    Raises:
        HubError: It cannot be reached, or there is none such.
    """
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(str(ref), revision=ref.revision):
        info = api.repo_info(ref.repo, revision=ref.revision, repo_type=ref.type)
        if info.sha is None:
            return Listing(ref, None, bool(info.private), {})
        entries = api.list_repo_tree(ref.repo, recursive=True, revision=info.sha, repo_type=ref.type)
        files = [
            RemoteFile(entry.path, entry.size, None if entry.lfs is None else entry.lfs.sha256, entry.blob_id)
            for entry in entries
            if isinstance(entry, RepoFile)
        ]
        return Listing(ref, info.sha, bool(info.private), {file.path: file for file in files})
