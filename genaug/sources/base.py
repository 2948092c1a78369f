"""What every reader of data offers: list, check, load one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from genaug.types import Sample


class Source(ABC):
    """A list of samples on disk (or elsewhere), loaded one at a time.

    Recipes build it by ``from_config(options, context)``; the class table is ``context.labels``.
    """

    @abstractmethod
    def ids(self) -> Sequence[str]:
        """Return the sample ids in their fixed order, without reading any image.

        Raises:
            DataError: The folder or list cannot be read, or names nothing.
        """

    @abstractmethod
    def load(self, sample_id: str) -> Sample:
        """Read one sample, checked against the class table.

        Raises:
            DataError: The files of this sample are not usable; says which and why.
        """

    def check(self) -> list[str]:
        """Read everything and return all problems, one line each with file names; empty when sound.

        The default loads every sample and collects what `load` says.
        """
        from genaug.errors import GenaugError

        problems = []
        for sample_id in self.ids():
            try:
                self.load(sample_id)
            except GenaugError as error:
                problems.append(str(error))
        return problems

    def __len__(self) -> int:
        return len(self.ids())

    def __iter__(self) -> Iterator[Sample]:
        for sample_id in self.ids():
            yield self.load(sample_id)
