"""Which labelled samples are trained on, and which are held out. No torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import overload

import numpy as np

from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.types import Sample


class Chosen(Sequence[Sample]):
    """Some samples of a sequence, read when asked for: thousands of images need not be in memory at once."""

    def __init__(self, samples: Sequence[Sample], indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return Chosen(self.samples, self.indices[index])
        return self.samples[self.indices[index]]


def survey(samples: Sequence[Sample], labels: LabelSpace) -> tuple[list[int], str]:
    """Return the numbers of the samples with a pixel of a named class, and a hash of their ids and pixels."""
    usable: list[int] = []
    sha = hashlib.sha256()
    for number, sample in enumerate(samples):
        if sample.mask is None or not np.isin(sample.mask, labels.ids).any():
            continue
        usable.append(number)
        sha.update(sample.id.encode() + b"\0")
        for array in (sample.image, sample.mask):
            if array is not None:
                sha.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return usable, sha.hexdigest()[:16]


def split(count: int, holdout: float, rng: Rng) -> tuple[list[int], list[int]]:
    """Split example numbers into training and held out; at least one of each if `holdout` is positive."""
    kept_out = math.ceil(count * holdout)
    order = rng.child("holdout").numpy().permutation(count).tolist()
    return sorted(order[kept_out:]), sorted(order[:kept_out])
