"""CutMix: rectangles of UniMatch's law, and everything of a pixel from one place."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions, SoftTargets
from genaug.rng import Rng
from genaug_basics.cutmix import CutMix, draw_box

WIDE = (0.3, 1 / 0.3)


def readable(first_value: int, count: int, size: tuple[int, int], dtype: torch.dtype = torch.float32, **more) -> Batch:
    """A batch whose every field can be computed from the number of its pixel, which the images hold."""
    number = first_value + torch.arange(count * size[0] * size[1]).view(count, *size)
    values = torch.stack([number % 5, number % 3, number % 2], 1).float()
    return Batch(
        number.to(dtype).unsqueeze(1).expand(-1, 3, -1, -1).contiguous(),
        targets=number % 7,
        weights=number % 11 / 11,
        valid=number % 13 > 0,
        predictions=Predictions(values, "logits"),
        soft=SoftTargets(-values, torch.zeros(3)),
        **more,
    )


def check_origins(mixed: Batch, before: Batch, partner: Batch, donors: list[int], mask: torch.Tensor) -> None:
    """Every field is the field of the pixel that the image shows, and that is the own or the partner's one."""
    for i, donor in enumerate(donors):
        expected = torch.where(mask[i], partner.images[donor, 0], before.images[i, 0])
        assert torch.equal(mixed.images[i], expected.expand(3, -1, -1))
    number = mixed.images[:, 0].long()
    assert torch.equal(mixed.targets, number % 7)
    assert torch.equal(mixed.weights, number % 11 / 11)
    assert torch.equal(mixed.valid, number % 13 > 0)
    values = torch.stack([number % 5, number % 3, number % 2], 1).float()
    assert torch.equal(mixed.predictions.values, values)
    assert torch.equal(mixed.soft.log_probs, -values)
    assert torch.equal(mixed.provenance, mask.long())


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), sizes, st.sampled_from([0.0, 0.5, 1.0]))
def test_everything_of_a_pixel_comes_from_one_place(seed, count, size, probability) -> None:
    batch = readable(0, count, size)
    mixed = CutMix(probability=probability).mix(batch, rng=Rng(seed))
    mask = mixed.provenance.bool()
    check_origins(mixed, batch, batch, list(range(count - 1, -1, -1)), mask)  # the partner of i is B - 1 - i
    for plane in mask:
        rows, columns = plane.any(1), plane.any(0)
        assert torch.equal(plane, rows.unsqueeze(1) & columns.unsqueeze(0))  # one rectangle, no gaps in it
        for line in (rows, columns):
            assert int(line.sum()) == 0 or int(line.nonzero().max() - line.nonzero().min()) + 1 == int(line.sum())
    if probability == 0:
        assert not mask.any()
        assert torch.equal(mixed.images, batch.images)
    if probability == 1:
        assert mask.flatten(1).any(1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_copied_bit_by_bit(dtype: torch.dtype) -> None:
    batch = Batch(torch.randn(3, 3, 8, 9, generator=torch.Generator().manual_seed(0)).to(dtype))
    mixed = CutMix(probability=1).mix(batch, rng=Rng(1))
    mask = mixed.provenance.bool().unsqueeze(1)
    assert mixed.images.dtype == dtype
    assert torch.equal(mixed.images, torch.where(mask, batch.images.flip(0), batch.images))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 6))
def test_another_partner_batch_may_have_another_length(seed, count, others) -> None:
    batch, partner = readable(0, count, (6, 7)), readable(10_000, others, (6, 7))
    mixed = CutMix(probability=1).mix(batch, partner, rng=Rng(seed))
    check_origins(mixed, batch, partner, [i % others for i in range(count)], mixed.images[:, 0] >= 10_000)


def test_a_sample_depends_on_its_number_and_nothing_else() -> None:
    batch, partner, mixer = readable(0, 5, (9, 8), first=40), readable(10_000, 5, (9, 8)), CutMix()
    whole = mixer.mix(batch, partner, rng=Rng(3)).images
    again = mixer.mix(batch, partner, rng=Rng(3)).images
    other = mixer.mix(batch, partner, rng=Rng(4)).images
    assert torch.equal(whole, again)
    assert not torch.equal(whole, other)
    parts = []
    for part in (slice(0, 2), slice(2, 5)):
        own = readable(part.start * 72, part.stop - part.start, (9, 8), first=40 + part.start)
        donor = partner.map(lambda value, part=part: value[part])
        parts.append(mixer.mix(own, donor, rng=Rng(3)).images)
    assert torch.equal(torch.cat(parts), whole)


def test_inputs_and_global_randomness_stay_untouched() -> None:
    batch = readable(0, 3, (6, 6))
    before, state = batch.images.clone(), torch.get_rng_state()
    CutMix(probability=1).mix(batch, rng=Rng(0))
    assert torch.equal(batch.images, before)
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=100)
@given(
    st.integers(0, 10**6), st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([(0.02, 0.4), (0.5, 0.5), (0.1, 1.0), (1.0, 1.0)]),
    st.sampled_from([WIDE, (1.0, 1.0), (0.05, 20.0)]),
)  # fmt: skip
def test_rectangles_lie_inside_and_in_their_ranges(seed, size, area, aspect) -> None:
    H, W = size
    largest = min(H * W, H * H / aspect[0], W * W * aspect[1])
    if largest < area[0] * H * W:
        with pytest.raises(SampleError, match=f"fits into {H}x{W}"):
            draw_box(np.random.default_rng(seed), size, area, aspect)
        return
    top, left, height, width = draw_box(np.random.default_rng(seed), size, area, aspect)
    assert 0 <= top <= top + height <= H
    assert 0 <= left <= left + width <= W
    assert height >= 1
    assert width >= 1
    # A side was rounded down from somewhere in [side, side + 1), or up to one pixel from below.
    assert height * width <= max(area[1] * H * W, height, width) + 1e-9
    assert (height + 1) * (width + 1) >= area[0] * H * W - 1e-9
    assert (height - (height == 1)) / (width + 1) <= aspect[1]
    assert (height + 1) / max(width - (width == 1), 1e-9) >= aspect[0]


def unimatch_box(generator: np.random.Generator, H: int, W: int) -> tuple[int, int, int, int]:
    """The published procedure, for a size where every area fits: draw aspect and corner until the rectangle fits."""
    pixels = generator.uniform(0.02, 0.4) * H * W
    while True:
        aspect = generator.uniform(*WIDE)
        width, height = int(math.sqrt(pixels / aspect)), int(math.sqrt(pixels * aspect))
        left, top = generator.integers(W), generator.integers(H)
        if left + width <= W and top + height <= H:
            return int(top), int(left), height, width


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_rectangles_follow_the_published_law(size: tuple[int, int]) -> None:
    ours, theirs = np.random.default_rng(1), np.random.default_rng(2)
    a = np.array([draw_box(ours, size, (0.02, 0.4), WIDE) for _ in range(4000)], float)
    b = np.array([unimatch_box(theirs, *size) for _ in range(4000)], float)
    for column in range(4):  # two-sample Kolmogorov-Smirnov distance; 0.0436 is its 0.1 % quantile
        grid = np.unique(np.concatenate([a[:, column], b[:, column]]))
        distance = max(abs((a[:, column] <= v).mean() - (b[:, column] <= v).mean()) for v in grid)
        assert distance < 0.0436, column


def test_about_the_asked_share_of_samples_gets_a_rectangle() -> None:
    batch = Batch(torch.zeros(2000, 1, 4, 4))
    drawn = CutMix(probability=0.3).mix(batch, rng=Rng(0)).provenance.flatten(1).any(1)
    assert abs(float(drawn.float().mean()) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)


@pytest.mark.parametrize(
    "bad",
    [{"probability": 1.5}, {"area": (0.0, 0.4)}, {"area": (0.4, 0.2)}, {"area": (0.1, 1.1)}, {"area": (0.1,)},
     {"aspect": (1.0, math.inf)}, {"aspect": (0.0, 1.0)}],
)  # fmt: skip
def test_wrong_options_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        CutMix(**bad)


def test_wrong_partners_are_named() -> None:
    batch = readable(0, 2, (4, 4))
    with pytest.raises(SampleError, match="equal shapes"):
        CutMix().mix(batch, readable(0, 2, (4, 5)), rng=Rng(0))
    with pytest.raises(SampleError, match="without images"):
        CutMix().mix(batch, batch.map(lambda value: value[:0]), rng=Rng(0))
