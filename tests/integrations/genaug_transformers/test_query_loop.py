"""SENSE for mask classifiers in the plain loop: transformers' MaskFormer and Mask2Former learn, without torchvision."""

import sys

import pytest
import torch

from genaug_torch import SemiSupervisedStep

K = 3
OPTIONS = [
    "supervised.burn_in=12", "labeler.image_gate=null", "labeler.threshold=0.5", "supervised.set_loss.points=64",
    "terms.0.set_loss.points=64", "views.strong=builtin",
]  # fmt: skip


def scenes(seed, count=2, size=32):
    """Images of three coloured stripes, moved and noisy, and their classes; the upper edge has no label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(K).repeat_interleave(size // K + 1)[:size].expand(size, size)
    labels = torch.stack([labels.roll(int(torch.randint(size, (), generator=generator)), 1) for _ in range(count)])
    images = 0.7 * torch.nn.functional.one_hot(labels, K).movedim(-1, 1).float()
    return images + 0.3 * torch.rand(images.shape, generator=generator), labels.index_fill(1, torch.arange(2), 255)


@pytest.mark.parametrize(("family", "conf_mask"), [("mask2former", "intended"), ("maskformer", "as_released")])
def test_labels_alone_then_both(make_model, family, conf_mask, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # to import it fails, installed or not
    student = make_model(family)
    options = [*OPTIONS, f"terms.0.set_loss.conf_mask={conf_mask}"]
    step = SemiSupervisedStep(student, "sense-query", kind="queries", num_classes=K, overrides=options)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for number in range(15):
        loss, figures = step(*scenes(0), scenes(100 + number)[0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step.update()
        losses.append(float(figures["loss/supervised"]))
        assert ("loss/transport" in figures) == (number >= 12)
        assert bool(loss.isfinite())
    assert min(losses[-3:]) < 0.95 * losses[0]
    assert float(figures["kept"]) > 0
    assert float(figures["loss/transport"]) > 0
