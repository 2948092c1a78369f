"""The transport against Sinkhorn written out as loops, POT, and the released float32 procedure."""

from __future__ import annotations

import math

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genaug.errors import ConfigError, SampleError
from genaug.predictions import SoftTargets
from genaug_sense import kernel
from genaug_sense.functional import never, strongest, transport

BETA = 0.05


def log_probs_of(seed: int, shape: tuple[int, ...], std: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    logits = std * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.log_softmax(1).to(dtype)


def teacher(seed: int, classes: int, present: int, size: int = 48, images: int = 2) -> Tensor:
    """Simulate log-probabilities: smooth regions of mostly confident pixels, absent classes, one beyond float32."""
    draw = torch.Generator().manual_seed(seed)

    def noise(channels: int, grid: int) -> Tensor:
        made = torch.randn(images, channels, grid, grid, generator=draw)
        return torch.nn.functional.interpolate(made, size=(size, size), mode="bilinear")

    regions = noise(present, 5).argmax(1, keepdim=True)
    logits = 0.5 * noise(classes, size) + 1.5 * noise(classes, 8)
    logits[:, present:] -= 4
    logits[:, -1] -= 12
    return logits.scatter_add(1, regions, 8 + 4 * noise(1, 6)).log_softmax(1)


def rows(values: Tensor) -> Tensor:
    """``[B, K, H, W]`` as one row a pixel, ``[n, K]``."""
    return values.movedim(1, -1).reshape(-1, values.shape[1])


def loops(log_probs: Tensor, iterations: int, beta: float) -> Tensor:
    """Sinkhorn, number by number."""
    n, K = log_probs.shape
    M = [[float(log_probs[i, j]) / beta for j in range(K)] for i in range(n)]
    f, g = [0.0] * n, [0.0] * K
    for _ in range(iterations):
        for j in range(K):
            top = max(M[i][j] + f[i] for i in range(n))
            g[j] = math.log(1 / K) - top - math.log(sum(math.exp(M[i][j] + f[i] - top) for i in range(n)))
        for i in range(n):
            top = max(M[i][j] + g[j] for j in range(K))
            f[i] = math.log(1 / n) - top - math.log(sum(math.exp(M[i][j] + g[j] - top) for j in range(K)))
    return torch.tensor([[n * math.exp(M[i][j] + f[i] + g[j]) for j in range(K)] for i in range(n)])


def reference(
    log_probs: Tensor,
    valid: Tensor,
    *,
    iterations: int = 3,
    beta: float = BETA,
    support: str = "exact",
    min_pixels: int = 1,
    marginal: Tensor | None = None,
) -> Tensor:
    """The same in the log domain and float64, with the supports as the specification words them: all rows' targets."""
    M, inside = rows(log_probs).double() / beta, valid.flatten()
    b = torch.ones(M.shape[1], dtype=torch.float64) if marginal is None else marginal.double()
    if support == "fp32":
        M = M.masked_fill(M - M[inside].flatten().logsumexp(0) < -103.97, -torch.inf)
    if support == "present":
        best = M[inside] == M[inside].amax(1, keepdim=True)
        M = M.masked_fill((best.sum(0) < min_pixels).unsqueeze(0), -torch.inf)
    part = M[inside]
    f = torch.zeros(len(part), dtype=torch.float64)
    for _ in range(iterations):
        column = (part + f.unsqueeze(1)).logsumexp(0)
        g = torch.where(torch.isfinite(column), b.log() - column, -torch.inf)
        f = -(part + g).logsumexp(1)
        f = torch.where(torch.isfinite(f), f, -torch.inf)
    return (M + g).softmax(1)


def released(log_probs: Tensor, iterations: int = 3, beta: float = BETA) -> Tensor:
    """The released procedure in float32: exponentiate, then scale columns and rows in place."""
    plan = torch.exp(rows(log_probs).float() / beta)
    n, K = plan.shape
    plan /= plan.sum()
    for _ in range(iterations):
        column = plan.sum(0, keepdim=True)
        plan /= torch.where(column == 0, 1e-5, column)
        plan /= K
        plan /= plan.sum(1, keepdim=True)
        plan /= n
    return plan * n


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BLOCK", 1 << 9)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.integers(1, 12))


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


# ---------------------------------------------------------------- supports


@pytest.mark.parametrize(("classes", "present"), [(19, 14), (60, 20)])
def test_fp32_is_the_released_procedure(classes: int, present: int, small_blocks) -> None:
    log_probs = teacher(7, classes, present)
    old, soft = released(log_probs), transport(log_probs)
    new = rows(soft.dense())
    assert float(((new - old).abs().amax(1) > 1e-2).float().mean()) <= 1e-3
    sure = rows(log_probs).amax(1).exp() >= 0.95
    assert 0.5 < float(sure.float().mean()) < 0.99
    assert float(((new - old).abs().amax(1) > 1e-2)[sure].float().mean()) <= 1e-4
    live = (old > 0).any(0)
    assert torch.equal((new > 0).any(0), live)
    assert not live.all()
    exact = rows(transport(log_probs, support="exact").dense())
    assert float((exact - old).abs().max()) > 0.9  # another algorithm


@pytest.mark.parametrize("support", ["fp32", "exact", "present"])
def test_blocks_and_what_is_kept_of_them_do_not_matter(support: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = teacher(8, 19, 14).double()
    valid = torch.ones(2, 48, 48, dtype=torch.bool)
    valid[1, 30:] = False
    whole = transport(log_probs, valid=valid, support=support, iterations=4)
    expected = reference(log_probs, valid, support=support, iterations=4)
    torch.testing.assert_close(rows(whole.dense()), expected, atol=1e-9, rtol=0)
    for block in (1, 3000):
        monkeypatch.setattr(kernel, "BLOCK", block)
        parts = transport(log_probs, valid=valid, support=support, iterations=4)
        torch.testing.assert_close(parts.offsets, whole.offsets, atol=1e-9, rtol=0)
        if support == "fp32":
            built = kernel.ClampedKernel(log_probs, None, alpha=math.log2(math.e) / BETA)
            built.start()
            kept = sum(part.numel() for part, _ in built.parts)
            assert kept <= (0.7 if block == 1 else 1) * log_probs.numel()  # 64 pixels see few classes


def test_long_sums_keep_their_digits() -> None:
    """Equal numbers added one after the other in float32 lose digits; blocks end before that shows."""
    draw = torch.Generator().manual_seed(2)
    kinds = torch.randn(6, 7, generator=draw).log_softmax(0)
    log_probs = kinds[:, torch.randint(7, (300_000,), generator=draw).sort().values].view(1, 6, 600, 500)
    for support in ("fp32", "exact", "present"):
        precise = transport(log_probs.double(), support=support)
        dense = transport(log_probs, support=support).dense().double()
        torch.testing.assert_close(dense, precise.dense(), atol=5e-5, rtol=0)


@pytest.mark.parametrize("std", [0.0, 0.3, 3.0])
def test_the_clamp_is_relative_to_the_sum_over_all_pixels_and_classes(std: float) -> None:
    log_probs = log_probs_of(20, (2, 30, 12, 12), std)
    total = float((log_probs / BETA).flatten().logsumexp(0))
    assert transport(log_probs).floor == pytest.approx(total - 150 * math.log(2), abs=1e-3)
    assert transport(log_probs, support="exact").floor == -math.inf


def test_present_gives_absent_classes_exactly_nothing() -> None:
    log_probs = teacher(9, 19, 14)
    seen = rows(log_probs).argmax(1).bincount(minlength=19)
    dense = rows(transport(log_probs, support="present").dense())
    assert (dense[:, seen == 0] == 0).all()
    assert (dense[:, seen > 0].amax(0) > 0).all()
    assert (seen == 0).sum() >= 5
    few = int(seen[seen > 0].min()) + 1
    dense = rows(transport(log_probs, support="present", min_pixels=few).dense())
    assert torch.equal(dense.amax(0) > 0, seen >= few)


def test_one_supported_class_and_one_class_at_all() -> None:
    log_probs = torch.tensor([0.9, 0.06, 0.04]).log().view(1, 3, 1, 1).expand(2, 3, 5, 4)
    dense = transport(log_probs, support="present").dense()
    assert torch.equal(dense, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand_as(dense))
    exact = transport(log_probs, support="exact").dense()
    torch.testing.assert_close(exact, torch.full_like(exact, 1 / 3))
    alone = torch.zeros(2, 1, 4, 4)
    for support in ("fp32", "exact", "present"):
        assert torch.equal(transport(alone, support=support).dense(), torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize("classes", [200, 1000])
def test_many_classes_and_a_flat_teacher_stay_finite(classes: int) -> None:
    """The released float32 procedure gives NaN for both."""
    flat = torch.full((1, classes, 6, 6), 1 / classes).log()
    noisy = log_probs_of(0, (1, classes, 6, 6), 0.01, torch.float32)
    for log_probs in (flat, noisy):
        for support in ("fp32", "exact", "present"):
            soft = transport(log_probs, support=support)
            assert torch.isfinite(soft.dense()).all()
            assert (strongest(soft)[0] > 0).all()
            if log_probs is flat:
                torch.testing.assert_close(soft.dense(), flat.exp())


def check_first_step(log_probs: Tensor, support: str, atol: float) -> None:
    """Compare after the first class step, which later ones would make up for in part, and after three."""
    valid = torch.ones(len(log_probs), *log_probs.shape[2:], dtype=torch.bool)
    for iterations in (1, 3):
        expected = reference(log_probs, valid, support=support, iterations=iterations)
        dense = rows(transport(log_probs, support=support, iterations=iterations).dense())
        torch.testing.assert_close(dense.double(), expected, atol=atol, rtol=0)


def test_many_small_entries_count_beside_an_unsure_pixel() -> None:
    """A class has 2^-152 of 4095 sure pixels and 2^-145 of a flat one, whose row float32 would keep alone."""
    log_probs = torch.full((1, 150, 64, 64), -30.0, dtype=torch.float64)
    log_probs[0, 149] = -152 * math.log(2) * BETA
    log_probs[0, 0] = math.log1p(-math.exp(-152 * math.log(2) * BETA))
    log_probs[0, :, 63, 63] = -math.log(150)
    for values in (log_probs, log_probs.float()):
        check_first_step(values, "exact", 1e-3 if values.dtype == torch.float32 else 1e-9)


def test_many_entries_below_the_floor_do_not_count() -> None:
    """A class is just below the floor in 4095 pixels and above it in one."""
    log_probs = torch.full((1, 3, 64, 64), -30.0, dtype=torch.float64)
    log_probs[0, 2] = -138.5 * math.log(2) * BETA  # the floor is at 12 - 150
    log_probs[0, 2, 5, 5] = -136.0 * math.log(2) * BETA
    log_probs[0, 0] = torch.log1p(-log_probs[0, 2].exp())
    for values in (log_probs, log_probs.float()):
        check_first_step(values, "fp32", 1e-4)
    assert transport(log_probs).floor == pytest.approx(-138 * math.log(2), abs=0.5)


def test_small_entries_of_an_unsure_batch_count() -> None:
    """Nothing is likelier than 0.3, so that what float32 loses begins further down."""
    draw = torch.Generator().manual_seed(1)
    logits = 0.2 * torch.randn(1, 40, 16, 16, generator=draw, dtype=torch.float64)
    logits[:, 4:] -= 4.4
    log_probs = logits.log_softmax(1)
    assert float(rows(log_probs).amax()) < math.log(0.4)
    small = rows(log_probs)[:, 4:] / BETA / math.log(2)
    assert float((small < -150).double().mean()) > 0.5
    for values in (log_probs, log_probs.float()):
        check_first_step(values, "fp32", 1e-4)


def test_classes_far_away_from_every_pixel_get_their_share_when_asked_for() -> None:
    logits = 2 * torch.randn(1, 6, 10, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits[:, 4] -= 60
    logits[:, 5] -= 200
    log_probs = logits.log_softmax(1)
    expected = reference(log_probs, torch.ones(1, 10, 10, dtype=torch.bool))
    assert float(expected[:, 5].mean()) > 0.01
    dense = rows(transport(log_probs, support="exact").dense())
    torch.testing.assert_close(dense, expected, atol=1e-9, rtol=0)
    single = rows(transport(log_probs.float(), support="exact").dense()).double()
    torch.testing.assert_close(single, expected, atol=2e-3, rtol=0)  # log-probabilities of -200 have 5 digits left
    gone = rows(transport(log_probs).dense())
    assert (gone[:, 4:] == 0).all()


def test_a_share_of_nothing_is_no_support() -> None:
    log_probs = log_probs_of(11, (1, 4, 6, 6))
    shares = torch.tensor([1.0, 0.0, 1.0, 2.0])
    for support in ("fp32", "exact", "present"):
        dense = transport(log_probs, support=support, marginal=shares).dense()
        assert (dense[:, 1] == 0).all()
        torch.testing.assert_close(dense.sum(1), torch.ones_like(dense[:, 0]))


def test_pasted_truth_keeps_its_class_even_without_support() -> None:
    log_probs = teacher(12, 19, 14)
    for support in ("fp32", "present"):
        soft = transport(log_probs, support=support)
        truth = torch.full((2, 48, 48), 18)
        certain = SoftTargets(soft.certain(truth), soft.offsets, soft.temperature, soft.floor).dense()
        assert (certain[:, 18] == 1).all()
        assert (soft.dense()[:, 18] == 0).all()


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
