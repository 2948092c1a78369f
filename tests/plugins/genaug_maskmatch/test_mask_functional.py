"""Masks of patches: ratio, independence, shape; against loops and repeated cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.sizes import scaled_size
from genaug_maskmatch.functional import draw_cells, expand_cells, grid_shape, hide

SIZES = [512, 513, 518, 769]
SAMPLINGS = ["random", "block", "grid"]


def random_cells(seed: int, shape: tuple[int, int], count: int = 1) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)) < 0.5


@pytest.mark.parametrize("side", SIZES)
def test_ceil_repeats_every_cell_and_cuts_the_last(side: int) -> None:
    size, patch = (side, side // 2 + 3), 32
    shape = grid_shape(size, patch)
    assert shape == (math.ceil(size[0] / patch), math.ceil(size[1] / patch))
    cells = random_cells(side, shape, 2)
    naive = cells.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, : size[0], : size[1]]
    hidden = expand_cells(cells, size, patch)
    assert hidden.dtype == torch.bool
    assert torch.equal(hidden, naive)
    for r in range(shape[0]):
        for c in range(shape[1]):
            square = hidden[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].flatten(1)
            assert (square == cells[:, r, c, None]).all()


@pytest.mark.parametrize("side", SIZES)
def test_round_stretches_a_rounded_number_of_cells(side: int) -> None:
    size, patch = (side, side + 7), 32
    shape = grid_shape(size, patch, "round")
    assert shape == (round(size[0] / patch), round(size[1] / patch))
    cells = random_cells(side, shape, 2)
    stretched = F.interpolate(cells[:, None].float(), size=size, mode="nearest")[:, 0].bool()  # MIC
    assert torch.equal(expand_cells(cells, size, patch, "round"), stretched)


@settings(max_examples=40)
@given(
    st.integers(0, 10**6), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(1, 12),
    st.sampled_from(["ceil", "round"]),
)  # fmt: skip
def test_every_pixel_has_the_value_of_one_cell_in_order(seed, size, patch, grid) -> None:
    shape = grid_shape(size, patch, grid)
    numbered = torch.arange(shape[0] * shape[1]).view(1, *shape)
    result = expand_cells(numbered, size, patch, grid)
    assert result.shape == (1, *size)
    for line, count, step in ((result[0, :, 0], shape[0], shape[1]), (result[0, 0], shape[1], 1)):
        cell = line // step
        assert cell[0] == 0
        assert cell[-1] == count - 1
        assert set(cell.diff().tolist()) <= {0, 1}
    assert torch.equal(result[0], result[0, :, :1] + result[0, :1] - result[0, 0, 0])


@pytest.mark.parametrize(("size", "expected"), [((512, 512), 0.0286), ((513, 513), 0.0285)])
def test_the_mean_ratio_is_gamma_with_the_spread_of_independent_cells(size, expected) -> None:
    patch, ratio, count = 32, 0.7, 400
    shape = grid_shape(size, patch)
    generator = np.random.default_rng(0)
    cells = np.stack([draw_cells(generator, shape, ratio) for _ in range(count)])
    heights = np.bincount(np.arange(size[0]) // patch)
    areas = np.outer(heights, np.bincount(np.arange(size[1]) // patch)) / (size[0] * size[1])
    shares = (cells * areas).sum((1, 2))
    spread = math.sqrt(ratio * (1 - ratio) * (areas**2).sum())
    assert abs(spread - expected) < 1e-4
    assert abs(shares.mean() - ratio) < 4 * spread / math.sqrt(count)
    assert abs(shares.std() / spread - 1) < 0.15
    signs = cells - ratio  # neighbours, and the same cell of the next image
    for a, b in ((signs[:, 1:], signs[:, :-1]), (signs[:, :, 1:], signs[:, :, :-1]), (signs[1:], signs[:-1])):
        assert abs((a * b).mean() / (ratio * (1 - ratio))) < 4 / math.sqrt(a.size)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6), st.tuples(st.integers(1, 20), st.integers(1, 20)), st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    st.sampled_from(SAMPLINGS),
)  # fmt: skip
def test_extreme_ratios_and_counts(seed, shape, ratio, sampling) -> None:
    cells = draw_cells(np.random.default_rng(seed), shape, ratio, sampling)
    assert cells.shape == shape
    assert cells.dtype == np.bool_
    if ratio in (0, 1):
        assert cells.all() == (ratio == 1)
        assert cells.any() == (ratio == 1)
    if sampling == "block":
        assert abs(int(cells.sum()) - ratio * cells.size) < 1
    if sampling == "grid":
        for top in (0, 1):
            for left in (0, 1):
                assert len(np.unique(cells[top::2, left::2])) <= 1  # the same places of all 2x2 cells


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_all_samplings_hide_the_asked_share_on_average(sampling: str, ratio: float) -> None:
    generator = np.random.default_rng(3)
    shares = [draw_cells(generator, (11, 14), ratio, sampling).mean() for _ in range(600)]
    assert abs(np.mean(shares) - ratio) < 4 * np.std(shares) / math.sqrt(600) + 1e-9


def test_blocks_cling_together_and_the_grid_hides_three_of_four() -> None:
    generator = np.random.default_rng(0)

    def edges(sampling: str) -> float:
        cells = [draw_cells(generator, (16, 16), 0.5, sampling) for _ in range(50)]
        return float(np.mean([np.diff(c, axis=0).mean() + np.diff(c, axis=1).mean() for c in cells]))

    assert edges("block") < 0.6 * edges("random")
    cells = draw_cells(generator, (16, 16), 0.75, "grid")
    assert cells.reshape(8, 2, 8, 2).sum((1, 3)).tolist() == [[3] * 8] * 8


@settings(max_examples=30)
@given(
    st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.sampled_from([0.0, -1.5]),
)  # fmt: skip
def test_hidden_pixels_are_the_fill_and_visible_ones_untouched(seed, dtype, fill) -> None:
    images = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(seed)).to(dtype)
    before, hidden = images.clone(), random_cells(seed, (9, 7), 2)
    result = hide(images, hidden, fill)
    everywhere = hidden.unsqueeze(1).expand_as(images)
    assert result.dtype == dtype
    assert (result[everywhere] == fill).all()
    assert torch.equal(result[~everywhere].view(torch.uint8), images[~everywhere].view(torch.uint8))  # -0.0 too
    assert torch.equal(hide(result, hidden, fill), result)  # twice is once
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("side", "scale", "multiple", "expected"),
    [(513, 0.7, 1, 359), (513, 1.5, 1, 770), (513, 1.0, 1, 513), (518, 0.7, 14, 364), (518, 1.5, 14, 784),
     (518, 1.0, 14, 518), (513, 1.0, 14, 513), (3, 0.1, 1, 1), (3, 0.1, 14, 14)],
)  # fmt: skip
def test_scaled_sizes(side: int, scale: float, multiple: int, expected: int) -> None:
    assert scaled_size((side, side), scale, multiple) == (expected, expected)
