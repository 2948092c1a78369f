"""The loss towards distributions against the one that writes them out: values, gradients, types, memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from memory_ledger import Ledger

from genaug import pieces
from genaug.errors import SampleError
from genaug.predictions import Predictions, SoftTargets
from genaug_torch.losses import pixel_losses

IGNORE = 255


def drawn(seed, b=2, k=5, h=3, w=4, temperature=0.05, dtype=torch.float64):
    """Return a student's logits, targets as of a transport, and hard labels that ignore some pixels."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    log_probs, offsets = (2 * normal(b, k, h, w)).log_softmax(1), 3 * normal(k)
    if k > 2:
        offsets[1] = -torch.inf  # a class without mass
    floor = float((log_probs / temperature).amax(1).amin()) - 5
    hard = torch.randint(k, (b, h, w), generator=generator)
    hard[torch.rand(b, h, w, generator=generator) < 0.3] = IGNORE
    soft = SoftTargets(log_probs.to(dtype), offsets.to(dtype), temperature, floor)
    hard[soft.dense().isnan().any(1)] = IGNORE  # only classes without mass are above the floor
    return (3 * normal(b, k, h, w)).to(dtype), soft, hard


def reference(values, kind, soft, hard):
    log_probs = values.log_softmax(1) if kind == "logits" else values
    return -(torch.where((hard == IGNORE).unsqueeze(1), 0.0, soft.dense()) * log_probs).sum(1)


@given(
    st.integers(0, 1000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6),
    st.sampled_from([0.05, 1.0]), st.sampled_from(["logits", "log_probs"]), st.integers(1, 40),
)  # fmt: skip
def test_losses_and_gradients_are_those_of_written_out_targets(seed, b, k, h, w, temperature, kind, piece):
    logits, soft, hard = drawn(seed, b, k, h, w, temperature)
    values = (logits if kind == "logits" else logits.log_softmax(1)).requires_grad_()
    weights = torch.rand(b, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_CPU", piece)
        found = pixel_losses(Predictions(values, kind), hard, soft)
        (gradient,) = torch.autograd.grad((found * weights).sum(), values)
    expected = reference(values, kind, soft, hard)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * weights).sum(), values)[0])


@pytest.mark.parametrize("kind", ["logits", "log_probs"])
def test_gradients_against_finite_differences_and_gradients_of_gradients(kind):
    logits, soft, hard = drawn(3, 1, 4, 2, 3)
    values = (logits if kind == "logits" else logits.log_softmax(1)).requires_grad_()

    def losses(given):
        return pixel_losses(Predictions(given, kind), hard, soft)

    assert torch.autograd.gradcheck(losses, values)
    assert torch.autograd.gradgradcheck(losses, values)


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_nothing_of_the_size_of_the_targets_is_made_or_kept(kind, monkeypatch):
    """But the gradient. Before, three tensors of that size were kept for the backward pass and as many made."""
    monkeypatch.setattr(pieces, "PIECE_CPU", 1 << 12)
    logits, soft, hard = drawn(0, 2, 30, 20, 20, dtype=torch.float32)
    values = (logits if kind == "logits" else logits.softmax(1)).requires_grad_()
    predictions = Predictions(
        values if kind == "logits" else values.log(), "logits" if kind == "logits" else "log_probs"
    )
    kept = []
    with Ledger() as forward, torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        loss = pixel_losses(predictions, hard, soft).sum()
    with Ledger() as backward:
        loss.backward()
    assert max(forward.made) <= 1 << 12
    assert sum(made == logits.numel() for made in backward.made) <= (1 if kind == "logits" else 2)
    known = {predictions.values.data_ptr(), soft.log_probs.data_ptr()}
    assert {x.data_ptr() for x in kept if x.numel() == logits.numel()} <= known


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_in_float32_and_gets_a_gradient_of_its_own_type(dtype):
    logits, soft, hard = drawn(1, dtype=torch.float32)
    values = logits.to(dtype).requires_grad_()
    found = pixel_losses(Predictions(values, "logits"), hard, soft)
    wide = values.detach().float().requires_grad_()
    expected = reference(wide, "logits", soft, hard)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    found.sum().backward()
    expected.sum().backward()
    assert values.grad.dtype == dtype
    torch.testing.assert_close(values.grad, wide.grad.to(dtype))


def test_autocast_changes_nothing():
    logits, soft, hard = drawn(2, dtype=torch.float32)
    results = []
    for enabled in (False, True):
        values = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = pixel_losses(Predictions(values, "logits"), hard, soft)
            losses.sum().backward()
        results.append((losses.detach(), values.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_targets_may_be_of_another_precision_than_the_student():
    logits, soft, hard = drawn(4)
    single = SoftTargets(soft.log_probs.float(), soft.offsets.float(), soft.temperature, torch.tensor(soft.floor))
    for values in (logits, logits.float()):
        found = pixel_losses(Predictions(values, "logits"), hard, single)
        assert found.dtype == values.dtype
        torch.testing.assert_close(found.double(), reference(logits, "logits", soft, hard), atol=1e-4, rtol=1e-4)


def test_ignored_pixels_may_hold_anything_and_others_tell():
    logits, soft, hard = drawn(5, dtype=torch.float32)
    hard[0, 0, 0], hard[0, 0, 1], hard[0, 0, 2] = IGNORE, IGNORE, 1
    expected = reference(logits, "logits", soft, hard)
    logits[0, :, 0, 0] = torch.nan  # of the student
    soft.log_probs[0, :, 0, 1] = -torch.inf  # no class is possible
    values = logits.requires_grad_()
    found = pixel_losses(Predictions(values, "logits"), hard, soft)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert torch.equal(values.grad[0, :, 0, :2], torch.zeros(5, 2))
    assert torch.isfinite(values.grad).all()
    soft.log_probs[0, :, 0, 2] = torch.nan
    assert torch.isnan(pixel_losses(Predictions(values, "logits"), hard, soft)[0, 0, 2])


def test_logits_of_minus_infinity_rule_a_class_out_on_both_sides():
    student = torch.tensor([0.5, 0.5, 0.0]).log().view(1, 3, 1, 1).requires_grad_()
    soft = SoftTargets(torch.tensor([0.25, 0.75, 0.0]).log().view(1, 3, 1, 1), torch.zeros(3))
    loss = pixel_losses(Predictions(student, "logits"), torch.zeros(1, 1, 1).long(), soft).sum()
    loss.backward()
    assert math.isclose(float(loss.detach()), math.log(2), rel_tol=1e-6)
    torch.testing.assert_close(student.grad.flatten(), torch.tensor([0.25, -0.25, 0.0]))


def test_targets_with_a_gradient_of_their_own_get_it():
    logits, soft, hard = drawn(6)
    offsets = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    learned = SoftTargets(soft.log_probs, offsets, 1.0)
    pixel_losses(Predictions(logits, "logits"), hard, learned).sum().backward()
    (expected,) = torch.autograd.grad(reference(logits, "logits", learned, hard).sum(), offsets)
    torch.testing.assert_close(offsets.grad, expected)


def test_compiled_losses_break_no_graph_and_are_the_same():
    logits, soft, hard = drawn(7)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def losses(values, log_probs, offsets, hard):
        return pixel_losses(Predictions(values, "logits"), hard, SoftTargets(log_probs, offsets, 0.05, soft.floor))

    gradients = []
    for function in (losses, losses.__wrapped__):
        values = logits.clone().requires_grad_()
        function(values, soft.log_probs, soft.offsets, hard).sum().backward()
        gradients.append(values.grad)
    torch.testing.assert_close(*gradients)


def test_distributions_of_another_size_are_refused():
    soft = SoftTargets(torch.zeros(1, 3, 1, 2), torch.zeros(3))
    with pytest.raises(SampleError, match=r"distributions of shape \(1, 3, 1, 2\)\. Allowed: \(1, 3, 2, 2\)"):
        pixel_losses(Predictions(torch.zeros(1, 3, 2, 2), "logits"), torch.zeros(1, 2, 2).long(), soft)


def test_one_hot_targets_give_the_plain_cross_entropy():
    logits, soft, hard = drawn(8)
    labels = hard.clamp(max=4)
    certain = SoftTargets(soft.certain(labels), torch.zeros(5, dtype=torch.float64), 0.05)
    values = logits.requires_grad_()
    found = pixel_losses(Predictions(values, "logits"), labels, certain)
    expected = F.cross_entropy(values, labels, reduction="none")
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(x.sum(), values)[0] for x in (found, expected))
    torch.testing.assert_close(one, other)
