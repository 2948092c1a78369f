"""Fetching what others published: looked at before, while and after it is transferred; whole or not at all."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genaug.hub import unpacked
from genaug.hub.adapters import CONFIG
from genaug.hub.arrival import arrive, checked, download, is_packed, is_there
from genaug.hub.client import is_offline, make_client
from genaug.hub.errors import HubError, NotOnHubError, offline
from genaug.hub.listing import ALLOWED, HIDDEN, MAX_BYTES, Listing, is_wanted, read_listing
from genaug.hub.reference import HubRef
from genaug.hub.shards import require_pyarrow
from genaug.store.files import DATASET

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger("genaug")


def pull(
    repo: str,
    folder: str | Path | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    max_bytes: int = MAX_BYTES,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Fetch an adapter or a store into a folder of its own.

    Files arrive in ``<folder>.partial``, one after the other and never whole in memory; the folder appears when all of
    them are there and were checked. A folder that is there already, and empty, is filled then. A call that was
    interrupted, or killed, goes on with what is missing; one that finds another at work waits for it. Shards are
    unpacked, which takes twice the space meanwhile.

    Args:
        repo: ``org/name``, ``org/name@revision``, ``datasets/org/name``; ``hf-hub:`` before it is fine. Without
            ``datasets/`` a model is looked for first, then a dataset.
        folder: Must not exist, be empty, or hold the very same already. By default the repository's name, here.
        revision: Branch, tag or commit; the main branch by default.
        token: By default HF_TOKEN or what ``hf auth login`` stored.
        max_bytes: Refuse more than this.
        dry_run: Ask the Hub, write nothing.

    Returns:
        ``repo``, ``type``, ``commit``, ``folder``, ``files``, ``skipped`` (of types that are never fetched),
        ``unchanged``.

    Raises:
        HubError: It cannot be had, or its names or sizes are not safe; nothing is at `folder`.
        AdapterError, StoreError: Its content is not safe to use, or nothing of genaug's; nothing is at `folder`.
    """
    ref = HubRef.parse(repo, revision=revision)
    if is_offline():
        raise HubError("HF_HUB_OFFLINE keeps genaug from asking the Hub", where=str(ref), hint="Unset it")
    api = make_client(token)
    listing = _find(api, ref, explicit=ref.type == "dataset")
    ref, wanted = listing.ref, listing.wanted(max_bytes)
    names = {file.path for file in wanted}
    if not names & {CONFIG, DATASET}:
        raise HubError(
            "no adapter and no store of genaug", where=str(ref), allowed=f"a repository with {CONFIG} or {DATASET}"
        )
    if is_packed(wanted):
        require_pyarrow(str(ref))
    target = Path(folder).expanduser() if folder is not None else Path(ref.repo.partition("/")[2])
    unchanged = is_there(target, wanted) if dry_run else not arrive(api, listing, wanted, target)
    report = {
        "repo": ref.repo,
        "type": ref.type,
        "commit": listing.commit,
        "folder": str(target),
        "files": [{"path": file.path, "bytes": file.size} for file in wanted],
        "skipped": sorted(path for path in listing.files if not is_wanted(path)),
        "unchanged": unchanged,
    }
    return {**report, "dry_run": True} if dry_run else report


@lru_cache(maxsize=64)
def fetch(ref: HubRef) -> Path:
    """Return a checked copy of a repository in the Hub's local cache (HF_HOME), downloading what is missing.

    A packed store is unpacked, see `genaug.hub.unpacked`. Offline, or when the Hub cannot be reached, a copy that was
    fetched before serves; the latter is warned about.

    Raises:
        HubError, AdapterError, StoreError: As of `pull`.
    """
    if is_offline():
        if (folder := _kept(ref)) is None:
            raise offline(str(ref))
        return folder
    api = make_client(None)
    try:
        listing = read_listing(api, ref)
    except NotOnHubError:
        raise
    except HubError as error:
        if (folder := _kept(ref)) is None:
            raise
        log.warning("%s Using the copy of an earlier download.", error)
        return folder
    wanted = listing.wanted(MAX_BYTES, more=_by_hand(ref))
    if is_packed(wanted):
        folder = unpacked.unpack(api, listing, wanted)
        if ref.revision != listing.commit:
            unpacked.remember(ref, str(listing.commit))
        return folder
    folder = download(api, listing, wanted)
    unpacked.forget(ref)
    if ref.revision != listing.commit and listing.commit is not None:
        # The cache's own way to remember which commit a branch was.
        unpacked.write_ref(folder.parents[1] / "refs" / (ref.revision or "main"), listing.commit)
    return checked(folder, str(ref))


def _kept(ref: HubRef) -> Path | None:
    """Return what an earlier `fetch` left, checked; None if nothing is there."""
    if (folder := unpacked.find(ref)) is not None:  # checked when it was unpacked
        return folder
    return None if (folder := cached(ref)) is None else checked(folder, str(ref))


def _by_hand(ref: HubRef) -> str:
    return f"run 'genaug pull {ref} FOLDER --max-size GIB' once and name that folder instead"


def cached(ref: HubRef) -> Path | None:
    """Return what an earlier `fetch` left in the cache; None if nothing is there. Asks nobody."""
    from huggingface_hub import snapshot_download

    try:
        return unpacked.find(ref) or Path(
            snapshot_download(
                ref.repo,
                revision=ref.revision,
                repo_type=ref.type,
                local_files_only=True,
                allow_patterns=ALLOWED,
                ignore_patterns=HIDDEN,
            )
        )
    except (OSError, ValueError):
        return None


def _find(api: HfApi, ref: HubRef, *, explicit: bool) -> Listing:
    try:
        return read_listing(api, ref)
    except NotOnHubError:
        if explicit:
            raise
        try:
            return read_listing(api, HubRef(ref.repo, ref.revision, "dataset"))
        except NotOnHubError:
            pass
        raise
