"""What the student sees: order of views, labels and mixing, each against the steps written out."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from genaug.batch import Batch
from genaug.predictions import Predictions
from genaug.rng import Rng
from genaug.step_config import TermConfig, ViewsConfig
from genaug_basics.cutmix import CutMix
from genaug_basics.threshold import ThresholdLabeler
from genaug_sense.functional import transport
from genaug_sense.labeler import SenseLabeler
from genaug_torch import SemiSupervisedStep, StrongView, unlabeled_loss
from genaug_torch.rounds import Round
from genaug_upc.mixer import UncertaintyPatchCutMix

K, IGNORE, SIZE = 4, 255, (16, 12)
RNG, MIX = Rng(5), Rng(6)


def a_round(labeler, given=None, first=3) -> Round:
    generator = torch.Generator().manual_seed(0)
    images, labelled = (torch.rand(3, 3, *SIZE, generator=generator) for _ in range(2))
    logits = 4 * torch.randn(3, K, *SIZE, generator=generator)
    labels = torch.randint(K, (3, *SIZE), generator=generator)
    labels[:, ::5] = IGNORE
    valid = torch.ones(3, *SIZE, dtype=torch.bool)
    valid[1, 10:] = False
    batch = Batch(images, valid=valid, predictions=Predictions(logits, "logits"), first=first)
    partner = Batch(labelled, labels, weights=(labels != IGNORE).float())
    return Round(labeler, StrongView(ViewsConfig(strong="builtin")), batch, partner, RNG, IGNORE, None, given)


def equal(one: Batch, other: Batch) -> None:
    for name in ("images", "targets", "weights", "valid"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def labelled(batch: Batch, made) -> Batch:
    return replace(batch, targets=made.hard, weights=made.weights, soft=made.soft)


@pytest.mark.parametrize("given", [False, True])
def test_labels_then_strong_views_are_mixed(given: bool) -> None:
    labeler, mixer = ThresholdLabeler(threshold=0.8), CutMix(probability=1.0)
    strong = torch.rand(3, 3, *SIZE) if given else None
    around = a_round(labeler, strong)
    batch = around.batch
    if strong is None:
        strong = around.strong_view(batch.images, rng=RNG.child("strong"), first=3)
    made = labeler.label(batch.predictions, valid=batch.valid, ignore_index=IGNORE)
    expected = mixer.mix(replace(labelled(batch, made), images=strong), rng=MIX.child("mix"))
    mixed = around.mixed(TermConfig(), mixer, MIX)
    equal(mixed, expected)
    assert mixed.provenance.any()
    plain = around.mixed(TermConfig(view="weak"), None, MIX)
    equal(plain, labelled(batch, made))
    assert plain.images is batch.images


def test_mixed_weak_views_become_strong_afterwards_with_streams_of_their_own() -> None:
    labeler, mixer = ThresholdLabeler(threshold=0.0), UncertaintyPatchCutMix(grid=2, ks=(1, 3), ras="expand")
    around = a_round(labeler)
    made = labeler.label(around.batch.predictions, valid=around.batch.valid, ignore_index=IGNORE)
    weak = mixer.mix(labelled(around.batch, made), around.labeled, rng=MIX.child("mix"))
    mixed = around.mixed(TermConfig(mix_at="weak"), mixer, MIX)
    assert (len(mixed), mixed.first) == (6, 6)
    strong = [around.strong_view(weak.images[i : i + 1], rng=MIX.child("strong"), first=6 + i) for i in range(6)]
    torch.testing.assert_close(mixed.images, torch.cat(strong), atol=1e-6, rtol=0)
    equal(replace(mixed, images=weak.images), weak)
    assert not torch.equal(mixed.images, weak.images)


def test_mixed_predictions_are_labelled() -> None:
    labeler, mixer = SenseLabeler(threshold=0.8), CutMix(probability=1.0)
    around = a_round(labeler)
    pasted = mixer.mix(replace(around.batch, images=around.strong), rng=MIX.child("mix"))
    inside = pasted.provenance.bool()
    other = around.batch.predictions.values.flip(0)
    values = torch.where(inside.unsqueeze(1), other, around.batch.predictions.values)
    made = labeler.label(Predictions(values, "logits"), valid=pasted.valid, ignore_index=IGNORE)
    mixed = around.mixed(TermConfig(order="mix-then-label"), mixer, MIX)
    equal(mixed, labelled(pasted, made))
    assert torch.equal(mixed.soft.dense(), made.soft.dense())
    first = around.mixed(TermConfig(order="label-then-mix"), mixer, MIX)
    assert not torch.equal(first.soft.dense(), mixed.soft.dense())  # another method


@pytest.mark.parametrize("scope", ["valid", "all"])
@pytest.mark.parametrize("support", ["fp32", "present"])
def test_pasted_truth_is_seen_by_no_labeler_and_stays_what_it_is(support: str, scope: str) -> None:
    """UPC, then SENSE: pasted pixels take no part in the transport, weigh 1 and are one-hot."""
    labeler = SenseLabeler(threshold=0.8, support=support, ot_scope=scope)
    mixer = UncertaintyPatchCutMix(grid=2, ks=(2,))
    around = a_round(labeler)
    around.batch.predictions.values[:, 3] = -30.0  # the teacher never sees the last class, the truth does
    mixed = around.mixed(TermConfig(order="mix-then-label"), mixer, MIX)
    truth = mixed.provenance == 1
    assert 0.4 < float(truth.float().mean()) < 0.6
    inside = around.batch.valid if scope == "valid" else torch.ones_like(truth)  # padding is shared out in `all`
    plan = transport(around.batch.predictions.log_probs(), valid=inside & ~truth, support=support)
    dense, teacher = mixed.soft.dense(), plan.dense()
    own = (around.batch.valid & ~truth).unsqueeze(1).expand_as(dense)
    torch.testing.assert_close(dense[own], teacher[own], atol=1e-6, rtol=0)
    says = truth & (mixed.targets != IGNORE)
    assert (mixed.targets[says] == 3).any()
    one_hot = nn.functional.one_hot(mixed.targets.clamp(max=K - 1), K).movedim(-1, 1).float()
    places = says.unsqueeze(1).expand_as(dense)
    assert torch.equal(dense[places], one_hot[places])
    assert (mixed.weights[says] == 1).all()
    assert (mixed.weights[truth & ~says] == 0).all()
    sure = around.batch.predictions.confidence()[0] >= 0.8
    assert torch.equal(mixed.weights[~truth] > 0, (sure & around.batch.valid)[~truth])
    assert mixed.valid[truth].all()
    student = torch.zeros(3, K, *SIZE, requires_grad=True)
    loss = unlabeled_loss(Predictions(student, "logits"), mixed, normalizer="kept", ignore_index=IGNORE)
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert torch.isfinite(student.grad).all()


# ---------------------------------------------------------------- whole recipes


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, K, 1))


def data(size=(24, 20)):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(K, (2, *size), generator=generator)
    return torch.rand(2, 3, *size, generator=generator), labels, torch.rand(3, 3, *size, generator=generator)


def losses_of(recipe: str, *overrides: str) -> dict[str, float]:
    views = ["views.strong=builtin", "labeler.threshold=0.35", *overrides]
    step = SemiSupervisedStep(network(), recipe, kind="logits", num_classes=K, overrides=views)
    return {name: float(value) for name, value in step(*data())[1].items() if name.startswith("loss/")}


def test_maskmatch_that_hides_nothing_at_one_scale_is_self_training_on_weak_views() -> None:
    """Specification 3.5, test 7."""
    small = ("terms.1.mixer.patch=4", "terms.1.mixer.ratio=0")
    found = losses_of("maskmatch-local", *small)
    logits = copy.deepcopy(network()).eval()(data()[2]).detach()
    confidence, targets = logits.softmax(1).max(1)
    kept = confidence > 0.35
    assert 0.05 < float(kept.float().mean()) < 0.95
    pixels = nn.functional.cross_entropy(logits, targets, reduction="none")
    expected = sum(float(pixels[i][kept[i]].mean()) for i in range(3)) / 3
    assert found["loss/local-consistency"] == pytest.approx(expected, rel=1e-5)
    # Without that term it is FixMatch with the paper's gate, weights and normaliser.
    fixmatch = losses_of(
        "fixmatch", "labeler.strict=true", "terms.0.weight=1", "terms.0.normalizer=per_image_kept",
        "supervised.weight=1", "teacher.ema=0.999",
    )  # fmt: skip
    assert found["loss/weak-to-strong"] == pytest.approx(fixmatch["loss/weak-to-strong"], rel=1e-6)
    assert found["loss/supervised"] == fixmatch["loss/supervised"]


def test_maskmatch_losses_equal_loops_over_images() -> None:
    """Equations 5 to 9, from what a round gives."""
    recipe = {"extends": "maskmatch", "labeler": {"use": "maskmatch", "threshold": 0.35}, "seed": 3}
    overrides = ["views.strong=builtin", "terms.1.mixer.patch=4"]
    step = SemiSupervisedStep(network(), recipe, kind="logits", num_classes=K, overrides=overrides)
    images, labels, unlabelled = data()
    _, figures = step(images, labels, unlabelled)

    twin = network().eval()
    total = torch.zeros(3, K, 24, 20)
    for size in ((24, 20), (17, 14), (36, 30)):  # 1, 0.7 and 1.5 times
        seen = nn.functional.interpolate(unlabelled, size=size, mode="bilinear")
        total += nn.functional.interpolate(twin(seen).softmax(1).detach(), size=(24, 20), mode="bilinear") / 3
    confidence, classes = total.max(1)
    targets = torch.where(confidence > 0.35, classes, IGNORE)
    streams = Rng(3).child("step", 0)
    strong = step.strong(unlabelled, rng=streams.child("strong"))
    batch = Batch(strong, targets, weights=(targets != IGNORE).float())
    mixed = step.mixers[0].mix(batch, rng=streams.child("term", 0, "mix"))
    masked = step.mixers[1].mix(replace(batch, images=unlabelled), rng=streams.child("term", 1, "mix"))

    def loss(seen, wanted, size):
        logits = twin(nn.functional.interpolate(seen, size=size, mode="bilinear"))
        logits = nn.functional.interpolate(logits, size=(24, 20), mode="bilinear")
        parts = [
            nn.functional.cross_entropy(logits[i : i + 1], wanted[i : i + 1], ignore_index=IGNORE) for i in range(3)
        ]
        return sum(float(part.detach()) for part in parts) / 3

    several = sum(loss(mixed.images, mixed.targets, size) for size in ((24, 20), (17, 14), (36, 30))) / 3
    assert float(figures["loss/multi-scale"]) == pytest.approx(several, rel=1e-5)
    assert float(figures["loss/local-consistency"]) == pytest.approx(loss(masked.images, targets, (24, 20)), rel=1e-5)
