"""How hard each class is: the mean loss m_c of a segmenter on the real labelled images (FreeMask)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from genaug.errors import SampleError
from genaug.interfaces import FilterContext, Predictor
from genaug.labels import LabelSpace
from genaug.types import Mask, Sample
from genaug_basics.inference import BatchedPredictor

_Real = Callable[[], Iterator[Sample]]


@dataclass(frozen=True, slots=True)
class ClassLosses:
    """Mean cross-entropy m_c of each class over all its real pixels.

    Args:
        means: class id -> m_c in nats, for the classes with at least one real pixel; at least one.
        labels: Class table.
    """

    means: dict[int, float]
    labels: LabelSpace

    def table(self, default: float) -> NDArray[np.float64]:
        """Return m_c for all 256 ids, `default` for those without a real pixel."""
        table = np.full(256, default, np.float64)
        for class_id, mean in self.means.items():
            table[class_id] = mean
        return table

    def hardness(self, mask: Mask) -> float:
        """Return the mean of m_c over the labelled pixels of `mask` ``[H, W]``, 0 if it has none (FreeMask).

        A class without real pixels counts like the hardest one that has some.
        """
        counts = np.bincount(mask.ravel(), minlength=256)[list(self.labels.ids)].astype(np.float64)
        if not counts.any():
            return 0.0
        losses = self.table(max(self.means.values()))[list(self.labels.ids)]
        return float(counts @ losses / counts.sum())


# The filters of one run that share a predictor share its losses: predictor -> (real samples, losses).
_known: weakref.WeakKeyDictionary[Predictor, tuple[_Real, ClassLosses]] = weakref.WeakKeyDictionary()


def class_losses(segmenter: BatchedPredictor, context: FilterContext) -> ClassLosses:
    """Return m_c of a segmenter on the real labelled samples, computed once per run and predictor.

    Args:
        segmenter: Trained on the real samples.
        context: Where the real samples come from.

    Raises:
        SampleError: A real sample has no image or mask, or no real pixel is labelled.
    """
    predictor = segmenter.predictor
    known = _known.get(predictor)
    if known is not None and known[0] is context.real and known[1].labels == segmenter.labels:
        return known[1]
    losses = _measure(segmenter, context.real())
    _known[predictor] = (context.real, losses)
    return losses


def _measure(segmenter: BatchedPredictor, samples: Iterator[Sample]) -> ClassLosses:
    ids = segmenter.labels.ids
    sums, counts = np.zeros(len(ids)), np.zeros(len(ids), np.int64)
    bar = tqdm(samples, desc="real class losses", unit="image", delay=1, leave=False)
    # Runs of one size share a forward pass; the order of the samples stays.
    for _, run in groupby(bar, key=lambda sample: sample.size):
        while batch := list(islice(run, segmenter.batch_size)):
            images = [s.image for s in batch if s.image is not None]
            masks = [s.mask for s in batch if s.mask is not None]
            if not len(images) == len(masks) == len(batch):
                lacking = next(s.id for s in batch if s.image is None or s.mask is None)
                raise SampleError("image or mask missing", where=f"real sample {lacking}", allowed="both")
            stacked = np.stack(masks)
            channels = segmenter.channels(stacked)
            labelled = channels >= 0
            loss = segmenter.losses(images, stacked)[labelled].astype(np.float64)
            sums += np.bincount(channels[labelled], loss, minlength=len(ids))
            counts += np.bincount(channels[labelled], minlength=len(ids))
    if not counts.any():
        raise SampleError(
            "no pixel of the real samples is labelled",
            where="class losses",
            allowed="at least one",
            hint="Check 'data' and 'labels' of the recipe",
        )
    means = {i: float(s / n) for i, s, n in zip(ids, sums, counts, strict=True) if n}
    return ClassLosses(means, segmenter.labels)
