"""Fetching what others published: looked at before, while and after it is transferred; whole or not at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genaug.errors import ConfigError, GenaugError
from genaug.hub.adapters import CONFIG, check_adapter, check_format, check_public_base
from genaug.hub.client import is_offline, make_client
from genaug.hub.errors import HubError, NotOnHubError, hub_errors, offline
from genaug.hub.listing import ALLOWED, HIDDEN, MAX_BYTES, Listing, RemoteFile, is_wanted, read_listing
from genaug.hub.reference import HubRef
from genaug.hub.shards import FOLDER, require_pyarrow
from genaug.hub.stores import check_store, unpack_store
from genaug.hub.weights import check_weights
from genaug.registry import default_registry
from genaug.store.files import DATASET, system_errors, write_if_changed
from genaug.store.learned import read_table

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger("genaug")

#: Where files arrive in a folder that is there already.
_UNFINISHED = ".genaug-partial"


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
    interrupted goes on with what is missing. Shards are unpacked, which takes twice the space meanwhile.

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
    if _is_packed(wanted):
        require_pyarrow(str(ref))
    target = Path(folder).expanduser() if folder is not None else Path(ref.repo.partition("/")[2])
    unchanged = _is_there(target, wanted)
    report = {
        "repo": ref.repo,
        "type": ref.type,
        "commit": listing.commit,
        "folder": str(target),
        "files": [{"path": file.path, "bytes": file.size} for file in wanted],
        "skipped": sorted(path for path in listing.files if not is_wanted(path)),
        "unchanged": unchanged,
    }
    if dry_run:
        return {**report, "dry_run": True}
    if not unchanged:
        _into(api, listing, wanted, target)
    return report


@lru_cache(maxsize=64)
def fetch(ref: HubRef) -> Path:
    """Return a checked copy of a repository in the Hub's local cache (HF_HOME), downloading what is missing.

    Offline, or when the Hub cannot be reached, a copy that was fetched before serves; the latter is warned about.

    Raises:
        HubError, AdapterError, StoreError: As of `pull`.
    """
    if is_offline():
        if (folder := cached(ref)) is None:
            raise offline(str(ref))
        return _checked(folder, str(ref))
    api = make_client(None)
    try:
        listing = read_listing(api, ref)
    except NotOnHubError:
        raise
    except HubError as error:
        if (folder := cached(ref)) is None:
            raise
        log.warning("%s Using the copy of an earlier download.", error)
        return _checked(folder, str(ref))
    wanted = listing.wanted(MAX_BYTES, more=_by_hand(ref, " --max-size GIB"))
    if _is_packed(wanted):
        raise HubError("a large store, in shards", where=str(ref), hint=f"To unpack it, {_by_hand(ref)}")
    folder = _download(api, listing, wanted)
    if ref.revision != listing.commit and listing.commit is not None:
        # The cache's own way to remember which commit a branch was.
        remembered = folder.parents[1] / "refs" / (ref.revision or "main")
        with system_errors("write", remembered):
            remembered.parent.mkdir(parents=True, exist_ok=True)
        write_if_changed(remembered, listing.commit.encode(), tag="hub")
    return _checked(folder, str(ref))


def _by_hand(ref: HubRef, options: str = "") -> str:
    return f"run 'genaug pull {ref} FOLDER{options}' once and name that folder instead"


def cached(ref: HubRef) -> Path | None:
    """Return what an earlier `fetch` left in the cache; None if nothing is there. Asks nobody."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
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


def _download(api: HfApi, listing: Listing, wanted: Sequence[RemoteFile], into: Path | None = None) -> Path:
    """Transfer files to the cache, or to a folder, and compare them with what the repository says of them."""
    ref = listing.ref
    with hub_errors(str(ref), revision=ref.revision):
        folder = Path(
            api.snapshot_download(
                ref.repo,
                repo_type=ref.type,
                revision=listing.commit,
                local_dir=into,
                allow_patterns=ALLOWED,
                ignore_patterns=HIDDEN,
            )
        )
    for file in wanted:
        path = folder / file.path
        if not path.is_file():
            raise HubError(f"{file.path} did not arrive", where=str(ref), hint="Run the same command again")
        if not file.holds(path):
            # Out of the way, or the same damaged file would be found again.
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            found = f"{file.path} arrived damaged: it is not what the Hub says it is"
            raise HubError(found, where=str(ref), hint="Run the same command again: only this file is fetched")
    return folder


def _checked(folder: Path, where: str) -> Path:
    """Return `folder` if its content is safe to use."""
    with _refusals(where):
        looked_at: set[str] = set()
        if (folder / CONFIG).is_file():
            config, recorded = check_adapter(folder, where=where)
            check_format(config, default_registry(), where=where)
            looked_at.update(recorded)
        elif (folder / DATASET).is_file():
            check_store(folder, where=where)
        # All of them: what no table records is loaded too, by its name.
        for path in sorted(folder.rglob("*.safetensors")):
            if (name := path.relative_to(folder).as_posix()) not in looked_at:
                check_weights(path, where=f"{where}, {name}")
    return folder


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    """Refuse what a look at hostile files fails over, in whatever way."""
    try:
        yield
    except (GenaugError, OSError):  # already a refusal, or of this machine
        raise
    except RecursionError:
        raise HubError("a table nested too deeply", where=where, hint="Do not trust it") from None
    except Exception as error:
        found = f"its content cannot be checked ({type(error).__name__})"
        raise HubError(found, where=where, hint="Do not trust it") from error


def _is_there(target: Path, wanted: Sequence[RemoteFile]) -> bool:
    """Return True if a folder holds the very files already, False if they may be put there.

    Raises:
        ConfigError: It holds something else.
    """
    if target.is_symlink() and not target.exists():
        raise ConfigError("a link that leads nowhere", where=str(target), hint="Remove it, or name another folder")
    if not target.exists():
        return False
    present = {path for path in target.iterdir() if path.name != _UNFINISHED} if target.is_dir() else {target}
    if not present:
        return False
    packed = _is_packed(wanted)
    kept = [f for f in wanted if not (packed and f.path.startswith(FOLDER))]
    held = {target / f.path for f in kept if (target / f.path).is_file() and f.holds(target / f.path)}
    if len(held) == len(kept) and (not packed or _is_sound(target)):
        return True
    if (target / _UNFINISHED).is_dir():  # an earlier call was cut while it moved its files here
        files = {file for path in present for file in (path, *path.rglob("*")) if not file.is_dir()}
        if all(packed and file.suffix == ".png" for file in files - held):
            return False
    raise ConfigError("the folder holds something else", where=str(target), hint="Name another folder, or empty it")


def _is_packed(wanted: Iterable[RemoteFile]) -> bool:
    """Return True for a store whose pictures are in shards."""
    paths = {file.path for file in wanted}
    return DATASET in paths and CONFIG not in paths and any(path.startswith(FOLDER) for path in paths)


def _is_sound(store: Path) -> bool:
    """Return True if the pictures of a store are those that its tables speak of."""
    try:
        check_store(store)
    except GenaugError:
        return False
    return True


def _into(api: HfApi, listing: Listing, wanted: Sequence[RemoteFile], target: Path) -> None:
    """Download beside a folder that is not there yet; inside one that is: it may be a mount, or where one stands."""
    target = target.absolute()
    partial = target / _UNFINISHED if target.is_dir() else target.with_name(f"{target.name}.partial")
    for path in (partial, *partial.rglob("*")):
        if path.is_symlink():
            raise ConfigError("a link, which may lead anywhere", where=str(path), hint="Remove it")
    with system_errors("write", partial):
        _tidy(partial, wanted)
    _download(api, listing, wanted, partial)
    with system_errors("write", partial):
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's notes about the transfer
    try:
        if _is_packed(wanted):
            with system_errors("write", partial), _refusals(str(listing.ref)):
                unpack_store(partial, where=str(listing.ref))
        _checked(partial, str(listing.ref))
        if (partial / CONFIG).is_file():  # a folder of one's own is believed from then on
            hint = f"Use it by its name, with a base model of yours: from_pretrained({str(listing.ref)!r}, base=...)"
            check_public_base(read_table(partial / CONFIG, hint=hint), where=str(listing.ref), hint=hint)
    except GenaugError as error:
        if getattr(error, "errno", None) is None:  # else it is this machine that could not, and the next call goes on
            shutil.rmtree(partial, ignore_errors=True)  # refused: nothing of it stays
        raise
    with system_errors("write", target):
        if partial.parent == target:
            _move_up(partial, target)
        else:
            partial.rename(target)


def _tidy(partial: Path, wanted: Sequence[RemoteFile]) -> None:
    """Remove what an earlier call for another commit left: files, and folders where there may be files now."""
    kept = {partial / file.path for file in wanted}
    notes = partial / ".cache"
    for path in sorted(partial.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path == notes or notes in path.parents or (path in kept and path.is_file()):
            continue
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def _move_up(partial: Path, target: Path) -> None:
    """Move all files of a folder into the one above it; a call that was cut may have moved some."""
    for path in sorted(partial.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    shutil.rmtree(partial)
