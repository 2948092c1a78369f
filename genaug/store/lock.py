"""Who may write: byte ranges of one lock file, released by the kernel when a process dies, however it dies."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genaug.errors import StoreError
from genaug.store.files import LOCK, store_error
from genaug.store.shard import Shard

Range = tuple[int, int]

#: The whole file: a process that works alone excludes everybody, whatever the shard count.
EVERYTHING: Range = (0, 0)
ADAPT: Range = (0, 1)
MERGE: Range = (1, 1)
FILTER: Range = (2, 1)

log = logging.getLogger("genaug")
# POSIX locks belong to the process and vanish when any descriptor of the file is closed, so a process keeps one
# descriptor a store, and remembers itself what it holds.
_open: dict[str, tuple[int, list[Range]]] = {}


def shard_range(shard: Shard | None) -> Range:
    """Return the bytes a writer locks; every ``(index, count)`` has its own."""
    if shard is None:
        return EVERYTHING
    return 16 + shard.count * (shard.count - 1) // 2 + shard.index - 1, 1


@contextmanager
def hold(folder: Path, wanted: Range, *, wait: bool = False) -> Iterator[None]:
    """Hold a range of a store's lock file.

    Args:
        folder: The store.
        wanted: One of the ranges of this module.
        wait: Wait for another process instead of refusing.

    Raises:
        StoreError: Somebody else holds it (not with `wait`), or the folder cannot be written.
    """
    key = os.path.realpath(folder)
    descriptor, held = _open.get(key, (-1, []))
    if any(_overlap(wanted, other) for other in held):
        raise _busy(folder, "this process is already writing to the store")
    if descriptor < 0:
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise store_error("write", folder, error) from error
        _open[key] = (descriptor, held)
    try:
        _lock(descriptor, wanted, folder, wait=wait)
        held.append(wanted)
        try:
            yield
        finally:
            held.remove(wanted)
            _unlock(descriptor, wanted)
    finally:
        if not held and _open.pop(key, None) is not None:
            os.close(descriptor)


def _overlap(a: Range, b: Range) -> bool:
    return (b[1] == 0 or a[0] < b[0] + b[1]) and (a[1] == 0 or b[0] < a[0] + a[1])


def _busy(folder: Path, found: str) -> StoreError:
    return StoreError(
        found,
        where=str(folder),
        allowed="one writer a store, or one a shard",
        hint="Wait for it or stop it; to share the work give every process its own --shard I/N",
    )


if sys.platform == "win32":  # no POSIX locks: two writers are not noticed there

    def _lock(descriptor: int, wanted: Range, folder: Path, *, wait: bool) -> None: ...

    def _unlock(descriptor: int, wanted: Range) -> None: ...

else:
    import fcntl

    def _lock(descriptor: int, wanted: Range, folder: Path, *, wait: bool) -> None:
        start, length = wanted
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), length, start)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _busy(folder, "another process is writing to the store") from None
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise store_error("lock", folder / LOCK, error) from error
            log.warning("%s: this file system has no locks; make sure that nobody else writes there", folder)

    def _unlock(descriptor: int, wanted: Range) -> None:
        start, length = wanted
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, length, start)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
