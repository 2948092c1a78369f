"""Packed stores that a reference names: unpacked once, where the Hub's client keeps what others make of its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

from genaug.hub.arrival import alone, fill
from genaug.hub.reference import HubRef
from genaug.hub.shards import require_pyarrow
from genaug.store.files import system_errors, write_if_changed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from huggingface_hub import HfApi

    from genaug.hub.listing import Listing, RemoteFile

_COMMITS = "commits"


def unpack(api: HfApi, listing: Listing, wanted: Sequence[RemoteFile]) -> Path:
    """Return a packed store, with files of its pictures; one that is there already was checked when it came.

    Raises:
        MissingDependencyError: No pyarrow.
        HubError, StoreError: As of `genaug.hub.pull.pull`; nothing of what was refused stays.
    """
    assert listing.commit is not None  # it has files
    place = _place(listing.ref)
    folder = place / _COMMITS / listing.commit
    if not folder.is_dir():
        require_pyarrow(str(listing.ref))
        partial = place / "partial"  # one for all commits, so that no other is ever left behind
        with alone(partial):
            if not folder.is_dir():
                with system_errors("write", folder):
                    folder.parent.mkdir(exist_ok=True)
                fill(api, listing, wanted, partial, folder)
    return folder


def find(ref: HubRef) -> Path | None:
    """Return where `unpack` put what a reference named last time; None without that. Asks nobody."""
    remembered = _remembered(ref)
    commit = remembered.read_text("ascii") if remembered.is_file() else ref.revision
    folder = _place(ref) / _COMMITS / (commit or "main")
    # A branch's name may be several folders.
    return folder if folder.is_dir() and folder.parent.name == _COMMITS else None


def remember(ref: HubRef, commit: str) -> None:
    """Note which commit a branch or tag is now, for `find`."""
    write_ref(_remembered(ref), commit)


def write_ref(path: Path, commit: str) -> None:
    """Write which commit something is; other processes of a training may be writing the same file."""
    with system_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_if_changed(path, commit.encode(), tag=f"hub-{uuid4().hex}")


def forget(ref: HubRef) -> None:
    """Note that what a branch or tag is now is not packed."""
    path = _remembered(ref)
    with system_errors("remove", path):
        path.unlink(missing_ok=True)


def _place(ref: HubRef) -> Path:
    """Return the folder of a repository's unpacked commits, named as by `huggingface_hub.cached_assets_path`."""
    from huggingface_hub import constants

    # Not by that function: it makes the folder, which a mere look must not.
    repo = f"{ref.type}s--{ref.repo.replace('/', '--')}"
    return Path(constants.HF_ASSETS_CACHE).expanduser() / "genaug" / repo / "unpacked"


def _remembered(ref: HubRef) -> Path:
    return _place(ref) / "refs" / quote(ref.revision or "main", safe="")
