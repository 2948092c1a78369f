"""A step whose unlabelled images never get a label says so, once."""

import warnings

import pytest
import torch
from torch import nn

from genaug_torch import SemiSupervisedStep, kept


def told(threshold, steps, monkeypatch):
    monkeypatch.setattr(kept, "SILENT", 3)
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 1)
    recipe = {"labeler": {"use": "threshold", "threshold": threshold}, "terms": [{"view": "weak"}, {"view": "weak"}]}
    recipe["terms"][0]["name"] = "first"
    step = SemiSupervisedStep(model, recipe, kind="logits", num_classes=4)
    images, labels, unlabelled = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long), torch.rand(2, 3, 8, 8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            step(images, labels, unlabelled)
            step.update()
    return [str(warning.message) for warning in caught]


def test_labels_that_never_come_are_told_once(monkeypatch):
    (sentence,) = told(1.0, 9, monkeypatch)
    assert sentence.startswith("no pixel of the first 3 unlabelled batches got a label")
    assert "supervised.burn_in" in sentence
    assert told(1.0, 2, monkeypatch) == []  # too early to say
    assert told(0.0, 9, monkeypatch) == []


@pytest.mark.parametrize(("shares", "warned"), [([0, 0, 0, 1], True), ([0, 0.1, 0, 0], False), ([1, 0, 0, 0], False)])
def test_one_label_is_enough(shares, warned, monkeypatch):
    monkeypatch.setattr(kept, "SILENT", 3)
    watch = kept.KeptWatch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for share in shares:
            watch.look(torch.tensor(float(share)), torch.tensor(0), torch.tensor([0.44, 0.57]))
    assert len(caught) == warned
    if warned:
        assert "the surest image has 0.57; see image_gate" in str(caught[0].message)


def test_predictions_that_are_not_finite_are_named(monkeypatch):
    monkeypatch.setattr(kept, "SILENT", 2)
    watch = kept.KeptWatch()
    watch.look(torch.tensor(0.0), torch.tensor(7))
    with pytest.warns(UserWarning, match="not finite at up to 7 pixels of a batch"):
        watch.look(torch.tensor(0.0), torch.tensor(3))
