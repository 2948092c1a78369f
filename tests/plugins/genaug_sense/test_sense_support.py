"""Which classes may receive pixels: the three supports, against the released float32 procedure."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from transport_references import BETA, log_probs_of, reference, released, rows, teacher

from genaug.predictions import SoftTargets
from genaug_sense import kernel
from genaug_sense.functional import strongest, transport


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
