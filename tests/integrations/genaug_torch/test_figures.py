"""Figures of pseudo-labels against counting by hand."""

import math

import pytest
import torch
from memory_ledger import Ledger

from genaug import pieces
from genaug.predictions import Predictions, PseudoTargets
from genaug_torch.figures import label_figures

IGNORE = 255


def test_figures_are_counts_of_pixels():
    probs = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.3, 0.7, 0.0], [0.5, 0.3, 0.2]])
    predictions = Predictions(probs.T.reshape(1, 3, 1, 5), "probs")
    valid = torch.tensor([True, True, True, True, False]).view(1, 1, 5)
    hard = torch.tensor([0, IGNORE, 0, 1, 2]).view(1, 1, 5)  # the third has changed sides
    targets = PseudoTargets(hard, (hard != IGNORE).float())
    figures = label_figures(targets, predictions, valid, ignore_index=IGNORE)
    assert float(figures["kept"]) == 3 / 4
    kept = figures["kept_by_class"].tolist()
    assert kept[:2] == [pytest.approx(2 / 3), 1.0]  # the second pixel counts with the teacher's class
    assert math.isnan(kept[2])
    assert int(figures["live_classes"]) == 2
    assert float(figures["flip_rate"]) == pytest.approx(1 / 3)
    entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in probs[:4].tolist()]
    assert float(figures["entropy"]) == pytest.approx(sum(entropies) / 4)


def test_pixels_that_are_not_numbers_do_not_count_and_nothing_kept_is_zero():
    values = torch.zeros(1, 2, 1, 3)
    values[0, 0, 0, 0] = torch.nan
    targets = PseudoTargets(torch.full((1, 1, 3), IGNORE), torch.zeros(1, 1, 3))
    figures = label_figures(targets, Predictions(values, "logits"))
    assert [float(figures[name]) for name in ("kept", "flip_rate", "live_classes")] == [0, 0, 0]
    assert float(figures["entropy"]) == pytest.approx(math.log(2))
    assert int(figures["nan_rows"]) == 1
    padded = torch.tensor([False, True, True]).view(1, 1, 3)
    assert int(label_figures(targets, Predictions(values, "logits"), padded)["nan_rows"]) == 0


def test_counts_of_large_batches_are_exact():
    """Float32 cannot count beyond 2^24 pixels of a class one by one."""
    side = 4100
    values = torch.ones(1, 1, side, side, dtype=torch.float16)
    hard = torch.zeros(1, side, side, dtype=torch.int64)
    weights = torch.ones(1, side, side)
    weights[:, :, : side // 2] = 0
    figures = label_figures(PseudoTargets(hard, weights, predicted=hard), Predictions(values, "probs"))
    assert float(figures["kept_by_class"]) == 0.5


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs", "scores"])
def test_figures_make_nothing_of_the_size_of_the_predictions(kind, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_CPU", 1 << 12)
    probs = torch.randn(2, 30, 40, 40, generator=torch.Generator().manual_seed(0)).softmax(1)
    values = probs if kind in ("probs", "scores") else probs.log()
    hard = probs.argmax(1)
    for targets in (
        PseudoTargets(hard, torch.ones(2, 40, 40)),
        PseudoTargets(hard, torch.ones(2, 40, 40), None, None, hard),
    ):
        with Ledger() as seen:
            figures = label_figures(targets, Predictions(values, kind))
        assert max(seen.made) <= max(1 << 12, hard.numel())
        torch.testing.assert_close(figures["entropy"], -(probs * probs.log()).sum(1).mean())
