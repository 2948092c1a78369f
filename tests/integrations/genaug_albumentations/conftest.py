"""Stores whose samples can be told apart by any pixel, and calls of one transform in a pipeline."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

# AlbumentationsX asks before every new pipeline; albumentations 2.0.8 does not know the name.
os.environ.setdefault("ALBUMENTATIONS_NO_TELEMETRY", "1")
sys.path.insert(0, str(next(p for p in Path(__file__).parents if p.name == "tests") / "noise"))

from noise_helpers import make_recipe

from genaug.store import open_writer
from genaug.types import Draw, Sample

LABELS = {1: "grass", 4: "road", 7: "car"}


@pytest.fixture(scope="session")
def make_store():
    """Return a function that writes a store of some masks, each a list of the samples of one condition.

    Every pixel of the image of sample number n (over all, from 0) has red ``10 * n + 5``; green and blue are places.
    """

    def make(root: Path, masks, labels=LABELS) -> Path:
        recipe = make_recipe(root, labels=labels)
        total = sum(len(several) for several in masks.values())
        keys, number = [], 0
        with open_writer(recipe) as writer:
            writer.plan(total, max(len(several) for several in masks.values()), missing=total)
            for sample_id, several in masks.items():
                condition = Sample(sample_id, mask=several[0])
                writer.put_condition(condition)
                for k, mask in enumerate(several):
                    draw = Draw(condition, k, seed=number)
                    writer.add([draw], [Sample(draw.key, numbered(number, mask.shape), mask)], {})
                    keys.append(draw.key)
                    number += 1
            assert writer.finish(keys)
        return recipe.output

    return make


def numbered(number: int, shape) -> np.ndarray:
    """The image of sample `number`."""
    rows, columns = np.indices(shape)
    return np.stack([np.full(shape, 10 * number + 5), rows, columns], axis=2).astype(np.uint8)


@pytest.fixture
def picture():
    """A real image, red 0, and its mask of ids 1 and 4."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 16, 3), np.uint8)
    image[..., 0] = 0
    return image, rng.choice(np.array([1, 4, 255], np.uint8), (12, 16))


@pytest.fixture(scope="session")
def mixed_store(make_store, tmp_path_factory):
    """Three conditions: "a" with 3 samples of the picture's size, "b" with 1 that is larger, "c" with 1 narrower.

    Samples 0, 1, 2 hold class 1 alone, 3 holds 1 and 4, 4 holds 4 and 7.
    """
    own, large, narrow = (np.full(shape, 1, np.uint8) for shape in ((12, 16), (20, 18), (14, 6)))
    large[5:9, 3:11] = 4
    narrow[:] = 4
    narrow[2:5, 1:4] = 7
    narrow[0, 0] = 255
    masks = {"a": [own, own, own], "b": [large], "c": [narrow]}
    return make_store(tmp_path_factory.mktemp("mixed"), masks)
