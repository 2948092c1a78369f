"""Progress with time left, on stderr, for whatever takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(items: Iterable[T], what: str, *, total: int | None = None) -> tqdm[T]:
    """Iterate over `items` with a progress bar that appears after one second."""
    return tqdm(items, desc=what, total=total, file=sys.stderr, delay=1, unit="", dynamic_ncols=True)


def counter(what: str, *, total: int, done: int) -> tqdm[NoReturn]:
    """Return a bar for samples of which `done` were there before; move it with ``update``."""
    return tqdm(desc=what, total=total, initial=done, file=sys.stderr, delay=1, unit=" samples", dynamic_ncols=True)
