"""What every reader of data offers: list, check, load one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from genaug.types import Sample

if TYPE_CHECKING:
    from genaug.sources.survey import Survey
    from genaug.types import SamplePart


class Source(ABC):
    """A list of samples on disk (or elsewhere), loaded one at a time.

    Recipes build it by ``from_config(options, context)``; the class table is ``context.labels``.
    """

    #: ``(height, width)`` of a mask -> what a generator resizes it to, for a `survey` that tells what is lost by that;
    #: set by those who know the generator (`Options.mask_size`).
    seen_at: Callable[[tuple[int, int]], tuple[int, int]] | None = None

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

    def outline(self, sample_id: str) -> Sample:
        """Return a sample's outline for a preview: right in size, its mask possibly absent. By default `load`'s.

        Override it where `load` needs something that a preview must not, such as a model that has yet to learn.
        """
        return self.load(sample_id)

    def parts(self) -> Collection[SamplePart] | None:
        """Return what samples have when they are loaded, of ``image``, ``mask`` and ``prompt``; None if not known.

        Components say which of these they need (`Options.condition_needs`). By default it is what the first sample
        has, and not known where `outline` is overridden, which may leave masks out.

        Raises:
            DataError: There is no sample, or the first one is not usable.
        """
        if type(self).outline is not Source.outline:
            return None
        first = self.load(self.ids()[0])
        parts: dict[SamplePart, object] = {"image": first.image, "mask": first.mask, "prompt": first.prompt}
        return [part for part, value in parts.items() if value is not None]

    def folders(self) -> Sequence[Path]:
        """Return the folders that samples are read from, which nothing may be written into. None by default."""
        return ()

    def id_of(self, file_name: str) -> str:
        """Return the id that the sample of an image file of this name would have."""
        return PurePosixPath(file_name).stem

    def survey(self) -> Survey:
        """Read everything once; return all problems and the class statistics.

        The default loads every sample and collects what `load` says. Override it to tell equal problems together;
        `check` follows.
        """
        from tqdm import tqdm

        from genaug.errors import GenaugError
        from genaug.sources.survey import Remark, Survey, count_ids

        survey = Survey()
        try:
            ids = self.ids()
        except GenaugError as error:
            survey.problems.append(Remark(str(error)))
            return survey
        survey.samples = len(ids)
        for sample_id in tqdm(ids, desc="check", unit="sample", delay=1):
            try:
                sample = self.load(sample_id)
            except GenaugError as error:
                survey.problems.append(Remark(str(error)))
                continue
            pixels = None if sample.mask is None else count_ids(sample.mask)
            survey.add(image=sample.image is not None, size=sample.size, pixels=pixels)
        return survey

    def check(self) -> list[str]:
        """Read everything and return all problems, a line each with the first file names; empty when sound.

        It is `survey` in short, and nothing to override.
        """
        return [str(problem) for problem in self.survey().problems]

    def __len__(self) -> int:
        return len(self.ids())

    def __iter__(self) -> Iterator[Sample]:
        for sample_id in self.ids():
            yield self.load(sample_id)
