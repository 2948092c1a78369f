"""Folders that files of the Hub arrive in: one call at a time, looked at before they count, whole or not at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from genaug.errors import ConfigError, GenaugError
from genaug.hub.adapters import CONFIG, check_adapter, check_format, check_public_base
from genaug.hub.errors import HubError, hub_errors
from genaug.hub.listing import ALLOWED, HIDDEN, Listing, RemoteFile
from genaug.hub.shards import FOLDER
from genaug.hub.stores import check_store, unpack_store
from genaug.hub.weights import check_weights
from genaug.registry import default_registry
from genaug.store.files import DATASET, system_errors
from genaug.store.learned import read_table

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger("genaug")

#: Where files arrive in a folder that is there already.
_UNFINISHED = ".genaug-partial"
_LOCK = ".lock"


def arrive(api: HfApi, listing: Listing, wanted: Sequence[RemoteFile], target: Path) -> bool:
    """Make a folder of a repository, beside it first; inside one that is there: it may be a mount, or where one stands.

    Returns:
        False if the folder held the very files already.

    Raises:
        ConfigError: The folder holds something else.
        HubError, AdapterError, StoreError: As of `genaug.hub.pull.pull`.
    """
    target = target.absolute()
    partial = target / _UNFINISHED if target.is_dir() else target.with_name(f"{target.name}.partial")
    if not partial.exists() and is_there(target, wanted):  # also where nobody may write
        return False
    with alone(partial):
        if is_there(target, wanted):  # by now, of a call that was waited for
            shutil.rmtree(partial, ignore_errors=True)
            return False
        fill(api, listing, wanted, partial, target)
    return True


@contextmanager
def alone(partial: Path) -> Iterator[None]:
    """Keep other calls, of this and of other processes, out of a folder that files arrive in; wait for one inside.

    The operating system lets go of what a killed process held, so the next call goes on with what that one left.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # there, if not in its __all__

    lock = partial.with_name(partial.name + _LOCK)
    with ExitStack() as stack:
        with system_errors("write", lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(WeakFileLock(lock, timeout=1))
            except TimeoutError:
                log.warning("%s: another call is fetching it; waiting until that is done.", partial)
                stack.enter_context(WeakFileLock(lock))
        try:
            yield
        finally:
            with suppress(OSError):  # whoever waits for it notices and takes a new one
                lock.unlink()


def fill(api: HfApi, listing: Listing, wanted: Sequence[RemoteFile], partial: Path, target: Path) -> None:
    """Download to `partial`, check all of it, then make it `target`; only who holds `alone` may call this.

    Args:
        api: The client.
        listing: The repository.
        wanted: Its files that are fetched.
        partial: Goes on with what is in it.
        target: Not there; or the folder that `partial` is in, whose content it becomes then.

    Raises:
        ConfigError: A link is in the way.
        HubError, AdapterError, StoreError: As of `genaug.hub.pull.pull`.
    """
    where = str(listing.ref)
    for path in (partial, *partial.rglob("*")):
        if path.is_symlink():
            raise ConfigError("a link, which may lead anywhere", where=str(path), hint="Remove it")
    with system_errors("write", partial):
        _tidy(partial, wanted)
    download(api, listing, wanted, partial)
    with system_errors("write", partial):
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's notes about the transfer
    try:
        if is_packed(wanted):
            with system_errors("write", partial), _refusals(where):
                unpack_store(partial, where=where)
        checked(partial, where)
        if (partial / CONFIG).is_file():  # a folder of one's own is believed from then on
            hint = f"Use it by its name, with a base model of yours: from_pretrained({where!r}, base=...)"
            check_public_base(read_table(partial / CONFIG, hint=hint), where=where, hint=hint)
    except GenaugError as error:
        if getattr(error, "errno", None) is None:  # else it is this machine that could not, and the next call goes on
            shutil.rmtree(partial, ignore_errors=True)  # refused: nothing of it stays
        raise
    with system_errors("write", target):
        if partial.parent == target:
            _move_up(partial, target)
        else:
            partial.rename(target)


def download(api: HfApi, listing: Listing, wanted: Sequence[RemoteFile], into: Path | None = None) -> Path:
    """Transfer files to the client's cache, or to a folder, and compare them with what the repository says of them.

    Raises:
        HubError: One did not arrive, or is another one.
    """
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


def checked(folder: Path, where: str) -> Path:
    """Return `folder` if its content is safe to use.

    Raises:
        HubError, AdapterError, StoreError: It is not.
    """
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


def is_there(target: Path, wanted: Sequence[RemoteFile]) -> bool:
    """Return True if a folder holds the very files already, False if they may be put there.

    Raises:
        ConfigError: It holds something else.
    """
    if target.is_symlink() and not target.exists():
        raise ConfigError("a link that leads nowhere", where=str(target), hint="Remove it, or name another folder")
    if not target.exists():
        return False
    ours = (_UNFINISHED, _UNFINISHED + _LOCK)
    present = {path for path in target.iterdir() if path.name not in ours} if target.is_dir() else {target}
    if not present:
        return False
    packed = is_packed(wanted)
    kept = [f for f in wanted if not (packed and f.path.startswith(FOLDER))]
    held = {target / f.path for f in kept if (target / f.path).is_file() and f.holds(target / f.path)}
    if len(held) == len(kept) and (not packed or _is_sound(target)):
        return True
    if (target / _UNFINISHED).is_dir():  # an earlier call was cut while it moved its files here
        files = {file for path in present for file in (path, *path.rglob("*")) if not file.is_dir()}
        if all(packed and file.suffix == ".png" for file in files - held):
            return False
    raise ConfigError("the folder holds something else", where=str(target), hint="Name another folder, or empty it")


def is_packed(wanted: Iterable[RemoteFile]) -> bool:
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
