"""UPC on arrays: the same results as the mixer's, from a stored map on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from genaug import Rng
from genaug.batch import Batch, image_tensor
from genaug.errors import SampleError
from genaug.predictions import Predictions
from genaug_upc.config import UpcOptions
from genaug_upc.functional import entropy_map
from genaug_upc.mixer import UncertaintyPatchCutMix
from genaug_upc.offline import mix_arrays, select
from genaug_upc.store import UncertaintyStore

RNG = Rng(3).child("upc")
SIZE = (33, 41)


def arrays(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SIZE, 3), np.uint8), rng.integers(0, 5, (count, *SIZE)).astype(np.uint8)


def tensors(images: np.ndarray, masks: np.ndarray, **more: object) -> Batch:
    return Batch(image_tensor(images), torch.from_numpy(masks.astype(np.int64)), **more)


@pytest.mark.parametrize("score", ["entropy", "random"])
@pytest.mark.parametrize("ras", ["sample", "expand"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_arrays_and_batches_give_the_same(ras: str, score: str, count: int) -> None:
    images, masks = arrays(4, 1)
    donor_images, donor_masks = arrays(count, 2)
    donor_masks[0, :20] = 255  # not wanted where there is another
    logits = torch.randn(4, 5, *SIZE, generator=torch.Generator().manual_seed(0))
    predictions = Predictions(logits, "logits")
    options = UpcOptions(ras=ras, score=score)
    mixer = UncertaintyPatchCutMix(**options.model_dump())
    batch = mixer(tensors(images, masks, predictions=predictions, first=9), tensors(donor_images, donor_masks), rng=RNG)
    maps, donors = entropy_map(predictions).numpy(), list(zip(donor_images, donor_masks, strict=True))
    results = [
        mixed
        for i in range(4)
        for mixed in mix_arrays(images[i], masks[i], maps[i], donors, rng=RNG.child(9 + i), options=options)
    ]
    assert len(results) == len(batch)
    for i, mixed in enumerate(results):
        assert mixed.image.dtype == mixed.mask.dtype == np.uint8
        np.testing.assert_array_equal(mixed.pasted, batch.provenance[i].bool())
        np.testing.assert_array_equal(mixed.mask, batch.targets[i])
        np.testing.assert_array_equal(image_tensor(mixed.image), batch.images[i])
        np.testing.assert_array_equal(mixed.image[mixed.pasted], donor_images[mixed.donor][mixed.pasted])
        assert mixed.patches in (2, 3, 5)


class Lazy(Sequence):
    """Donors that are loaded when asked for."""

    def __init__(self, images: np.ndarray, masks: np.ndarray) -> None:
        self.images, self.masks, self.asked = images, masks, []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(number)
        return self.images[number], self.masks[number]


def test_only_the_donors_that_are_drawn_are_loaded_and_nothing_is_changed() -> None:
    images, masks = arrays(1, 1)
    donors = Lazy(*arrays(200, 2))
    uncertainty = np.random.default_rng(0).random(SIZE)
    copies = [a.copy() for a in (images, masks, donors.images, donors.masks, uncertainty)]
    for array in (images, masks, donors.images, donors.masks, uncertainty):
        array.flags.writeable = False
    results = mix_arrays(images[0], masks[0], uncertainty, donors, rng=RNG.child("a"), options=UpcOptions(ras="expand"))
    assert donors.asked == [mixed.donor for mixed in results]
    assert len(set(donors.asked)) == 3
    for array, copy in zip((images, masks, donors.images, donors.masks, uncertainty), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    ignored = Lazy(donors.images, np.full_like(donors.masks, 255))
    mix_arrays(images[0], masks[0], uncertainty, ignored, rng=RNG.child("a"))
    assert len(ignored.asked) == 9  # one draw, 8 more


def test_from_the_labelling_stage_to_a_mixed_sample(tmp_path: Path) -> None:
    images, masks = arrays(1, 1)
    logits = torch.randn(1, 5, *SIZE, generator=torch.Generator().manual_seed(4))
    uncertainty = entropy_map(Predictions(logits, "logits"))[0]
    store = UncertaintyStore(tmp_path, 5)
    store.write("a", uncertainty)
    stored = store.read("a", size=SIZE)
    for k in range(17):
        np.testing.assert_array_equal(select(stored, k), select(uncertainty.numpy(), k))
    donors = list(zip(*arrays(3, 2), strict=True))
    one, other = (mix_arrays(images[0], masks[0], u, donors, rng=RNG)[0] for u in (stored, uncertainty.numpy()))
    np.testing.assert_array_equal(one.image, other.image)


def test_impossible_requests_are_refused() -> None:
    images, masks = arrays(1, 1)
    uncertainty, donors = np.zeros(SIZE), list(zip(*arrays(1, 2), strict=True))
    for k in (-1, 17):
        with pytest.raises(SampleError, match=f"{k} patches of 4x4"):
            select(uncertainty, k)
    with pytest.raises(SampleError, match="a grid of 34 patches over 33 pixels"):
        select(uncertainty, 1, grid=34)

    def mix(image=images[0], mask=masks[0], values=uncertainty, given=donors) -> None:
        mix_arrays(image, mask, values, given, rng=RNG)

    mix()
    with pytest.raises(SampleError, match="no labelled images"):
        mix(given=[])
    with pytest.raises(SampleError, match="the uncertainty map has size"):
        mix(values=uncertainty[:, 1:])
    with pytest.raises(SampleError, match="the mask has size"):
        mix(mask=masks[0][1:])
    with pytest.raises(SampleError, match="the image is dtype float64"):
        mix(image=images[0] / 255)
    with pytest.raises(SampleError, match="donor 0 has size"):
        mix(given=[(images[0][1:], masks[0][1:])])
    with pytest.raises(SampleError, match="the mask of donor 0 has size"):
        mix(given=[(images[0], masks[0][1:])])
    with pytest.raises(SampleError, match="the mask is dtype int64"):
        mix(given=[(images[0], masks[0].astype(np.int64))])
