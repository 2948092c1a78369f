"""UPC's equations against slow, obvious references."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug import pieces
from genaug.errors import SampleError
from genaug.predictions import Predictions
from genaug_upc.functional import (
    entropy_map,
    ignored_share,
    margin_map,
    patch_bounds,
    patch_masks,
    patch_ranks,
    patch_scores,
    wrong_map,
)

SIZES = (321, 513, 518, 721, 769)  # crops of the hosts' papers
KINDS = ("logits", "log_probs", "probs", "scores")


def of_kind(logits: torch.Tensor, kind: str) -> Predictions:
    """Return the same distributions in another form."""
    forms = {
        "logits": logits,
        "log_probs": logits.log_softmax(1),
        "probs": logits.softmax(1),
        "scores": logits.softmax(1) * 1.7,
    }
    return Predictions(forms[kind], kind)


def random_logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def quantised(seed: int, *shape: int) -> torch.Tensor:
    """Return a map in multiples of 2**-10, whose sums are exact in float32."""
    return torch.randint(0, 2048, shape, generator=torch.Generator().manual_seed(seed)) / 1024


def top(uncertainty: torch.Tensor, grid: int, k: int) -> torch.Tensor:
    chosen = patch_ranks(patch_scores(uncertainty, grid)) < k
    return patch_masks(chosen.view(-1, grid, grid), (uncertainty.shape[1], uncertainty.shape[2]))


def patches(height: int, width: int, grid: int) -> list[tuple[slice, slice]]:
    rows, columns = ([r * size // grid for r in range(grid + 1)] for size in (height, width))
    return [(slice(a, b), slice(c, d)) for a, b in pairwise(rows) for c, d in pairwise(columns)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_entropy_and_margin_equal_a_loop_over_pixels(kind: str, dtype: torch.dtype) -> None:
    given_ = of_kind(random_logits(1, 2, 5, 3, 4), kind)
    predictions = Predictions(given_.values.to(dtype), given_.kind)
    entropies, margins = entropy_map(predictions), margin_map(predictions)
    assert entropies.dtype == margins.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    values = predictions.values.double().numpy()
    for b, y, x in np.ndindex(2, 3, 4):
        row = values[b, :, y, x]
        weights = np.exp(row) if kind in ("logits", "log_probs") else row
        p = weights / weights.sum()
        assert entropies[b, y, x].item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
        if kind in ("logits", "scores"):  # rounded probabilities are taken as they are
            second, first = np.sort(p)[-2:]
            assert margins[b, y, x].item() == pytest.approx(1 - (first - second), abs=1e-5)


def test_entropy_agrees_with_the_one_of_the_predictions() -> None:
    predictions = Predictions(random_logits(2, 2, 21, 9, 7), "logits")
    torch.testing.assert_close(entropy_map(predictions), predictions.entropy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_that_is_not_finite_is_the_most_uncertain_and_forces_its_patch_to_the_top(kind: str) -> None:
    for bad in (math.nan, math.inf):
        logits = torch.zeros(1, 4, 8, 8)
        logits[:, 0] = 30.0
        predictions = of_kind(logits, kind)
        predictions.values[0, 2, 5, 6] = bad
        entropies, margins = entropy_map(predictions), margin_map(predictions)
        assert entropies[0, 5, 6].item() == pytest.approx(math.log(4))
        assert margins[0, 5, 6].item() == 1
        for uncertainty in (entropies, margins):
            assert int((uncertainty > 0.5).sum()) == 1
            assert patch_ranks(patch_scores(uncertainty, 4))[0, 2 * 4 + 3] == 0
            assert top(uncertainty, 4, 1)[0, 5, 6]


def test_classes_that_are_ruled_out_and_padding() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 2] = -math.inf
    torch.testing.assert_close(entropy_map(Predictions(logits, "logits")), torch.full((1, 2, 2), math.log(2)))
    torch.testing.assert_close(
        entropy_map(Predictions(logits.log_softmax(1), "log_probs")), torch.full((1, 2, 2), math.log(2))
    )
    valid = torch.tensor([[[True, False], [False, True]]])
    logits[0, 0, 0, 1] = math.nan
    assert entropy_map(Predictions(logits, "logits"), valid)[~valid].tolist() == [0, 0]
    assert margin_map(Predictions(logits, "logits"), valid)[~valid].tolist() == [0, 0]
    nothing = Predictions(torch.zeros(1, 3, 1, 1), "scores")  # no query claims the pixel
    assert entropy_map(nothing).item() == pytest.approx(math.log(3))
    with pytest.raises(SampleError, match="valid of shape"):
        entropy_map(Predictions(logits, "logits"), valid[:, :1])


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_is_never_uncertain(kind: str) -> None:
    predictions = of_kind(torch.ones(1, 1, 4, 4), kind)
    assert entropy_map(predictions).abs().max() == 0
    assert margin_map(predictions).abs().max() < 1e-6


def test_pieces_change_nothing_and_a_map_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = Predictions(random_logits(3, 5, 7, 33, 29), "logits")
    whole = entropy_map(predictions)
    for images in (slice(0, 1), slice(1, 3), slice(4, 5)):
        part = Predictions(predictions.values[images], "logits")
        assert torch.equal(entropy_map(part), whole[images])
        assert torch.equal(margin_map(part), margin_map(predictions)[images])
        assert torch.equal(patch_scores(whole[images], 4), patch_scores(whole, 4)[images])
    monkeypatch.setattr(pieces, "PIECE_CPU", 7 * 29 * 2)
    torch.testing.assert_close(entropy_map(predictions), whole)


@given(st.integers(1, 900), st.integers(1, 40))
@settings(max_examples=60)
def test_bounds_cut_a_side_into_parts_that_differ_by_one_at_most(size: int, grid: int) -> None:
    if grid > size:
        with pytest.raises(SampleError, match="grid"):
            patch_bounds(size, grid)
        return
    bounds = patch_bounds(size, grid)
    lengths = np.diff(bounds)
    assert bounds[0] == 0
    assert bounds[-1] == size
    assert lengths.min() >= 1
    assert lengths.max() - lengths.min() <= 1
    chosen = torch.arange(grid).view(1, grid).expand(grid, grid)
    grown = torch.repeat_interleave(chosen[0], torch.from_numpy(lengths))
    assert torch.equal(patch_masks(chosen, (grid, size))[0], grown)


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_of_the_papers_crops_lies_in_one_patch(size: int) -> None:
    assert patch_bounds(518, 4) == (0, 129, 259, 388, 518)
    covered = torch.zeros(size, size - 3, dtype=torch.int64)
    for patch in range(16):
        chosen = (torch.arange(16) == patch).view(4, 4)
        covered += patch_masks(chosen, (size, size - 3))
    assert (covered == 1).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(0, 36), st.integers(0, 99))
@settings(max_examples=60)
def test_selection_equals_a_loop_over_patches(height: int, width: int, grid: int, k: int, seed: int) -> None:
    grid = min(grid, height, width)
    k = min(k, grid**2)
    uncertainty = (torch.randint(0, 3, (2, height, width), generator=torch.Generator().manual_seed(seed)) / 2).float()
    masks = top(uncertainty, grid, k)
    for b in range(2):
        places = patches(height, width, grid)
        sums = np.array([float(uncertainty[b][place].double().sum()) for place in places])
        means = np.array([float(uncertainty[b][place].double().mean()) for place in places])
        np.testing.assert_allclose(patch_scores(uncertainty, grid)[b].flatten(), sums, rtol=1e-6)
        np.testing.assert_allclose(patch_scores(uncertainty, grid, "mean")[b].flatten(), means, rtol=1e-6)
        expected = torch.zeros(height, width, dtype=torch.bool)
        for place in np.argsort(-sums, kind="stable")[:k]:  # many ties: the lower number first
            expected[places[place]] = True
        assert torch.equal(masks[b], expected)


@pytest.mark.parametrize("size", SIZES)
def test_area_order_and_nesting_at_the_papers_crops(size: int) -> None:
    uncertainty = quantised(size, 1, size, size)
    places = patches(size, size, 4)
    sums = np.array([float(uncertainty[0][place].double().sum()) for place in places], np.float32)
    order = np.argsort(-sums, kind="stable")
    before = torch.zeros(1, size, size, dtype=torch.bool)
    for k in (0, 2, 3, 5, 16):
        mask = top(uncertainty, 4, k)
        area = sum((r.stop - r.start) * (c.stop - c.start) for r, c in (places[p] for p in order[:k]))
        assert int(mask.sum()) == area
        assert not (before & ~mask).any()
        before = mask


def test_masks_do_not_depend_on_class_order_shift_scale_or_base_of_the_logarithm() -> None:
    logits = random_logits(4, 2, 6, 32, 32)
    uncertainty = entropy_map(Predictions(logits, "logits"))
    expected = top(uncertainty, 4, 5)
    permuted = logits[:, torch.randperm(6, generator=torch.Generator().manual_seed(0))]
    for other in (permuted, logits + 11.5):
        assert torch.equal(top(entropy_map(Predictions(other, "logits")), 4, 5), expected)
    for factor in (0.125, 1 / math.log(2), 3.0):
        assert torch.equal(top(uncertainty * factor, 4, 5), expected)
    for kind in KINDS:
        assert torch.equal(top(entropy_map(of_kind(logits, kind)), 4, 5), expected)


def test_sums_of_half_precision_do_not_overflow() -> None:
    largest = math.log(150)
    uncertainty = torch.full((1, 520, 520), largest, dtype=torch.float16)
    uncertainty[0, 400, 400] -= 0.5
    scores = patch_scores(uncertainty, 4)
    assert scores.dtype == torch.float32
    assert scores.max() > 65504  # what float16 can hold
    assert torch.isfinite(scores).all()
    assert patch_ranks(scores)[0, 15] == 15
    logits = torch.zeros(1, 150, 40, 40, dtype=torch.float16)
    torch.testing.assert_close(entropy_map(Predictions(logits, "logits")), torch.full((1, 40, 40), largest))


def test_the_oracle_chooses_the_patches_with_the_most_wrong_pixels() -> None:
    generator = torch.Generator().manual_seed(5)
    truth = torch.randint(0, 4, (2, 37, 41), generator=generator)
    predicted = torch.where(torch.rand(2, 37, 41, generator=generator) < 0.3, (truth + 1) % 4, truth)
    truth[:, :9, :9] = 255
    predicted[:, 30:, 30:] = 255
    mask = top(wrong_map(predicted, truth), 4, 3)
    for b in range(2):
        places = patches(37, 41, 4)
        wrong = [
            sum(
                int(p != t)
                for p, t in zip(predicted[b][place].flatten().tolist(), truth[b][place].flatten().tolist(), strict=True)
                if 255 not in (p, t)
            )
            for place in places
        ]
        best = sorted(range(16), key=lambda i: (-wrong[i], i))[:3]
        assert all(mask[b][places[i]].all() for i in best)
        assert int(mask[b].sum()) == sum(mask[b][places[i]].numel() for i in best)


def test_share_of_ignored_pixels() -> None:
    targets = torch.zeros(1, 5, 6, dtype=torch.int64)
    targets[0, :2, :3] = 255  # patch (0, 0) is rows 0..1, columns 0..2
    targets[0, 2, 3] = 255
    valid = torch.ones(1, 5, 6, dtype=torch.bool)
    valid[0, 3:, 3:] = False  # patch (1, 1) is rows 2..4, columns 3..5
    expected = torch.tensor([[[1.0, 0.0], [0.0, 7 / 9]]])
    torch.testing.assert_close(ignored_share(targets, 2, 255, valid), expected)
    torch.testing.assert_close(ignored_share(targets, 2), torch.tensor([[[1.0, 0.0], [0.0, 1 / 9]]]))


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(SampleError, match="uncertainty map of shape"):
        patch_scores(torch.zeros(4, 4), 2)
    with pytest.raises(SampleError, match="a grid of 5 patches over 4 pixels"):
        patch_scores(torch.zeros(1, 4, 9), 5)
    with pytest.raises(SampleError, match="a grid of 0 patches"):
        patch_scores(torch.zeros(1, 4, 9), 0)
