"""Small data that contracts show to components: ids with a gap, some ignored pixels, read-only arrays."""

from __future__ import annotations

import random
from types import MappingProxyType

import numpy as np
import torch

from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.types import Group, Mask, Sample

#: Ids with a gap and without 0: code that takes ids for channel numbers fails here.
LABELS = LabelSpace(MappingProxyType({1: "road", 4: "car", 9: "tree"}))
_COLORS = {1: (150, 90, 90), 4: (80, 160, 70), 9: (70, 80, 170), LABELS.ignore_index: (30, 30, 30)}


def make_mask(rng: Rng, size: tuple[int, int] = (12, 17)) -> Mask:
    """Return a mask uint8 ``[H, W]`` of large rectangles of the ids of `LABELS`, with some ignored pixels."""
    numbers = rng.child("mask").numpy()
    mask = np.full(size, numbers.choice(LABELS.ids), np.uint8)
    for value in (*LABELS.ids, LABELS.ignore_index):
        top, left = (int(numbers.integers(0, side)) for side in size)
        mask[top : top + size[0] // 3 + 1, left : left + size[1] // 3 + 1] = value
    return mask


def make_sample(sample_id: str, mask: Mask, rng: Rng) -> Sample:
    """Return a sample whose image is one noisy colour per class."""
    palette = np.zeros((256, 3), np.float64)
    for class_id, color in _COLORS.items():
        palette[class_id] = color
    image = palette[mask] + rng.child("image").numpy().normal(0, 25, (*mask.shape, 3))
    return Sample(sample_id, np.clip(image, 0, 255).astype(np.uint8), mask)


def make_group(group_id: str, count: int, *, seed: int = 0) -> Group:
    """Return `count` samples of one condition; their arrays are read-only."""
    rng = Rng(seed).child(group_id)
    mask = make_mask(rng)
    samples = tuple(make_sample(f"{group_id}_{k}", mask.copy(), rng.child(k)) for k in range(count))
    for array in (mask, *(a for s in samples for a in (s.image, s.mask) if a is not None)):
        array.flags.writeable = False
    return Group(group_id, mask, samples, tuple(range(count)))


def global_random_state() -> tuple[object, ...]:
    """Return the global states of `random`, numpy and torch, for a comparison before and after."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002  (the global state is what is looked at)
    return random.getstate(), str(numpy_state), torch.get_rng_state().tolist()
