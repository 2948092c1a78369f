"""Predictions against slow loops over pixels; soft targets against the definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genaug.errors import SampleError
from genaug.predictions import Predictions, SoftTargets


def logits_of(seed, b=2, k=4, h=3, w=5):
    return 3 * torch.randn(b, k, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_kinds(logits):
    probs = logits.softmax(1)
    return [
        Predictions(logits, "logits"),
        Predictions(logits + 7, "logits"),
        Predictions(logits.log_softmax(1), "log_probs"),
        Predictions(probs, "probs"),
        Predictions(probs * 2.5, "scores"),
    ]


@given(st.integers(0, 100), st.integers(1, 3), st.integers(1, 7), st.integers(1, 5), st.integers(1, 5))
def test_every_kind_says_the_same(seed, b, k, h, w):
    logits = logits_of(seed, b, k, h, w)
    entropy = torch.zeros(b, h, w, dtype=torch.float64)
    for i in range(b):
        for y in range(h):
            for x in range(w):
                row = [math.exp(v) for v in logits[i, :, y, x].tolist()]
                probabilities = [v / sum(row) for v in row]
                entropy[i, y, x] = -sum(p * math.log(p) for p in probabilities if p > 0)
    for predictions in all_kinds(logits):
        torch.testing.assert_close(predictions.probs(), logits.softmax(1))
        torch.testing.assert_close(predictions.log_probs(), logits.log_softmax(1))
        torch.testing.assert_close(predictions.entropy(), entropy)
        confidence, classes = predictions.confidence()
        torch.testing.assert_close(confidence, logits.softmax(1).amax(1))
        assert torch.equal(classes, logits.argmax(1))


def test_impossible_classes_have_no_entropy_and_a_smallest_probability():
    probs = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    for predictions in (Predictions(probs, "probs"), Predictions(probs.log(), "log_probs")):
        assert float(predictions.entropy().abs()) < 1e-30
        assert predictions.finite().all()
    assert torch.isfinite(Predictions(probs, "probs").log_probs()).all()


def test_entropy_with_a_gradient_is_the_same_and_has_one():
    for predictions in all_kinds(logits_of(4)):
        values = predictions.values.clone().requires_grad_()
        found = Predictions(values, predictions.kind).entropy()
        torch.testing.assert_close(found.detach(), predictions.entropy())
        assert torch.autograd.gradcheck(lambda v, kind=predictions.kind: Predictions(v, kind).entropy(), values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_largest_numbers_are_finite(dtype):
    values = torch.full((1, 40, 2, 2), torch.finfo(dtype).max, dtype=dtype)
    assert Predictions(values, "logits").finite().all()
    assert not Predictions(values * 2, "logits").finite().any()
    assert Predictions(-2 * values, "log_probs").finite().all()
    assert not Predictions(2 * values, "log_probs").finite().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    predictions = Predictions(logits_of(0).to(dtype), "logits")
    assert predictions.log_probs().dtype == torch.float32
    assert predictions.confidence()[0].dtype == torch.float32
    assert predictions.resized((6, 10)).values.dtype == torch.float32


def test_pixels_that_are_not_numbers_are_found():
    logits = logits_of(1)
    logits[0, 2, 1, 1], logits[1, 0, 2, 4] = torch.nan, -torch.inf
    found = Predictions(logits, "logits").finite()
    assert (~found).nonzero().tolist() == [[0, 1, 1], [1, 2, 4]]


def test_resizing_takes_the_values_as_they_are():
    probs = Predictions(logits_of(2).softmax(1), "probs").resized((7, 9))
    torch.testing.assert_close(probs.values.sum(1), torch.ones(2, 7, 9, dtype=torch.float64))
    same = Predictions(logits_of(2), "logits")
    assert same.resized((3, 5)) is same


@pytest.mark.parametrize("align_corners", [False, True])
def test_resized_log_probabilities_say_what_resized_logits_say(align_corners):
    logits = logits_of(3)
    expected = Predictions(logits, "logits").resized((7, 9), align_corners=align_corners).probs()
    found = Predictions(logits.log_softmax(1), "log_probs").resized((7, 9), align_corners=align_corners)
    torch.testing.assert_close(found.probs(), expected)
    logits[:, 1] = -torch.inf  # a class that is ruled out stays so, and makes no NaN
    found = Predictions(logits.log_softmax(1), "log_probs").resized((7, 9), align_corners=align_corners)
    assert found.finite().all()
    assert float(found.probs()[:, 1].max()) == 0.0


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        (torch.zeros(2, 3, 4), "logits", r"float32 of shape \(2, 3, 4\)\. Allowed: float \[B, K, H, W\]"),
        (torch.zeros(1, 2, 3, 4, dtype=torch.long), "logits", "int64"),
        (torch.zeros(1, 2, 3, 4), "logit", "logits, log_probs, probs, scores"),
    ],
)
def test_other_shapes_types_and_kinds_are_refused(values, kind, told):
    with pytest.raises(SampleError, match=told):
        Predictions(values, kind)


@given(st.integers(0, 100), st.floats(0.05, 2.0))
def test_soft_targets_follow_their_definition(seed, temperature):
    log_probs = logits_of(seed).log_softmax(1)
    offsets = torch.tensor([0.3, -torch.inf, 1.0, 0.0], dtype=torch.float64)
    floor = float((log_probs / temperature).median())
    dense = SoftTargets(log_probs, offsets, temperature, floor).dense()
    for i, y, x in ((0, 0, 0), (1, 2, 4), (1, 0, 3)):
        scaled = [v / temperature for v in log_probs[i, :, y, x].tolist()]
        weights = [
            math.exp(v + g - max(scaled)) if v >= floor and g > -math.inf else 0.0
            for v, g in zip(scaled, offsets.tolist(), strict=True)
        ]
        if sum(weights):
            expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
            torch.testing.assert_close(dense[i, :, y, x], expected)


def test_certain_targets_are_one_hot():
    soft = SoftTargets(logits_of(0).log_softmax(1), torch.zeros(4), 0.05)
    classes = torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    certain = SoftTargets(soft.certain(classes), torch.tensor([0.5, -3.0, 2.0, 0.0]), 0.05)
    assert torch.equal(certain.dense().argmax(1), classes)
    assert float(certain.dense().amax(1).min()) == 1.0
