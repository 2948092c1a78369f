"""The labelers ``sense`` and ``sense-query``: what is kept, what is ignored, how the teacher is asked."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions, PseudoTargets
from genaug_sense.functional import transport
from genaug_sense.labeler import QuerySenseLabeler, SenseLabeler
from genaug_torch.losses import pixel_losses, reduce_losses
from genaug_torch.outputs import project_queries


def predictions_of(seed: int, shape: tuple[int, ...], kind: str = "logits", std: float = 4.0) -> Predictions:
    logits = std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    probs = logits.softmax(1)
    return Predictions({"logits": logits, "log_probs": logits.log_softmax(1), "probs": probs}[kind], kind)


def loss_of(targets: PseudoTargets, student: torch.Tensor) -> torch.Tensor:
    losses = pixel_losses(Predictions(student, "logits"), targets.hard, targets.soft)
    return reduce_losses(losses, targets.weights, normalizer="kept")


def assert_trains(targets: PseudoTargets, classes: int) -> None:
    student = torch.randn(len(targets.hard), classes, *targets.hard.shape[1:], requires_grad=True)
    loss = loss_of(targets, student)
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


# ---------------------------------------------------------------- pixel models


@settings(max_examples=30)
@given(
    st.integers(0, 10**6), st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 8), st.integers(1, 8)),
    st.sampled_from(["pre", "post"]), st.sampled_from(["valid", "kept", "all"]), st.sampled_from([0.0, 0.6, 0.95]),
    st.sampled_from([254, 255]),
)  # fmt: skip
def test_labels_are_those_of_the_plan_where_the_gate_is_open(seed, shape, gate, scope, threshold, ignore) -> None:
    predictions = predictions_of(seed, shape)
    valid = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(seed)) < 0.7
    labeler = SenseLabeler(gate=gate, ot_scope=scope, threshold=threshold)
    targets = labeler.label(predictions, valid=valid, ignore_index=ignore)
    log_probs = predictions.values.log_softmax(1)
    sure = log_probs.exp().amax(1)
    inside = {"valid": valid, "kept": valid & (sure >= threshold), "all": torch.ones_like(valid)}[scope]
    soft = transport(log_probs, valid=inside)
    dense = soft.dense()
    kept = valid & ((sure if gate == "pre" else dense.amax(1)) >= threshold) & inside.any()
    clear = ((sure if gate == "pre" else dense.amax(1)) - threshold).abs() > 1e-5
    assert torch.equal((targets.weights > 0)[clear], kept[clear])
    assert torch.equal((targets.hard != ignore)[clear], kept[clear])
    assert set(targets.weights.unique().tolist()) <= {0.0, 1.0}
    chosen = dense.gather(1, targets.hard.where(targets.hard != ignore, 0).unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(chosen[kept & clear], dense.amax(1)[kept & clear], atol=1e-5, rtol=0)
    assert torch.equal(targets.predicted[valid], predictions.values.argmax(1)[valid])
    torch.testing.assert_close(targets.confidence[valid], sure[valid])
    torch.testing.assert_close(targets.soft.dense().movedim(1, -1)[valid], dense.movedim(1, -1)[valid])
    assert (targets.hard.dtype, targets.weights.dtype) == (torch.int64, torch.float32)


def test_kinds_agree_and_half_precision_is_computed_in_float32() -> None:
    shape = (2, 5, 12, 9)
    expected = SenseLabeler(threshold=0.8).label(predictions_of(0, shape))
    for kind in ("log_probs", "probs"):
        targets = SenseLabeler(threshold=0.8).label(predictions_of(0, shape, kind))
        assert torch.equal(targets.hard, expected.hard)
        torch.testing.assert_close(targets.soft.dense(), expected.soft.dense(), atol=1e-4, rtol=0)
    half = predictions_of(0, shape).map(lambda values: values.bfloat16())
    full = half.map(lambda values: values.float())
    one, other = SenseLabeler().label(half), SenseLabeler().label(full)
    assert torch.equal(one.hard, other.hard)
    assert torch.equal(one.soft.dense(), other.soft.dense())
    assert one.soft.log_probs.dtype == torch.float32


def test_hard_targets_and_other_supports() -> None:
    predictions = predictions_of(1, (2, 6, 10, 10))
    for support in ("fp32", "exact", "present"):
        soft = SenseLabeler(support=support).label(predictions)
        hard = SenseLabeler(support=support, target="hard").label(predictions)
        assert hard.soft is None
        assert torch.equal(hard.hard, soft.hard)
        assert torch.equal(soft.soft.offsets, transport(predictions.values.log_softmax(1), support=support).offsets)


def test_more_iterations_other_beta_and_a_prior_reach_the_transport() -> None:
    predictions = predictions_of(2, (1, 3, 12, 12), std=1.0)
    prior = (0.6, 0.3, 0.1)
    targets = SenseLabeler(beta=0.1, iterations=60, marginal=prior, threshold=0).label(predictions)
    means = targets.soft.dense().mean((0, 2, 3))
    torch.testing.assert_close(means, torch.tensor(prior), atol=2e-3, rtol=0)
    assert targets.soft.temperature == 0.1


def test_nan_pixels_are_ignored_and_change_no_other_pixel() -> None:
    predictions = predictions_of(3, (2, 4, 8, 8))
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, 0, 0] = valid[1, 2, 3] = False
    expected = SenseLabeler(threshold=0.5).label(predictions, valid=valid)
    spoilt = predictions.values.clone()
    spoilt[0, 1, 0, 0], spoilt[1, :, 2, 3] = torch.nan, torch.inf
    for labeler in (SenseLabeler(threshold=0.5), SenseLabeler(threshold=0.5, ot_scope="all")):
        targets = labeler.label(Predictions(spoilt, "logits"))
        assert torch.equal(targets.hard, expected.hard)
        assert torch.equal(targets.weights, expected.weights)
        assert torch.equal(targets.soft.offsets, expected.soft.offsets)
        assert targets.hard[0, 0, 0] == targets.hard[1, 2, 3] == 255


def test_padding_is_shared_out_only_when_asked_for() -> None:
    logits = torch.zeros(1, 3, 6, 8)
    logits[:, 0] = 2.0
    logits[:, 1, :, :2] = 4.0
    logits[:, 2, :, 4:] = 6.0
    valid = torch.ones(1, 6, 8, dtype=torch.bool)
    valid[..., 4:] = False
    some = SenseLabeler(threshold=0).label(Predictions(logits, "logits"), valid=valid)
    every = SenseLabeler(threshold=0, ot_scope="all").label(Predictions(logits, "logits"), valid=valid)
    assert (every.hard[~valid] == 255).all()
    assert (every.weights[~valid] == 0).all()
    assert not torch.allclose(some.soft.offsets, every.soft.offsets)
    with pytest.raises(SampleError, match="valid of shape"):
        SenseLabeler(ot_scope="all").label(Predictions(logits, "logits"), valid=valid[:, :2])


def test_a_batch_of_one_class_an_empty_keep_set_and_one_class_at_all_train() -> None:
    one = torch.zeros(2, 4, 6, 6)
    one[:, 2] = 20.0
    targets = SenseLabeler().label(Predictions(one, "logits"))
    assert (targets.hard == 2).all()
    assert_trains(targets, 4)
    nothing = SenseLabeler().label(Predictions(torch.zeros(2, 4, 6, 6), "logits"))
    assert (nothing.weights == 0).all()
    assert float(loss_of(nothing, torch.zeros(2, 4, 6, 6))) == 0
    assert_trains(nothing, 4)
    alone = SenseLabeler().label(Predictions(torch.randn(1, 1, 5, 5), "logits"))
    assert (alone.hard == 0).all()
    assert (alone.soft.dense() == 1).all()
    assert_trains(alone, 1)
    padding = SenseLabeler().label(Predictions(one, "logits"), valid=torch.zeros(2, 6, 6, dtype=torch.bool))
    assert (padding.hard == 255).all()
    assert_trains(padding, 4)


def test_pixels_that_float32_loses_as_a_whole_are_not_kept() -> None:
    log_probs = torch.full((1, 150, 2, 50), 1 / 150).log()
    log_probs[0, :, 0] = -30.0
    log_probs[0, 0, 0] = 0.0
    targets = SenseLabeler(threshold=0).label(Predictions(log_probs, "log_probs"))
    assert (targets.hard[0, 0] == 0).all()
    assert (targets.hard[0, 1] == 255).all()
    assert_trains(targets, 150)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"labeler sense.threshold"):
        SenseLabeler(threshold=1.5)
    with pytest.raises(ConfigError, match="Did you mean 'iterations'"):
        SenseLabeler(iteration=3)
    with pytest.raises(ConfigError, match="not negative"):
        SenseLabeler(marginal=[0.5, -0.1])
    with pytest.raises(ConfigError, match="above 0"):
        SenseLabeler(scales=[0])
    with pytest.raises(ConfigError, match="of shape \\(2,\\) for 3 classes"):
        SenseLabeler(marginal=(1, 1)).label(predictions_of(0, (1, 3, 4, 4)))


# ---------------------------------------------------------------- asking the teacher


class Teacher:
    """Logits that depend on place and size; remembers what it was shown."""

    def __init__(self, kind: str = "logits") -> None:
        self.kind, self.seen = kind, []

    def __call__(self, images: torch.Tensor) -> Predictions:
        self.seen.append(tuple(images.shape))
        ramp = torch.linspace(0, 1, images.shape[3]).expand(images.shape[2], -1)
        values = torch.stack([images.mean(1) * ramp, images.mean(1), 1 - images.mean(1) * ramp], 1)
        if self.kind == "log_probs":
            values = values.log_softmax(1)
        confidence = images.mean((1, 2, 3)) if self.kind == "scores" else None
        return Predictions(values, self.kind, confidence)


def test_without_tta_the_teacher_is_asked_once() -> None:
    teacher, images = Teacher(), torch.rand(3, 3, 8, 10)
    assert torch.equal(SenseLabeler().predict(teacher, images).values, Teacher()(images).values)
    assert teacher.seen == [(3, 3, 8, 10)]


@pytest.mark.parametrize("corners", [False, True])
def test_tta_averages_mirrored_and_scaled_answers(corners: bool) -> None:
    teacher, images = Teacher(), torch.rand(2, 3, 8, 12)
    labeler = SenseLabeler(tta="full", scales=(1.0, 1.25), multiple=4, align_corners=corners)
    made = labeler.predict(teacher, images)
    assert teacher.seen == [(2, 3, 8, 12), (2, 3, 8, 12), (2, 3, 8, 16), (2, 3, 8, 16)]  # 10 and 15 to multiples of 4
    wide = F.interpolate(images, size=(8, 16), mode="bilinear", align_corners=corners)
    parts = []
    for view in (images, wide):
        answers = (Teacher()(view).values, Teacher()(view.flip(3)).values.flip(3))
        parts += [F.interpolate(x, size=(8, 12), mode="bilinear", align_corners=corners) for x in answers]
    torch.testing.assert_close(made.values, torch.stack(parts).mean(0))
    assert made.kind == "logits"


@pytest.mark.parametrize("images", [1, 2, 5])
def test_half_of_the_batch_gets_tta_and_a_single_image_none(images: int) -> None:
    batch = torch.rand(images, 3, 6, 6)
    made = SenseLabeler(tta="half").predict(Teacher(), batch).values
    plain, aided = Teacher()(batch).values, SenseLabeler(tta="full").predict(Teacher(), batch).values
    half = images // 2
    torch.testing.assert_close(made[:half], aided[:half])
    assert torch.equal(made[half:], plain[half:])
    assert not torch.allclose(aided, plain)


def test_tta_keeps_log_probabilities_normalised_and_averages_image_confidence() -> None:
    batch = torch.rand(4, 3, 6, 6)
    made = SenseLabeler(tta="half").predict(Teacher("log_probs"), batch)
    torch.testing.assert_close(made.values.exp().sum(1), torch.ones(4, 6, 6))
    made = QuerySenseLabeler(tta="half").predict(Teacher("scores"), batch)
    torch.testing.assert_close(made.image_confidence, batch.mean((1, 2, 3)))


def test_tta_of_queries_asks_how_sure_their_mean_is() -> None:
    """Released code: class logits are averaged over the passes, then comes the softmax; not the other way round."""
    logits = {True: torch.tensor([[6.0, 0, 0], [0, 6, 0]]), False: torch.tensor([[0, 6.0, 0], [0, 6, 0]])}

    def teacher(images: torch.Tensor) -> Predictions:
        left = bool(images[0, 0, 0, 0] < 0.5)  # the mirror image has it on the other side
        return project_queries(logits[left].expand(len(images), -1, -1), torch.zeros(len(images), 2, 4, 4), (4, 4))

    images = torch.linspace(0, 1, 4).expand(2, 3, 4, 4)
    sure = float(teacher(images).image_confidence[0])
    made = QuerySenseLabeler(tta="full").predict(teacher, images).image_confidence
    expected = torch.stack(list(logits.values())).mean(0).softmax(-1).amax(-1).mean()
    torch.testing.assert_close(made, expected.expand(2))
    assert float(expected) < 0.8 < sure
    half = QuerySenseLabeler(tta="half").predict(teacher, images).image_confidence
    torch.testing.assert_close(half, torch.stack([expected, torch.tensor(sure)]))


# ---------------------------------------------------------------- mask classifiers


def test_certain_queries_give_back_the_label_map() -> None:
    labels = (torch.arange(64).view(1, 8, 8) // 8 + torch.tensor([0, 3]).view(2, 1, 1)) % 6
    classes = torch.cat([torch.eye(6) * 60 - 30, torch.full((6, 1), -30.0)], 1).expand(2, -1, -1)
    masks = 40.0 * F.one_hot(labels, 6).movedim(-1, 1) - 20
    scores = project_queries(classes, masks, (8, 8))
    targets = QuerySenseLabeler().label(scores)
    assert torch.equal(targets.hard, labels)
    assert torch.equal(targets.predicted, labels)
    assert (targets.weights == 1).all()
    assert targets.soft is None


def scores_of(seed: int, shape: tuple[int, ...], confidence: float = 1.0) -> Predictions:
    logits = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return Predictions(1.1 * logits.softmax(1), "scores", torch.full((shape[0],), confidence))


@pytest.mark.parametrize("cost", ["softmax_score", "neg_log_score"])
def test_query_costs(cost: str) -> None:
    predictions = scores_of(0, (2, 7, 10, 10))
    labeler = QuerySenseLabeler(query_cost=cost, target="soft", threshold=0.5)
    targets = labeler.label(predictions)
    log_probs = predictions.values.log_softmax(1) if cost == "softmax_score" else predictions.values.log()
    dense = transport(log_probs, support="present").dense()
    torch.testing.assert_close(targets.soft.dense(), dense)
    kept = dense.amax(1) >= 0.5
    assert torch.equal(targets.weights > 0, kept)
    assert torch.equal(targets.hard[kept], dense.argmax(1)[kept])
    torch.testing.assert_close(targets.confidence, predictions.values.softmax(1).amax(1).new_tensor(
        (predictions.values / predictions.values.sum(1, keepdim=True)).amax(1).tolist()
    ))  # fmt: skip


def test_absent_classes_starve_large_ones_without_the_clamp() -> None:
    """Section 1.5 of the specification: why the default differs from the released code for queries."""
    labels = torch.zeros(1, 20, 20, dtype=torch.long)
    labels[0, :4], labels[0, 4:5] = 1, 2
    scores = 0.98 * F.one_hot(labels, 20).movedim(-1, 1).float() + 0.001
    predictions = Predictions(scores, "scores", torch.ones(1))
    kept = {
        s: float(QuerySenseLabeler(support=s).label(predictions).weights.mean()) for s in ("present", "exact", "fp32")
    }
    assert kept["present"] == 1
    assert kept["exact"] < 0.1
    assert kept["fp32"] < 0.1  # scores within [0, 1] never underflow


def test_the_image_gate_closes_whole_images() -> None:
    predictions = scores_of(1, (3, 5, 6, 6))
    predictions = Predictions(predictions.values, "scores", torch.tensor([0.95, 0.94, 1.0]))
    targets = QuerySenseLabeler(threshold=0).label(predictions)
    assert (targets.weights[[0, 2]] == 1).all()
    assert (targets.weights[1] == 0).all()
    assert (targets.hard[1] == 255).all()
    opened = QuerySenseLabeler(threshold=0, image_gate=None).label(Predictions(predictions.values, "scores"))
    assert (opened.weights == 1).all()
    with pytest.raises(SampleError, match=r"image_confidence.*kind='queries'"):
        QuerySenseLabeler().label(Predictions(predictions.values, "scores"))
    closed = QuerySenseLabeler().label(Predictions(predictions.values, "scores", torch.zeros(3)))
    assert_trains(closed, 5)


def test_other_kinds_are_refused_and_point_to_the_other_labeler() -> None:
    with pytest.raises(SampleError, match=r"'logits'.*labeler sense"):
        QuerySenseLabeler().label(predictions_of(0, (1, 3, 4, 4)))


@pytest.mark.parametrize("support", ["present", "exact", "fp32"])
def test_two_hundred_classes_with_flat_scores_train(support: str) -> None:
    flat = Predictions(torch.full((1, 200, 5, 5), 0.01), "scores", torch.ones(1))
    for threshold in (0.0, 0.95):
        for target in ("soft", "hard"):
            targets = QuerySenseLabeler(support=support, threshold=threshold, target=target).label(flat)
            assert_trains(targets, 200)
    entry = 1 / 200
    targets = QuerySenseLabeler(support=support, threshold=0, target="soft").label(flat)
    torch.testing.assert_close(targets.soft.dense(), torch.full((1, 200, 5, 5), entry))
    assert math.isclose(float(targets.confidence[0, 0, 0]), entry, rel_tol=1e-5)
