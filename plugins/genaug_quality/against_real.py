"""Filters that drop what is worse than the real images are: thresholds are percentiles of the real set."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from genaug.engine.progress import bar
from genaug.errors import SampleError
from genaug.interfaces import Filter, FilterContext, Predictor
from genaug.labels import LabelSpace
from genaug.sources.survey import listed
from genaug.types import Group, Sample, Verdict
from genaug_basics.inference import BatchedPredictor
from genaug_quality.agreement import agreement
from genaug_quality.density import MIN_AREA, mask_density
from genaug_quality.fidelity import Fidelity, common_size

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import AgreementFilterOptions, DensityFilterOptions, FidelityFilterOptions

log = logging.getLogger("genaug")


class AgainstReal(Filter):
    """Drops samples with a worse figure than nearly all real ones.

    Samples without a figure (a mask without a labelled pixel, an image smaller than a patch) are kept.

    Args:
        name: Of the figure, in scores and reasons.
        worse: The side on which a figure is worse.
        percentile: Of the real samples' figures, counted from the worse side, in ``[0, 100]``.
        threshold: A number to use instead.
    """

    def __init__(
        self, name: str, worse: Literal["lower", "higher"], *, percentile: float, threshold: float | None
    ) -> None:
        self.name, self.worse, self.percentile, self.threshold = name, worse, percentile, threshold

    @abstractmethod
    def figures(self, samples: Sequence[Sample]) -> list[float]:
        """Return the figure of every sample, NaN where there is none."""

    def prepare(self, context: FilterContext) -> None:
        """Find the threshold, unless one was given.

        Raises:
            SampleError: No real sample has the figure.
        """
        if self.threshold is not None:
            return
        values = [value for sample in bar(context.real(), f"real {self.name}") for value in self.figures([sample])]
        known = np.array([v for v in values if np.isfinite(v)])
        if not len(known):
            hint = "Give a threshold instead of a percentile"
            raise SampleError(f"no real sample has the figure {self.name!r}", where="filter", hint=hint)
        side = self.percentile if self.worse == "lower" else 100 - self.percentile
        self.threshold = float(np.percentile(known, side))

    def _judge(self, group: Group) -> Sequence[Verdict]:
        if self.threshold is None:
            hint = "Call prepare(context) first, or give a threshold"
            raise SampleError(f"the threshold of {self.name!r} is not known", where=f"group {group.id}", hint=hint)
        return [self._verdict(value, self.threshold) for value in self.figures(group.samples)]

    def _verdict(self, value: float, threshold: float) -> Verdict:
        if not np.isfinite(value):
            return Verdict(True)
        scores = {self.name: value}
        if value >= threshold if self.worse == "lower" else value <= threshold:
            return Verdict(True, scores=scores)
        side = "below" if self.worse == "lower" else "above"
        return Verdict(False, f"its {self.name} {value:.3g} is {side} {threshold:.3g}", scores=scores)


class DensityFilter(AgainstReal):
    """Drops sparse samples.

    Args:
        labels: Class table.
        measure: A figure of `genaug_quality.density.mask_density`.
        predictor: Count in what this segmenter sees in the image; None for the sample's own mask.
        percentile: See `AgainstReal`.
        threshold: See `AgainstReal`.
        min_area: See `mask_density`.
        batch_size: Images per forward pass.
        device: Torch device of the predictor.
    """

    def __init__(
        self,
        *,
        labels: LabelSpace,
        measure: Literal["components", "classes", "area_entropy"] = "components",
        predictor: Predictor | None = None,
        percentile: float = 5.0,
        threshold: float | None = None,
        min_area: float = MIN_AREA,
        batch_size: int = 8,
        device: str = "cpu",
    ) -> None:
        super().__init__(measure, "lower", percentile=percentile, threshold=threshold)
        self.judges_unlabeled = predictor is not None
        self.labels, self.min_area = labels, min_area
        self._segmenter = (
            None
            if predictor is None
            else BatchedPredictor(predictor, labels=labels, batch_size=batch_size, device=device)
        )

    @classmethod
    def from_config(cls, options: DensityFilterOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        predictor = options.predictor
        return cls(
            labels=context.labels,
            measure=options.measure,
            predictor=None if predictor is None else context.predictor(predictor, where="filters.density.predictor"),
            percentile=options.percentile,
            threshold=options.threshold,
            min_area=options.min_area,
            batch_size=options.batch_size,
            device=context.device,
        )

    def figures(self, samples: Sequence[Sample]) -> list[float]:
        """Return the chosen figure of the masks, given or predicted."""
        masks = [s.mask for s in samples]
        if self._segmenter is not None:
            masks = list(self._segmenter.ids([s.image for s in samples if s.image is not None]))
        return [
            float("nan") if mask is None else mask_density(mask, self.labels, min_area=self.min_area)[self.name]
            for mask in masks
        ]


class FidelityFilter(AgainstReal):
    """Drops coarse images, or noisy ones.

    Args:
        measure: A figure of `genaug_quality.fidelity.Fidelity`.
        percentile: See `AgainstReal`.
        threshold: See `AgainstReal`.
        side: Short side that every image is brought to first; by default the smallest one of the real images, see
            `genaug_quality.fidelity.common_size`.
    """

    judges_unlabeled = True

    def __init__(
        self,
        *,
        measure: Literal["glcm_score", "glcm_joint_entropy", "compression_ratio", "noise"] = "glcm_joint_entropy",
        percentile: float = 5.0,
        threshold: float | None = None,
        side: int | None = None,
    ) -> None:
        worse: Literal["lower", "higher"] = "lower" if measure.startswith("glcm") else "higher"
        super().__init__(measure, worse, percentile=percentile, threshold=threshold)
        self._figures = Fidelity(side=side)

    @classmethod
    def from_config(cls, options: FidelityFilterOptions, context: BuildContext) -> Self:  # noqa: ARG003
        """Build from a recipe's options."""
        return cls(
            measure=options.measure, percentile=options.percentile, threshold=options.threshold, side=options.side
        )

    def prepare(self, context: FilterContext) -> None:
        """Find the common size, then the threshold."""
        if self._figures.side is None and self.threshold is None:
            sizes = {sample.id: sample.size for sample in bar(context.real(), "sizes")}
            self._figures.least, self._figures.side = common_size(Counter(sizes.values()))
            small = [name for name, size in sizes.items() if min(size) < self._figures.least]
            if small:
                log.warning(
                    "filter fidelity: images smaller than %d pixels have no figure, of the real ones %d: %s",
                    self._figures.least,
                    len(small),
                    listed(small),
                )
        super().prepare(context)

    def figures(self, samples: Sequence[Sample]) -> list[float]:
        """Return the chosen figure of the images."""
        records = self._figures.measure(samples)
        if self.name == "compression_ratio":
            return [float(r["raw_bytes"]) / float(r["jpeg_bytes"]) for r in records]
        return [float(record[self.name]) for record in records]


class AgreementFilter(AgainstReal):
    """Drops images in which a segmenter does not find the mask again.

    Args:
        predictor: A segmenter. It should not have been trained on the real samples that the percentile is taken of:
            those it knows by heart, and the threshold would be too high.
        labels: Class table.
        percentile: See `AgainstReal`.
        threshold: See `AgainstReal`.
        batch_size: Images per forward pass.
        device: Torch device of the predictor.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        labels: LabelSpace,
        percentile: float = 5.0,
        threshold: float | None = None,
        batch_size: int = 8,
        device: str = "cpu",
    ) -> None:
        super().__init__("agreement", "lower", percentile=percentile, threshold=threshold)
        self.labels = labels
        self._segmenter = BatchedPredictor(predictor, labels=labels, batch_size=batch_size, device=device)

    @classmethod
    def from_config(cls, options: AgreementFilterOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(
            context.predictor(options.predictor, where="filters.agreement.predictor"),
            labels=context.labels,
            percentile=options.percentile,
            threshold=options.threshold,
            batch_size=options.batch_size,
            device=context.device,
        )

    def figures(self, samples: Sequence[Sample]) -> list[float]:
        """Return the share of labelled pixels whose class is predicted."""
        predicted = self._segmenter.ids([s.image for s in samples if s.image is not None])
        return [
            float("nan") if s.mask is None else agreement(p, s.mask, self.labels)
            for s, p in zip(samples, predicted, strict=True)
        ]
