"""The mixer ``patch-mask``: only images change, and each sample draws for itself."""

from __future__ import annotations

import warnings

import pytest
import torch

from genaug.batch import Batch
from genaug.errors import ConfigError
from genaug.predictions import Predictions
from genaug.rng import Rng
from genaug_maskmatch.mixer import PatchMask


def some(count: int, size: tuple[int, int] = (64, 96), **more) -> Batch:
    images = 1 + torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 5, (count, *size), generator=torch.Generator().manual_seed(1))
    return Batch(
        images, targets=targets, weights=torch.rand(count, *size), valid=targets > 0,
        predictions=Predictions(torch.randn(count, 5, *size), "logits"), **more,
    )  # fmt: skip


def test_only_the_images_change() -> None:
    batch = some(3)
    before = batch.images.clone()
    mixed = PatchMask(patch=8).mix(batch, rng=Rng(0))
    for name in ("targets", "weights", "valid", "predictions", "provenance", "soft", "first"):
        assert getattr(mixed, name) is getattr(batch, name)
    hidden = (mixed.images == 0).all(1)
    assert torch.equal(mixed.images, torch.where(hidden.unsqueeze(1), 0.0, batch.images))
    assert 0.5 < hidden.float().mean() < 0.9
    squares = hidden.view(3, 8, 8, 12, 8).float().mean((2, 4))
    assert ((squares == 0) | (squares == 1)).all()
    assert torch.equal(batch.images, before)
    assert len({plane.numpy().tobytes() for plane in hidden}) == 3  # images of a batch differ


@pytest.mark.parametrize("sampling", ["random", "block", "grid"])
def test_a_sample_depends_on_its_number_and_nothing_else(sampling: str) -> None:
    batch, mixer, state = some(5, first=11), PatchMask(patch=8, sampling=sampling), torch.get_rng_state()
    whole = mixer.mix(batch, rng=Rng(3)).images
    assert torch.equal(mixer.mix(batch, rng=Rng(3)).images, whole)
    assert not torch.equal(mixer.mix(batch, rng=Rng(4)).images, whole)
    for start, stop in ((0, 1), (1, 4), (4, 5)):
        part = Batch(batch.images[start:stop], first=11 + start)
        assert torch.equal(mixer.mix(part, rng=Rng(3)).images, whole[start:stop])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_equal_masks_on_the_gpu() -> None:
    batch, mixer = some(4), PatchMask(patch=8)
    there = mixer.mix(batch.to("cuda"), rng=Rng(0)).images
    assert there.is_cuda
    assert torch.equal(there.cpu(), mixer.mix(batch, rng=Rng(0)).images)


def test_ratio_zero_hides_nothing_and_ratio_one_needs_a_word() -> None:
    batch = some(2)
    assert torch.equal(PatchMask(patch=8, ratio=0).mix(batch, rng=Rng(0)).images, batch.images)
    with pytest.raises(ConfigError, match="allow_all"):
        PatchMask(ratio=1)
    assert (PatchMask(patch=8, ratio=1, allow_all=True, fill=0.5).mix(batch, rng=Rng(0)).images == 0.5).all()


def test_few_patches_are_warned_of_once() -> None:
    mixer, batch = PatchMask(), some(6, (64, 64))
    with pytest.warns(UserWarning, match="only 4 patches in images of 64x64"):
        mixer.mix(batch, rng=Rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixer.mix(batch, rng=Rng(0))
        PatchMask().mix(some(1, (128, 128)), rng=Rng(0))  # 16 patches are enough
    small = some(40, (20, 31))
    with pytest.warns(UserWarning, match="one patch spans a whole side"):
        mixed = PatchMask().mix(small, rng=Rng(0)).images
    whole = (mixed == 0).flatten(1)
    assert (whole.all(1) | ~whole.any(1)).all()  # one cell: wholly hidden or wholly visible
    assert 0 < int(whole.all(1).sum()) < 40


@pytest.mark.parametrize(
    "bad", [{"patch": 0}, {"ratio": 1.2}, {"sampling": "chess"}, {"grid": "floor"}, {"fill": float("nan")}]
)
def test_wrong_options_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        PatchMask(**bad)
