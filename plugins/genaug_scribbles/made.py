"""The source ``scribbles``: another source's samples, their masks replaced by scribbles."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from tqdm import tqdm

from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.sources.base import Source
from genaug.sources.survey import Survey, count_ids, count_lost, find_strokes
from genaug.types import Sample, SamplePart
from genaug_scribbles.config import MadeScribblesOptions
from genaug_scribbles.maker import make_scribbles

if TYPE_CHECKING:
    from genaug.recipe import BuildContext


class MadeScribbles(Source):
    """Scribbles for those who have masks: see `genaug_scribbles.maker.make_scribbles`.

    A sample's scribbles depend on its mask, its id and the options, never on other samples. Nothing is written.

    Args:
        source: Where the samples come from. One without a mask stays as it is.
        labels: Class table.
        options: How scribbles are drawn; its ``source`` is not looked at.
    """

    def __init__(self, source: Source, labels: LabelSpace, options: MadeScribblesOptions) -> None:
        self.source, self.labels, self.options = source, labels, options

    @classmethod
    def from_config(cls, options: MadeScribblesOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        inner = {key: value for key, value in options.source.items() if key != "format"}
        source = context.build("source", options.source["format"], inner, where="data.source")
        return cls(source, context.labels, options)

    def ids(self) -> Sequence[str]:
        """Return the ids of the samples."""
        return self.source.ids()

    def load(self, sample_id: str) -> Sample:
        """Read one sample and scribble over its mask; ``meta["mask"]`` says so."""
        return self._scribbled(self.source.load(sample_id))

    def outline(self, sample_id: str) -> Sample:
        """Return the sample's outline, with scribbles if it has a mask already."""
        return self._scribbled(self.source.outline(sample_id))

    def parts(self) -> Collection[SamplePart] | None:
        """Return what the samples below have: scribbles are masks too."""
        return self.source.parts()

    def folders(self) -> Sequence[Path]:
        """Return the folders that the images are read from."""
        return self.source.folders()

    def survey(self) -> Survey:
        """Read everything once; the statistics are of the scribbles, or of the masks while those have problems."""
        masks = self.source.survey()
        if masks.problems:
            return masks
        ids, ignore, single = self.ids(), self.labels.ignore_index, list[str]()
        survey = Survey(notes=masks.notes, samples=len(ids))
        for sample_id in tqdm(ids, desc="scribbles", unit="sample", delay=1):
            sample = self.outline(sample_id)
            pixels = strokes = None
            if sample.mask is not None:
                pixels, strokes = count_ids(sample.mask), find_strokes(sample.mask, ignore)
                if np.count_nonzero(pixels) - (pixels[ignore] > 0) == 1:
                    single.append(sample_id)
                if self.seen_at is not None:
                    survey.add_lost(sample_id, count_lost(sample.mask, strokes, self.seen_at(sample.size)))
            counts = None if strokes is None else strokes.count()
            survey.add(image=sample.image is not None, size=sample.size, pixels=pixels, strokes=counts)
        survey.note_single_class(single, ignore)
        survey.note_lost(self.labels)
        return survey

    def _scribbled(self, sample: Sample) -> Sample:
        if sample.mask is None:
            return sample
        how = self.options
        scribbles = make_scribbles(
            sample.mask,
            ignore_index=self.labels.ignore_index,
            rng=Rng(how.seed).child("scribbles", sample.id),
            budget=how.budget,
            width=how.width,
            strokes=how.strokes,
            min_region=how.min_region,
            shrink=how.shrink,
            cut=how.cut,
        )
        return Sample(sample.id, sample.image, scribbles, {**sample.meta, "mask": "scribbles"})
