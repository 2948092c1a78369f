"""The labeler ``threshold`` against loops over pixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions
from genaug_basics.threshold import ThresholdLabeler

KINDS = ("logits", "log_probs", "probs", "scores")


def predictions_of(seed: int, kind: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Predictions:
    logits = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    probs = logits.softmax(1)
    values = {"logits": logits, "log_probs": probs.log(), "probs": probs, "scores": 1.7 * probs}[kind]
    return Predictions(values.to(dtype), kind)


def slow(predictions: Predictions, valid, threshold: float, strict: bool, ignore: int):
    """Label pixel by pixel, as FixMatch says it."""
    probs = predictions.probs().double()
    B, K, H, W = probs.shape
    hard, weights = torch.full((B, H, W), ignore), torch.zeros(B, H, W)
    for b in range(B):
        for y in range(H):
            for x in range(W):
                row = probs[b, :, y, x].tolist()
                best = max(range(K), key=row.__getitem__)
                sure = row[best] > threshold if strict else row[best] >= threshold
                if sure and valid[b, y, x]:
                    hard[b, y, x], weights[b, y, x] = best, 1.0
    return hard, weights


shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=40)
@given(
    st.integers(0, 10**6), shapes, st.sampled_from(KINDS), st.sampled_from([0.0, 0.3, 0.6, 0.95]), st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), st.sampled_from([254, 255]),
)  # fmt: skip
def test_equals_a_loop_over_pixels(seed, shape, kind, threshold, strict, dtype, ignore) -> None:
    predictions = predictions_of(seed, kind, shape, dtype)
    valid = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(seed)) < 0.8
    targets = ThresholdLabeler(threshold=threshold, strict=strict).label(predictions, valid=valid, ignore_index=ignore)
    hard, weights = slow(predictions, valid, threshold, strict, ignore)
    clear = (predictions.confidence()[0] - threshold).abs() > 1e-6  # 1 / sum(exp) and softmax round differently
    assert torch.equal(targets.hard[clear], hard[clear])
    assert torch.equal(targets.weights[clear], weights[clear])
    assert targets.hard.dtype == torch.int64
    assert targets.weights.dtype == torch.float32
    assert torch.equal(targets.predicted[valid], predictions.values.float().argmax(1)[valid])
    torch.testing.assert_close(targets.confidence[valid], predictions.probs().amax(1)[valid], rtol=1e-5, atol=1e-6)
    assert targets.confidence.dtype == torch.float32


def test_threshold_zero_keeps_everything_and_the_threshold_itself_is_kept_unless_strict() -> None:
    predictions = predictions_of(0, "logits", (2, 4, 5, 3))
    assert (ThresholdLabeler(threshold=0).label(predictions).weights == 1).all()
    halves = Predictions(torch.tensor([0.5, 0.5]).view(1, 2, 1, 1), "probs")
    assert ThresholdLabeler(threshold=0.5).label(halves).weights.item() == 1
    strict = ThresholdLabeler(threshold=0.5, strict=True).label(halves)
    assert (strict.weights.item(), strict.hard.item()) == (0, 255)


def test_half_precision_is_compared_in_float32() -> None:
    below = torch.tensor([0.9492, 0.0508], dtype=torch.bfloat16)  # rounds to 0.94921875, the next value is 0.953125
    predictions = Predictions(below.view(1, 2, 1, 1), "probs")
    assert ThresholdLabeler(threshold=0.949).label(predictions).weights.item() == 1
    assert ThresholdLabeler(threshold=0.95).label(predictions).weights.item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_soft_targets_are_the_teachers_distribution(kind: str) -> None:
    predictions = predictions_of(1, kind, (2, 3, 4, 5))
    hard = ThresholdLabeler(threshold=0.8).label(predictions)
    soft = ThresholdLabeler(threshold=0.8, target="soft").label(predictions)
    torch.testing.assert_close(soft.soft.dense(), predictions.probs())
    assert torch.equal(soft.soft.offsets, torch.zeros(3))
    assert torch.equal(soft.hard, hard.hard)
    assert torch.equal(soft.weights, hard.weights)
    assert hard.soft is None


@settings(max_examples=20)
@given(st.integers(0, 10**6), shapes, st.sampled_from([0.0, 0.5, 0.968]))
def test_share_keeps_all_labels_and_weights_them_by_the_share_of_sure_pixels(seed, shape, threshold) -> None:
    predictions = predictions_of(seed, "logits", shape)
    valid = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(seed)) < 0.7
    targets = ThresholdLabeler(threshold=threshold, weighting="share").label(predictions, valid=valid)
    sure = (predictions.confidence()[0] >= threshold) & valid
    share = int(sure.sum()) / max(1, int(valid.sum()))
    assert torch.equal(targets.hard, predictions.values.argmax(1).masked_fill(~valid, 255))
    torch.testing.assert_close(targets.weights, share * valid.float())


def test_pixels_with_nan_get_no_label_and_do_not_count_in_the_share() -> None:
    values = torch.full((1, 2, 2, 2), 0.5)
    values[:, 0] = 0.99
    values[0, 0, 0, 0] = float("nan")
    values[0, :, 0, 1] = 0.6
    for weighting, expected in (("pixel", [[0, 0], [1, 1]]), ("share", [[0, 2 / 3], [2 / 3, 2 / 3]])):
        targets = ThresholdLabeler(threshold=0.9, weighting=weighting).label(Predictions(values, "probs"))
        torch.testing.assert_close(targets.weights[0], torch.tensor(expected, dtype=torch.float32))
        assert targets.hard[0, 0, 0] == 255


def test_no_gradient_flows_into_targets() -> None:
    values = torch.randn(1, 3, 2, 2, requires_grad=True)
    targets = ThresholdLabeler(threshold=0, target="soft").label(Predictions(values, "logits"))
    assert not targets.weights.requires_grad
    assert not targets.soft.log_probs.requires_grad


@pytest.mark.parametrize("bad", [{"threshold": 1.1}, {"threshold": float("nan")}, {"target": "both"}, {"weighting": 1}])
def test_wrong_options_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ThresholdLabeler(**bad)


def test_wrong_valid_is_named() -> None:
    with pytest.raises(SampleError, match="valid"):
        ThresholdLabeler().label(predictions_of(0, "logits", (1, 2, 3, 3)), valid=torch.ones(1, 2, 2, dtype=torch.bool))


PROCESS = """
import sys, torch, torch.distributed as dist
from genaug.predictions import Predictions
from genaug_basics.threshold import ThresholdLabeler
rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
p = torch.tensor([[0.99, 0.99, 0.6], [0.6, 0.7, 0.8]][rank][: 3 - rank])  # shards of unequal size
values = torch.stack([p, 1 - p]).view(1, 2, 1, -1)
labeler = ThresholdLabeler(threshold=0.9, weighting="share")
weights = labeler.label(Predictions(values, "probs"), group=dist.group.WORLD).weights
torch.testing.assert_close(weights, torch.full_like(weights, 2 / 5))
dist.destroy_process_group()
"""


def test_the_share_is_that_of_all_processes(tmp_path: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
