"""The transport against Sinkhorn written out as loops and POT; pixels that do not take part; the lazy form."""

from __future__ import annotations

import math

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transport_references import BETA, log_probs_of, loops, reference, rows, shapes, teacher

from genaug.errors import ConfigError, SampleError
from genaug_sense.functional import never, strongest, transport

# ---------------------------------------------------------------- the equations


def test_equals_loops_over_pixels_and_classes() -> None:
    log_probs = log_probs_of(0, (1, 5, 8, 8))
    for iterations in (1, 3):
        expected = loops(rows(log_probs), iterations, BETA)
        for support in ("exact", "fp32", "present"):
            dense = transport(log_probs.float(), iterations=iterations, support=support).dense()
            torch.testing.assert_close(rows(dense), expected, atol=1e-5, rtol=0)
        dense = transport(log_probs, iterations=iterations, support="exact").dense()
        torch.testing.assert_close(rows(dense), expected.double(), atol=1e-6, rtol=0)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6), shapes, st.sampled_from(["exact", "present", "fp32"]), st.integers(1, 6),
    st.sampled_from([0.5, 2.0, 6.0]), st.sampled_from([0.02, 0.05, 1.0]), st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_equals_the_log_domain(seed, shape, support, iterations, std, beta, min_pixels, weighted) -> None:
    log_probs = log_probs_of(seed, shape, std)
    draw = torch.Generator().manual_seed(seed)
    valid = torch.rand(shape[0], *shape[2:], generator=draw) < 0.8
    valid[0, 0, 0] = True
    shares = torch.rand(shape[1], generator=draw, dtype=torch.float64) + 0.05 if weighted else None
    options = {"iterations": iterations, "support": support, "min_pixels": min_pixels, "marginal": shares}
    expected = reference(log_probs, valid, beta=beta, **options)
    soft = transport(log_probs, valid=valid, temperature=beta, **options)
    possible = torch.isfinite(expected).all(1)
    if not bool((soft.offsets > never(torch.float64) / 2).any()):
        assert not possible.any()  # no class reaches `min_pixels`
        return
    torch.testing.assert_close(rows(soft.dense())[possible], expected[possible], atol=1e-9, rtol=0)
    single = transport(log_probs.float(), valid=valid, temperature=beta, **options)
    torch.testing.assert_close(rows(single.dense()).double()[possible], expected[possible], atol=2e-4, rtol=0)


@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log"])
@pytest.mark.parametrize(("std", "classes"), [(1.0, 19), (3.0, 40)])
def test_equals_pot(method: str, std: float, classes: int) -> None:
    log_probs = log_probs_of(1, (2, classes, 20, 25), std)
    n = 1000
    shares = torch.rand(classes, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.1
    for b in (torch.full((classes,), 1 / classes, dtype=torch.float64), shares / shares.sum()):
        a = torch.full((n,), 1 / n, dtype=torch.float64)
        plan = ot.sinkhorn(a, b, -rows(log_probs), BETA, method=method, numItermax=3, stopThr=0, warn=False) * n
        dense = transport(log_probs, support="exact", marginal=b).dense()
        torch.testing.assert_close(rows(dense), plan, atol=1e-12, rtol=0)
        dense = transport(log_probs.float(), support="exact", marginal=b).dense()
        torch.testing.assert_close(rows(dense).double(), plan, atol=1e-5, rtol=0)


def test_rows_sum_to_one_and_classes_get_their_shares_in_the_end() -> None:
    log_probs = log_probs_of(3, (2, 19, 40, 40), 1.0, torch.float32)
    dense = transport(log_probs).dense()
    torch.testing.assert_close(dense.sum(1), torch.ones(2, 40, 40), atol=1e-6, rtol=0)
    means = rows(transport(log_probs, iterations=50).dense()).mean(0) * 19
    assert float((means - 1).abs().max()) < 1e-2
    shares = torch.linspace(1, 3, 19)
    means = rows(transport(log_probs, iterations=50, marginal=shares).dense()).mean(0) / (shares / shares.sum())
    assert float((means - 1).abs().max()) < 1e-2


def test_three_iterations_and_three_more_are_six_and_a_finished_plan_stays() -> None:
    log_probs = log_probs_of(4, (1, 6, 12, 12), 1.0)
    three = transport(log_probs, support="exact").dense()
    more = transport(three.log(), temperature=1.0, support="exact").dense()
    torch.testing.assert_close(more, transport(log_probs, iterations=6, support="exact").dense(), atol=1e-12, rtol=0)
    done = transport(log_probs, iterations=3000, support="exact").dense()
    again = transport(done.log(), temperature=1.0, support="exact").dense()
    torch.testing.assert_close(again, done, atol=1e-6, rtol=0)
    assert float((more - three).abs().max()) > 1e-3  # at three iterations it is not idempotent


@pytest.mark.parametrize("support", ["fp32", "exact", "present"])
def test_order_of_classes_and_pixels_does_not_matter(support: str) -> None:
    log_probs = log_probs_of(5, (2, 7, 9, 11))
    dense = transport(log_probs, support=support).dense()
    draw = torch.Generator().manual_seed(0)
    classes, pixels = torch.randperm(7, generator=draw), torch.randperm(99, generator=draw)
    moved = transport(log_probs[:, classes], support=support).dense()
    torch.testing.assert_close(moved, dense[:, classes], atol=1e-12, rtol=0)
    shuffled = log_probs.flatten(2)[:, :, pixels].view_as(log_probs)
    moved = transport(shuffled, support=support).dense()
    torch.testing.assert_close(moved.flatten(2), dense.flatten(2)[:, :, pixels], atol=1e-12, rtol=0)


def test_a_constant_added_to_a_pixel_matters() -> None:
    log_probs = log_probs_of(6, (1, 5, 10, 10))
    moved = log_probs + torch.linspace(-0.5, 0, 10, dtype=torch.float64)
    assert float((transport(moved).dense() - transport(log_probs).dense()).abs().max()) > 0.01


def test_uniform_predictions_and_separated_classes() -> None:
    for support in ("fp32", "exact", "present"):
        uniform = torch.full((2, 8, 6, 6), math.log(1 / 8))
        torch.testing.assert_close(transport(uniform, support=support).dense(), uniform.exp())
        labels = torch.arange(36).view(1, 6, 6) % 4
        logits = 30.0 * torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
        dense = transport(logits.log_softmax(1), support=support).dense()
        torch.testing.assert_close(dense, logits / 30)


def test_the_same_batch_gives_the_same_bits(small_blocks) -> None:
    log_probs = teacher(0, 19, 14)
    first, second = transport(log_probs), transport(log_probs.clone())
    assert torch.equal(first.offsets, second.offsets)
    assert first.floor == second.floor


# ---------------------------------------------------------------- pixels that do not take part


@pytest.mark.parametrize("support", ["fp32", "exact", "present"])
def test_padding_and_non_finite_pixels_change_nothing(support: str) -> None:
    clean = log_probs_of(13, (1, 6, 8, 10))
    valid = torch.ones(1, 8, 10, dtype=torch.bool)
    valid[0, :, 7:] = False
    expected = transport(clean[..., :7].contiguous(), support=support).dense()
    for bad in (torch.nan, torch.inf, 0.0):
        spoilt = clean.clone()
        spoilt[..., 7:] = bad
        torch.testing.assert_close(
            transport(spoilt, valid=valid, support=support).dense()[..., :7], expected, atol=1e-12, rtol=0
        )
    spoilt[0, 2, 3, 8] = torch.nan
    spoilt[..., 7:] = torch.nan
    dense = transport(spoilt, support=support).dense()  # NaN never takes part
    torch.testing.assert_close(dense[..., :7], expected, atol=1e-12, rtol=0)
    spoilt[..., 7:] = -torch.inf
    dense = transport(spoilt, support=support).dense()
    torch.testing.assert_close(dense[..., :7], expected, atol=1e-12, rtol=0)


def test_impossible_classes_stay_impossible() -> None:
    log_probs = log_probs_of(14, (1, 5, 6, 6))
    log_probs[:, 3] = -torch.inf
    log_probs[0, 1, 2, 2] = -torch.inf
    for support in ("fp32", "exact", "present"):
        dense = transport(log_probs, support=support).dense()
        assert (dense[:, 3] == 0).all()
        assert dense[0, 1, 2, 2] == 0
        torch.testing.assert_close(dense.sum(1), torch.ones(1, 6, 6, dtype=torch.float64))


def test_no_pixel_at_all() -> None:
    log_probs = log_probs_of(15, (1, 5, 6, 6), dtype=torch.float32)
    for support in ("fp32", "exact", "present"):
        nothing = transport(log_probs, valid=torch.zeros(1, 6, 6, dtype=torch.bool), support=support)
        assert (nothing.offsets == never(torch.float32)).all()
        assert torch.isfinite(nothing.dense()).all()
        assert (strongest(nothing)[0] == 0).all()
        empty = transport(log_probs[:0], support=support)
        assert empty.dense().shape == (0, 5, 6, 6)


# ---------------------------------------------------------------- the lazy form


@settings(max_examples=25)
@given(st.integers(0, 10**6), shapes, st.sampled_from(["fp32", "exact", "present"]))
def test_the_strongest_class_is_that_of_the_written_out_targets(seed, shape, support) -> None:
    soft = transport(log_probs_of(seed, shape, 3.0, torch.float32), support=support)
    entry, classes = strongest(soft)
    dense = soft.dense()
    torch.testing.assert_close(entry, dense.amax(1), atol=5e-6, rtol=0)
    torch.testing.assert_close(dense.gather(1, classes.unsqueeze(1)).squeeze(1), dense.amax(1), atol=5e-6, rtol=0)


def test_scores_that_are_no_probabilities() -> None:
    """Their logarithms have any sum, and may be large."""
    draw = torch.Generator().manual_seed(4)
    for factor in (1e-3, 1.0, 30.0):
        scores = factor * torch.rand(2, 6, 9, 8, generator=draw, dtype=torch.float64) ** 3
        valid = torch.rand(2, 9, 8, generator=draw) < 0.8
        for support in ("fp32", "exact", "present"):
            expected = reference(scores.log(), valid, support=support)
            possible = torch.isfinite(expected).all(1)
            dense = rows(transport(scores.log(), valid=valid, support=support).dense())
            torch.testing.assert_close(dense[possible], expected[possible], atol=1e-9, rtol=0)
            dense = rows(transport(scores.log().float(), valid=valid, support=support).dense()).double()
            torch.testing.assert_close(dense[possible], expected[possible], atol=1e-4, rtol=0)


def test_pixels_without_a_possible_class_have_no_strongest_one() -> None:
    """Below probability 0.0067 in 100 pixels of which half are certain, float32 loses a whole pixel."""
    log_probs = torch.full((1, 150, 2, 50), 1 / 150).log()
    log_probs[0, :, 0] = -30.0
    log_probs[0, 0, 0] = 0.0
    soft = transport(log_probs)
    assert float(log_probs[0, 0, 1, 0]) / BETA < soft.floor
    entry, classes = strongest(soft)
    assert (entry[0, 1] == 0).all()
    assert (entry[0, 0] == 1).all()
    assert (classes[0, 0] == 0).all()


def test_memory_layout_half_precision_and_inputs() -> None:
    log_probs = log_probs_of(16, (2, 6, 9, 7), dtype=torch.float32)
    expected = transport(log_probs)
    strided = log_probs.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(transport(strided).dense(), expected.dense(), atol=1e-6, rtol=0)
    before = log_probs.clone()
    half = transport(log_probs.half())
    assert half.log_probs.dtype == half.offsets.dtype == torch.float32
    torch.testing.assert_close(half.dense(), transport(log_probs.half().float()).dense())
    assert torch.equal(log_probs, before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transport(log_probs).offsets, expected.offsets)


def test_wrong_arguments_are_named() -> None:
    log_probs = log_probs_of(0, (1, 3, 4, 4))
    with pytest.raises(ConfigError, match="0 iterations"):
        transport(log_probs, iterations=0)
    with pytest.raises(ConfigError, match="temperature 0"):
        transport(log_probs, temperature=0)
    with pytest.raises(ConfigError, match=r"'fp16'.*fp32, exact, present"):
        transport(log_probs, support="fp16")
    with pytest.raises(ConfigError, match="for 3 classes"):
        transport(log_probs, marginal=torch.ones(4))
    with pytest.raises(SampleError, match=r"valid of shape \(1, 4, 5\)"):
        transport(log_probs, valid=torch.ones(1, 4, 5, dtype=torch.bool))
    with pytest.raises(SampleError, match="float"):
        transport(log_probs[0])
