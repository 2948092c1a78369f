"""Losses against loops over pixels; nothing kept, nothing finite, other numbers of classes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions, SoftTargets
from genaug_torch import supervised_loss, unlabeled_loss
from genaug_torch.losses import pixel_losses, reduce_losses

IGNORE = 255


def naive(losses, weights, valid, normalizer):
    """Sums over lists, as the docstring's formulas read."""
    b, h, w = losses.shape
    pixels = [(i, y, x) for i in range(b) for y in range(h) for x in range(w)]

    def add(of, image=None):
        return sum(of(p) for p in pixels if image in (None, p[0]))

    def product(p):
        return float(weights[p] * losses[p]) if weights[p] > 0 else 0.0

    if normalizer == "per_image_kept":
        shares = [(add(product, i), add(lambda p: float(weights[p]), i)) for i in range(b)]
        return sum(a / c for a, c in shares if c) / b
    count = add(lambda p: float(weights[p] if normalizer == "kept" else valid[p]))
    return add(product) / count if count else 0.0


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.floats(0, 1))
@pytest.mark.parametrize("normalizer", ["kept", "valid", "per_image_kept"])
def test_reductions_equal_the_loops(normalizer, seed, b, h, w, share):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(b, h, w, generator=generator, dtype=torch.float64)
    weights = torch.rand(b, h, w, generator=generator, dtype=torch.float64)
    weights = weights * (torch.rand(b, h, w, generator=generator) < share)
    valid = torch.rand(b, h, w, generator=generator) < 0.8
    found = reduce_losses(losses, weights, valid, normalizer=normalizer)
    assert math.isclose(float(found), naive(losses, weights, valid, normalizer), rel_tol=1e-9, abs_tol=1e-12)


def test_normalizers_differ_as_measured():
    """The toy batch of the specification: one image all kept at 0.1, one with a single kept pixel of 2."""
    losses, weights = torch.full((2, 10, 10), 0.1), torch.ones(2, 10, 10)
    losses[1], weights[1] = 2.0, 0.0
    weights[1, 0, 0] = 1.0
    found = {
        n: round(float(reduce_losses(losses, weights, normalizer=n)), 3) for n in ("kept", "valid", "per_image_kept")
    }
    assert found == {"kept": 0.119, "valid": 0.06, "per_image_kept": 1.05}


@pytest.mark.parametrize("normalizer", ["kept", "valid", "per_image_kept"])
@pytest.mark.parametrize("soft", [False, True])
def test_nothing_kept_is_a_zero_with_zero_gradients(normalizer, soft):
    logits = torch.full((2, 5, 3, 3), 0.0, requires_grad=True)
    targets = torch.full((2, 3, 3), IGNORE)
    distributions = SoftTargets(torch.full((2, 5, 3, 3), -torch.inf), torch.zeros(5)) if soft else None
    batch = Batch(torch.zeros(2, 3, 3, 3), targets, torch.zeros(2, 3, 3), soft=distributions)
    loss = unlabeled_loss(Predictions(logits, "logits"), batch, normalizer=normalizer)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@given(st.integers(0, 1000), st.integers(2, 6))
def test_hard_and_soft_targets_against_loops(seed, k):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, k, 3, 4, generator=generator, dtype=torch.float64)
    hard = torch.randint(k, (2, 3, 4), generator=generator)
    hard[torch.rand(2, 3, 4, generator=generator) < 0.3] = IGNORE
    teacher = torch.randn(2, k, 3, 4, generator=generator, dtype=torch.float64).log_softmax(1)
    soft = SoftTargets(teacher, torch.zeros(k, dtype=torch.float64))
    log_q = logits.log_softmax(1)
    for kind, values in (("logits", logits), ("log_probs", log_q), ("probs", log_q.exp())):
        for distributions in (None, soft):
            found = pixel_losses(Predictions(values, kind), hard, distributions)
            for i in range(2):
                for y in range(3):
                    for x in range(4):
                        if hard[i, y, x] == IGNORE:
                            expected = 0.0
                        elif distributions is None:
                            expected = -float(log_q[i, hard[i, y, x], y, x])
                        else:
                            expected = -sum(float(teacher[i, j, y, x].exp() * log_q[i, j, y, x]) for j in range(k))
                        assert math.isclose(float(found[i, y, x]), expected, rel_tol=1e-9, abs_tol=1e-12)


def test_pixels_without_weight_do_not_matter_even_if_they_are_no_numbers():
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    broken = logits.clone()
    broken[0, :, 0, 0] = torch.nan
    targets, weights = torch.tensor([[[IGNORE, 1], [2, 0]]]), torch.tensor([[[0.0, 1], [0.5, 1]]])
    batch = Batch(torch.zeros(1, 3, 2, 2), targets, weights)
    one, two = (
        unlabeled_loss(Predictions(values.requires_grad_(), "logits"), batch, normalizer="kept")
        for values in (logits, broken)
    )
    assert float(one.detach()) == float(two.detach())
    two.backward()
    assert torch.isfinite(broken.grad[0, :, 0, 1]).all()


def test_classes_that_the_student_rules_out_make_no_nan():
    student = torch.tensor([0.5, 0.5, 0.0]).log().view(1, 3, 1, 1).requires_grad_()
    teacher = torch.tensor([0.25, 0.75, 0.0]).log().view(1, 3, 1, 1)
    soft, hard = SoftTargets(teacher, torch.zeros(3)), torch.zeros(1, 1, 1, dtype=torch.int64)
    loss = pixel_losses(Predictions(student, "log_probs"), hard, soft).sum()
    loss.backward()
    assert math.isclose(float(loss.detach()), math.log(2), rel_tol=1e-6)
    assert torch.isfinite(student.grad).all()


def test_supervised_loss_and_hard_examples():
    logits = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(4, (2, 5, 5), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = IGNORE
    predictions = Predictions(logits, "logits")
    plain = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    torch.testing.assert_close(supervised_loss(predictions, labels), plain)
    every = sorted(
        -float(logits[i, :, y, x].log_softmax(0)[labels[i, y, x]])
        for i in range(2) for y in range(5) for x in range(5) if labels[i, y, x] != IGNORE
    )  # fmt: skip
    assert len(every) == 40
    for threshold, least in ((0.3, 1), (0.01, 7), (0.7, 39), (0.5, 1000)):
        hard = [loss for loss in every if loss >= -math.log(threshold)]
        expected = hard if len(hard) >= least else every[-least:]
        found = supervised_loss(predictions, labels, ohem=(threshold, least))
        assert math.isclose(float(found), sum(expected) / len(expected), rel_tol=1e-9)


def test_sizes_must_agree_and_normalizers_exist():
    soft = SoftTargets(torch.zeros(2, 3, 2, 2), torch.zeros(3))
    for distributions in (None, soft):  # one image would be compared with two
        with pytest.raises(SampleError, match=r"targets of shape \(2, 2, 2\)\. Allowed: \(1, 2, 2\)"):
            pixel_losses(Predictions(torch.zeros(1, 3, 2, 2), "logits"), torch.zeros(2, 2, 2).long(), distributions)
    with pytest.raises(ConfigError, match=r"'mean'.*kept, valid, per_image_kept"):
        reduce_losses(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), normalizer="mean")


def test_numbers_of_classes_must_agree():
    soft = SoftTargets(torch.zeros(1, 4, 2, 2), torch.zeros(4))
    with pytest.raises(SampleError, match="targets of 4 classes for a model of 3"):
        pixel_losses(Predictions(torch.zeros(1, 3, 2, 2), "logits"), torch.zeros(1, 2, 2).long(), soft)
    with pytest.raises(SampleError, match="without targets"):
        unlabeled_loss(Predictions(torch.zeros(1, 3, 2, 2), "logits"), Batch(torch.zeros(1, 3, 2, 2)))


def test_targets_and_teachers_of_other_classes_are_named():
    student, hard = Predictions(torch.zeros(1, 3, 2, 2), "logits"), torch.full((1, 2, 2), 4)
    hard[0, 0, 0] = IGNORE
    for predictions in (student, Predictions(torch.full((1, 3, 2, 2), 1 / 3), "probs")):
        with pytest.raises(SampleError, match="targets from 4 to 4 for a model of 3 classes"):
            pixel_losses(predictions, hard)
    teacher = Predictions(torch.zeros(1, 5, 2, 2), "logits")
    batch = Batch(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long(), predictions=teacher)
    with pytest.raises(SampleError, match="the teacher has 5 classes, the student 3"):
        unlabeled_loss(student, batch)
