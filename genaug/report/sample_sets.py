"""The two sets that a quality report compares, whatever they lie in."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genaug.errors import ConfigError, DataError, SampleError, StoreError
from genaug.report.classes import evenly
from genaug.sources.base import Source
from genaug.store.store import SampleStore
from genaug.types import Sample


class SampleSet(ABC):
    """Samples in a fixed order, read one at a time; pickles, so that worker processes can read it too.

    Args:
        keys: Their names.
        limit: Keep so many of them only, evenly spread; None for all.
        by: A regular expression that finds in the name of a `group` what it belongs to, such as its video: what its
            parentheses match, or the whole match without any. Names in which it finds nothing stay groups of their own.

    Raises:
        ConfigError: `by` is no regular expression.
    """

    def __init__(self, keys: Sequence[str], limit: int | None, by: str | None = None) -> None:
        self.by = None if by is None else _compiled(by)
        self.total = len(keys)
        chosen = range(len(keys)) if limit is None else evenly(len(keys), limit)
        self.keys = tuple(keys[i] for i in chosen)

    @abstractmethod
    def load(self, key: str) -> Sample:
        """Read one sample."""

    @abstractmethod
    def problems(self) -> list[str]:
        """Read every file and return what is wrong, with the names of all bad files; empty when sound."""

    def size(self, key: str) -> tuple[int, int]:
        """Return the ``(height, width)`` of a sample."""
        return self.load(key).size

    def group(self, key: str) -> str:
        """Return the name of what the sample was made from; samples of one group are not independent."""
        return key

    def groups(self) -> NDArray[np.intp]:
        """Return the number of every sample's group, int ``[N]``, from 0 without gaps; groups of one `by` are one."""
        numbers: dict[tuple[bool, object], int] = {}
        return np.array([numbers.setdefault(self._cluster(key), len(numbers)) for key in self.keys], np.intp)

    def unmatched(self) -> int:
        """Return in how many samples' groups `by` finds nothing."""
        return 0 if self.by is None else sum(not found for found, _ in map(self._cluster, self.keys))

    def _cluster(self, key: str) -> tuple[bool, object]:
        """Return whether `by` found something in the name of a sample's group, and that, or the name."""
        name = self.group(key)
        match = None if self.by is None else self.by.search(name)
        return (False, name) if match is None else (True, match.groups() or match.group())


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        hint = "Quote it, so that the shell leaves it alone"
        raise ConfigError(f"{pattern!r}: {error}", where="group", allowed="a regular expression", hint=hint) from error


class StoreSet(SampleSet):
    """The samples of a store, with the masks they were made from.

    Args:
        path: The store.
        kept: Only those that every filter keeps; their masks are the original ones all the same, since holes that
            filters cut would change how dense a mask looks.
        limit: See `SampleSet`.
        by: See `SampleSet`; names are those of the conditions.
    """

    def __init__(self, path: Path, *, kept: bool = False, limit: int | None = None, by: str | None = None) -> None:
        self.path = path
        self._store: SampleStore | None = SampleStore.open(path)
        super().__init__(self._store.training_view().keys if kept else self._store.keys(), limit, by)

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

    def problems(self) -> list[str]:
        """Read every file of the store."""
        return self.store.verify()

    def size(self, key: str) -> tuple[int, int]:
        """Return the size that the manifest names."""
        height, width = self.store.row(key)["size"]
        return int(height), int(width)

    def group(self, key: str) -> str:
        """Return the condition that the sample was made for."""
        return str(self.store.row(key)["id"])


class SourceSet(SampleSet):
    """The samples of a source, each a group of its own unless `by` says which belong together.

    Args:
        source: Where they come from.
        limit: See `SampleSet`.
        by: See `SampleSet`; names are the samples' ids.
    """

    def __init__(self, source: Source, *, limit: int | None = None, by: str | None = None) -> None:
        self.source = source
        super().__init__(source.ids(), limit, by)

    def load(self, key: str) -> Sample:
        """Read one sample."""
        return self.source.load(key)

    def problems(self) -> list[str]:
        """Read all of the source, as ``genaug check --all`` does."""
        return [problem.text(None) for problem in self.source.survey().problems]

    def size(self, key: str) -> tuple[int, int]:
        """Return the size of the sample's outline."""
        return self.source.outline(key).size


@contextmanager
def all_told(*problems: Callable[[], list[str]]) -> Iterator[None]:
    """Look for all bad files when one of them stops the work inside, and name them in one error.

    Args:
        problems: Each reads everything of one input and returns what is wrong.

    Raises:
        DataError, StoreError: As the error from inside, with one line for each problem.
    """
    try:
        yield
    except (DataError, SampleError, StoreError) as error:
        found = [line for every in problems for line in every()]
        if not found:  # it is not about a file of theirs
            raise
        if isinstance(error, StoreError) and str(error) not in found:
            found.insert(0, str(error))
        count = f"{len(found)} problem{'s' if len(found) > 1 else ''} in the images"
        told = DataError(count, problems=found, where="report")
        if not isinstance(error, StoreError):
            raise told from error
        of_store = StoreError(count, where="report")
        of_store.args = told.args
        raise of_store from error
