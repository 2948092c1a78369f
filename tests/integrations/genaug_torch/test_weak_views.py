"""Weak views: image and labels move alike, padding is told, and no sample depends on its neighbours."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.batch import PIXELS, Batch
from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions
from genaug.rng import Rng
from genaug.step_config import ViewsConfig
from genaug_torch import WeakView

SIDES = st.integers(1, 33)
IGNORE = 255


def ramps(count, height, width):
    """Return images whose first two channels say which row and column a pixel is from, and the same as labels."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows + 1.0, columns + 1.0, torch.full_like(rows, 7.0, dtype=torch.float)])
    return image.expand(count, 3, height, width).clone(), (rows * 1000 + columns).expand(count, height, width).clone()


def make(weak="builtin", **options):
    return WeakView(ViewsConfig(weak=weak, **options), ignore_index=IGNORE)


def batch(count=4, size=(12, 10), seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (count, *size), generator=generator)
    labels[:, 0] = IGNORE
    return Batch(torch.rand(count, 3, *size, generator=generator), labels, **more)


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(SIDES, SIDES), crop=st.tuples(SIDES, SIDES), low=st.floats(0.3, 1), high=st.floats(1, 2.5),
       seed=st.integers(0, 10**6))  # fmt: skip
def test_image_and_labels_come_from_the_same_place(size, crop, low, high, seed):
    images, labels = ramps(3, *size)
    found = make(scale=(low, high), crop=crop)(Batch(images, labels), rng=Rng(seed))
    assert found.images.shape == (3, 3, *crop)
    assert torch.equal(found.targets == IGNORE, ~found.valid)
    rows, columns = found.targets // 1000, found.targets % 1000
    for channel, expected in ((0, rows), (1, columns)):
        apart = (found.images[:, channel] - 1 - expected)[found.valid].abs()
        # The nearest pixel is at most half a pixel away; smaller images are means over 1 / scale pixels, which
        # borders pull inwards.
        assert float(apart.max()) <= 0.5 + 0.5 / low
    assert bool((found.images[:, 2][found.valid] - 7).abs().max() < 1e-4)
    assert float(found.images.movedim(1, -1)[~found.valid].abs().sum()) == 0


def slow(values, piece, crop, empty):
    """Cut nearest neighbours pixel by pixel, from what the view drew."""
    height, width = values.shape
    result = torch.full(crop, empty, dtype=values.dtype)
    for y in range(crop[0]):
        for x in range(crop[1]):
            row, column = y + piece.rows.start, x + piece.columns.start
            if row < piece.scaled[0] and column < piece.scaled[1]:
                source = int((row + 0.5) * height / piece.scaled[0]), int((column + 0.5) * width / piece.scaled[1])
                result[y, crop[1] - 1 - x if piece.flipped else x] = values[source]
    return result


@settings(max_examples=40, deadline=None)
@given(size=st.tuples(SIDES, SIDES), crop=st.tuples(SIDES, SIDES), seed=st.integers(0, 10**6))
def test_pixel_values_equal_a_loop_and_none_is_invented(size, crop, seed):
    from genaug_torch.weak_views import _draw

    generator = torch.Generator().manual_seed(seed)
    fields = {
        "targets": torch.randint(5, (2, *size), generator=generator),
        "weights": torch.rand(2, *size, generator=generator),
        "valid": torch.rand(2, *size, generator=generator) < 0.8,
        "provenance": torch.randint(2, (2, *size), generator=generator),
    }
    config = ViewsConfig(weak="builtin", crop=crop)
    found = make(crop=crop)(Batch(torch.rand(2, 3, *size), **fields, first=3), rng=Rng(seed))
    empty = {"targets": IGNORE, "weights": 0.0, "valid": False, "provenance": 0}
    for name in PIXELS:
        for i, result in enumerate(getattr(found, name)):
            piece = _draw(Rng(seed).child(3 + i), size, crop, config)
            assert torch.equal(result, slow(fields[name][i], piece, crop, empty[name])), name
    assert set(found.targets.unique().tolist()) <= {0, 1, 2, 3, 4, IGNORE}


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 5), cut=st.integers(0, 5), seed=st.integers(0, 1000))
def test_a_sample_does_not_depend_on_its_batch(count, cut, seed):
    whole, view = batch(count), make(crop=(9, 14))
    together, cut = view(whole, rng=Rng(seed)), min(cut, count)
    parts = [
        view(Batch(whole.images[a:b], whole.targets[a:b], first=a), rng=Rng(seed))
        for a, b in ((0, cut), (cut, count))
        if b > a
    ]
    for name in ("images", "targets", "valid"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(together, name))
    alone = view(Batch(whole.images), rng=Rng(seed))  # without labels: the same geometry
    assert alone.targets is None
    assert torch.equal(alone.images, together.images)
    assert torch.equal(alone.valid, together.valid)


def test_libraries_cut_at_the_same_place(library):
    whole = batch(6, size=(24, 32))
    whole = dataclasses.replace(whole, images=torch.nn.functional.avg_pool2d(whole.images, 5, 1, 2))  # smooth
    ours, state = make(crop=(20, 28))(whole, rng=Rng(3)), torch.random.get_rng_state()
    view = make(library, crop=(20, 28))
    found = view(whole, rng=Rng(3))
    assert view.library() == library
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(found.targets, ours.targets)
    assert torch.equal(found.valid, ours.valid)
    assert found.images.dtype == torch.float32
    apart = (found.images - ours.images).abs()
    assert float(apart.mean()) < 0.01  # filters of smaller images differ
    double = view(Batch(whole.images.double()), rng=Rng(3)).images
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), found.images, atol=1e-5, rtol=0)
    linear = view(Batch(5 * whole.images - 2), rng=Rng(3))  # nothing is clamped: images may be normalised
    expected = torch.where(linear.valid.unsqueeze(1), 5 * found.images - 2, 0.0)
    torch.testing.assert_close(linear.images, expected, atol=1e-4, rtol=0)


def test_without_scaling_pixels_are_copied():
    whole = batch(8, size=(10, 10))
    found = make(scale=(1, 1), flip=0.5)(whole, rng=Rng(0))
    flipped = [not torch.equal(new, old) for new, old in zip(found.images, whole.images, strict=True)]
    assert True in flipped
    assert False in flipped
    for i, turned in enumerate(flipped):
        assert torch.equal(found.images[i], whole.images[i].flip(-1) if turned else whole.images[i])
        assert torch.equal(found.targets[i], whole.targets[i].flip(-1) if turned else whole.targets[i])
    assert bool(found.valid.all())
    assert torch.equal(make(scale=(1, 1), flip=0)(whole, rng=Rng(0)).images, whole.images)
    assert torch.equal(make(scale=(1, 1), flip=1)(whole, rng=Rng(0)).images, whole.images.flip(-1))


def test_scales_and_places_are_spread_over_their_ranges():
    images, labels = ramps(300, 8, 8)
    found = make(scale=(0.5, 2), flip=0)(Batch(images, labels), rng=Rng(1))
    shares = found.valid.float().mean((1, 2))
    assert float(shares.min()) == 0.25
    assert 0.2 < float((shares < 1).float().mean()) < 0.4  # scales below 0.94 of 0.5 to 2
    whole = found.targets[shares == 1]
    corners = torch.stack([whole[:, 0, 0] // 1000, whole[:, 0, 0] % 1000])
    assert corners.unique(dim=1).shape[1] > 15


def test_padding_is_black_before_the_normalisation():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
    view = WeakView(ViewsConfig(weak="builtin", scale=(0.5, 0.5), flip=0), mean=mean, std=std, ignore_index=9)
    found = view(batch(2), rng=Rng(0))
    black = torch.tensor([-0.4 / 0.2, -0.5 / 0.25, -0.6 / 0.5])
    torch.testing.assert_close(found.images[0, :, -1, -1], black)
    assert not bool(found.valid[:, 6:].any())
    assert bool(found.valid[:, :6, :5].all())
    assert bool((found.targets[:, 6:] == 9).all())
    padded = batch(2, valid=torch.zeros(2, 12, 10, dtype=torch.bool))
    assert not bool(view(padded, rng=Rng(0)).valid.any())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_resampled_in_full_precision(dtype):
    whole, view = batch(), make()
    half = whole.images.to(dtype)
    expected = view(Batch(half.float()), rng=Rng(3)).images
    found = view(Batch(half), rng=Rng(3)).images
    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view(Batch(half.float()), rng=Rng(3)).images, expected)


def test_nothing_is_done_unless_asked_for():
    whole = batch()
    assert WeakView()(whole, rng=Rng(0)) is whole
    before = whole.images.clone()
    assert make(crop=7)(whole, rng=Rng(0)).images.shape == (4, 3, 7, 7)
    assert torch.equal(whole.images, before)
    labelled = dataclasses.replace(whole, predictions=Predictions(torch.rand(4, 5, 12, 10), "logits"))
    with pytest.raises(SampleError, match="Make weak views first"):
        make()(labelled, rng=Rng(0))


@pytest.mark.parametrize("options", [{"scale": (0, 1)}, {"scale": (2, 1)}, {"crop": 0}, {"crop": (4, -1)}, {"flip": 2}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ViewsConfig(weak="builtin", **options)


def test_wrong_normalisations_are_named():
    with pytest.raises(ConfigError, match=r"mean: 2 numbers"):
        WeakView(mean=[0.5, 0.5])
