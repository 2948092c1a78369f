"""The two sets that a quality report compares, whatever they lie in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genaug.report.classes import evenly
from genaug.sources.base import Source
from genaug.store.store import SampleStore
from genaug.types import Sample


class SampleSet(ABC):
    """Samples in a fixed order, read one at a time; pickles, so that worker processes can read it too.

    Args:
        keys: Their names.
        limit: Keep so many of them only, evenly spread; None for all.
    """

    def __init__(self, keys: Sequence[str], limit: int | None) -> None:
        self.total = len(keys)
        chosen = range(len(keys)) if limit is None else evenly(len(keys), limit)
        self.keys = tuple(keys[i] for i in chosen)

    @abstractmethod
    def load(self, key: str) -> Sample:
        """Read one sample."""

    def size(self, key: str) -> tuple[int, int]:
        """Return the ``(height, width)`` of a sample."""
        return self.load(key).size

    def group(self, key: str) -> str:
        """Return the name of what the sample was made from; samples of one group are not independent."""
        return key

    def groups(self) -> NDArray[np.intp]:
        """Return the number of every sample's group, int ``[N]``, from 0 without gaps."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(self.group(key), len(numbers)) for key in self.keys], np.intp)


class StoreSet(SampleSet):
    """The samples of a store, with the masks they were made from.

    Args:
        path: The store.
        kept: Only those that every filter keeps; their masks are the original ones all the same, since holes that
            filters cut would change how dense a mask looks.
        limit: See `SampleSet`.
    """

    def __init__(self, path: Path, *, kept: bool = False, limit: int | None = None) -> None:
        self.path = path
        self._store: SampleStore | None = SampleStore.open(path)
        super().__init__(self._store.training_view().keys if kept else self._store.keys(), limit)

    @property
    def store(self) -> SampleStore:
        """The open store."""
        if self._store is None:
            self._store = SampleStore.open(self.path)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def load(self, key: str) -> Sample:
        """Read one sample."""
        return self.store.sample(key)

    def size(self, key: str) -> tuple[int, int]:
        """Return the size that the manifest names."""
        height, width = self.store.row(key)["size"]
        return int(height), int(width)

    def group(self, key: str) -> str:
        """Return the condition that the sample was made for."""
        return str(self.store.row(key)["id"])


class SourceSet(SampleSet):
    """The samples of a source, each a group of its own.

    Args:
        source: Where they come from.
        limit: See `SampleSet`.
    """

    def __init__(self, source: Source, *, limit: int | None = None) -> None:
        self.source = source
        super().__init__(source.ids(), limit)

    def load(self, key: str) -> Sample:
        """Read one sample."""
        return self.source.load(key)

    def size(self, key: str) -> tuple[int, int]:
        """Return the size of the sample's outline."""
        return self.source.outline(key).size
