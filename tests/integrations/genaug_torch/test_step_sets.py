"""Steps whose losses match masks with queries: a toy mask classifier, and transformers' Mask2Former."""

import copy
import warnings

import pytest
import torch
from torch import nn

from genaug import Rng
from genaug.errors import ConfigError, SampleError
from genaug.predictions import PseudoTargets
from genaug_torch import OutputReader, SemiSupervisedStep, SetLoss, to_set_targets

K, Q, IGNORE = 3, 5, 255
FEW = {"points": 50}
TERM = {"name": "masks", "view": "weak", "loss": "set", "set_loss": {**FEW, "no_object": 0.05}, "weight": 0.5}
BOTH = {
    "seed": 4,
    "labeler": {"use": "threshold", "threshold": 0.5},
    "terms": [TERM],
    "supervised": {"weight": 2.0, "loss": "set", "set_loss": FEW},
    "views": {"strong": "builtin"},
}


class Queries(nn.Module):
    """Two layers of queries over one convolution, named as the original Mask2Former names them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.classes = nn.ParameterList(3 * torch.randn(Q, K + 1) for _ in range(2))
        self.masks = nn.ParameterList(torch.randn(Q, 8) for _ in range(2))

    def forward(self, images):
        features = self.body(images)
        heads = [
            {
                "pred_logits": classes.expand(len(images), -1, -1) + features.mean((1, 2, 3)).view(-1, 1, 1),
                "pred_masks": torch.einsum("qc,bchw->bqhw", masks, features),
            }
            for classes, masks in zip(self.classes, self.masks, strict=True)
        ]
        return {**heads[-1], "aux_outputs": heads[:-1]}


def data(size=16, labelled=2, unlabelled=3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(K, (labelled, size // 4, size // 4), generator=generator)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[:, :3] = IGNORE
    return (
        torch.rand(labelled, 3, size, size, generator=generator),
        labels,
        torch.rand(unlabelled, 3, size, size, generator=generator),
    )


def make(student=None, table=None, **more):
    return SemiSupervisedStep(student or Queries(), table or BOTH, kind="queries", num_classes=K, **more)


def test_a_step_equals_the_losses_written_out():
    student, (images, labels, unlabelled) = Queries(), data()
    valid = torch.ones(3, 16, 16, dtype=torch.bool)
    valid[:, :, 13:] = False
    step = make(student)
    loss, figures = step(images, labels, unlabelled, valid=valid)
    loss.backward()

    twin, read = Queries(), OutputReader("queries")
    confidence, classes = read(copy.deepcopy(twin)(unlabelled), (16, 16)).confidence()
    kept = (confidence >= 0.5) & valid
    assert 0.1 < float(kept.float().mean()) < 0.8
    rng = Rng(4).child("step", 0, "points")
    one = SetLoss.labelled(points=50)(
        read.layers(twin(images)),
        to_set_targets(PseudoTargets(labels, (labels != IGNORE).float())),
        rng=rng.child("supervised"),
    )
    two = SetLoss(points=50, no_object=0.05)(
        read.layers(twin(unlabelled)),
        to_set_targets(PseudoTargets(classes, kept.float())),
        rng=rng.child("masks"),
    )
    (2 * one + 0.5 * two).backward()
    torch.testing.assert_close(loss, 2 * one + 0.5 * two)
    torch.testing.assert_close(figures["loss/supervised"], 2 * one.detach())
    torch.testing.assert_close(figures["loss/masks"], 0.5 * two.detach())
    for (name, mine), other in zip(student.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
        assert float(mine.grad.abs().max()) > 0, name


def test_parts_may_go_backward_one_by_one_and_scales_are_averaged():
    whole, parts = Queries(), Queries()
    table = {**BOTH, "terms": [{**TERM, "scales": [1.0, 0.5]}]}
    loss, _ = make(whole, table)(*data())
    loss.backward()
    other, _ = make(parts, table)(*data(), backward=torch.Tensor.backward)
    torch.testing.assert_close(other, loss.detach())
    for mine, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_other_ignore_indices_are_no_class():
    images, labels, unlabelled = data()
    expected, _ = make()(images, labels, unlabelled)
    found, _ = make(ignore_index=-100)(images, labels.where(labels != IGNORE, -100), unlabelled)
    torch.testing.assert_close(found, expected)


def test_layers_of_every_form():
    output = Queries()(data()[0])
    final, inner = OutputReader("queries").layers(output)
    assert final == (output["pred_logits"], output["pred_masks"])
    assert inner == tuple(output["aux_outputs"][0].values())
    assert OutputReader("queries").layers(final) == [final]
    assert OutputReader("queries").layers({"pred_logits": final[0], "pred_masks": final[1]}) == [final]
    named = {"a": final[0], "b": final[1], "aux_outputs": [{"a": inner[0], "b": inner[1]}]}
    assert OutputReader("queries", key=("a", "b")).layers(named) == [final, inner]


def test_models_without_queries_are_refused():
    with pytest.raises(ConfigError, match=r"kind: 'logits', but the loss of supervised, masks is 'set'"):
        SemiSupervisedStep(nn.Conv2d(3, K, 1), BOTH, kind="logits", num_classes=K)
    with pytest.raises(ConfigError, match="loss of masks"):
        SemiSupervisedStep(nn.Conv2d(3, K, 1), {**BOTH, "supervised": {}}, kind="scores", num_classes=K)
    with pytest.raises(SampleError, match="the model has 3 classes, the labels 4"):
        SemiSupervisedStep(Queries(), {**BOTH, "terms": []}, kind="queries", num_classes=4)(*data())


def test_soft_targets_are_refused():
    table = {**BOTH, "labeler": {"use": "sense", "target": "soft"}}
    with pytest.raises(SampleError, match="soft targets"):
        make(table=table)(*data())


def mask2former(**more):
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    backbone = SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
                          out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, num_labels=K, num_queries=Q, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1, decoder_layers=3, num_attention_heads=2,
        **more,
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config)


@pytest.mark.parametrize("loss", ["set", "pixel"])
def test_sense_trains_transformers_mask2former(loss):
    student = mask2former(output_auxiliary_logits=True)
    changes = [
        "supervised.burn_in=0", "labeler.image_gate=null", "labeler.threshold=0.3", "supervised.set_loss.points=200",
        "terms.0.set_loss.points=200", f"terms.0.loss={loss}",
        f"supervised.loss={'set' if loss == 'set' else 'cross-entropy'}", "views.strong=builtin",
    ]  # fmt: skip
    step = SemiSupervisedStep(student, "sense-query", kind="queries", num_classes=K, overrides=changes)
    assert len(step.read.layers(student(data(64)[0]))) == 3
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    loss, figures = step(*data(64, unlabelled=2))
    loss.backward()
    assert torch.isfinite(loss)
    assert float(figures["kept"]) > 0
    assert float(figures["loss/transport"]) > 0
    queries = [
        (n, p) for n, p in student.named_parameters() if "quer" in n or "class_predictor" in n or "mask_emb" in n
    ]
    assert {"queries_embedder", "queries_features", "class_predictor", "mask_embedder"} <= {
        part for name, _ in queries for part in name.split(".")
    }
    for name, parameter in student.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    for name, parameter in queries:
        assert float(parameter.grad.abs().max()) > 0, name
    optimizer.step()
    step.update()


def test_decoder_layers_that_are_not_returned_are_noticed():
    student = mask2former()
    with pytest.warns(UserWarning, match="output_auxiliary_logits=True"):
        make(student)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(student, {**BOTH, "terms": [], "supervised": {}})  # no set loss
        student.config.output_auxiliary_logits = True
        make(student)
