"""Mixtures: every field of a result comes from the same place."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genaug.batch import Batch
from genaug.errors import SampleError
from genaug.mixture import Mixture
from genaug.predictions import Predictions, SoftTargets


def traced(count, k, h, w, start, *, soft=True):
    """A batch in which every value is a number that says which pixel of which sample it belongs to."""
    number = start + torch.arange(count * h * w).view(count, h, w)
    images = number.unsqueeze(1).expand(-1, 3, -1, -1).float()
    values = number.unsqueeze(1).expand(-1, k, -1, -1).double()
    return Batch(
        images,
        targets=number % k,
        weights=number.float(),
        valid=number % 3 > 0,
        predictions=Predictions(values.clone(), "logits", torch.arange(float(count))),
        soft=SoftTargets(values.clone(), torch.zeros(k)) if soft else None,
        first=4,
    )


@given(st.data())
def test_every_field_comes_from_where_the_image_comes_from(data):
    b, m, k, h, w = (data.draw(st.integers(1, 4)) for _ in range(5))
    r = data.draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    plan = Mixture(
        torch.rand(r, h, w, generator=generator) < 0.5,
        torch.randint(b, (r,), generator=generator),
        torch.randint(m, (r,), generator=generator),
    )
    own, other = traced(b, k, h, w, 0), traced(m, k, h, w, 1000)
    before = [t.clone() for t in (own.images, other.images, own.targets)]
    mixed = plan.paste(own, other)
    for i in range(r):
        for y in range(h):
            for x in range(w):
                pasted = bool(plan.mask[i, y, x])
                source, sample = (other, plan.donors[i]) if pasted else (own, plan.sources[i])
                number = source.images[sample, 0, y, x]
                assert torch.equal(mixed.images[i, :, y, x], source.images[sample, :, y, x])
                assert int(mixed.targets[i, y, x]) == int(number) % k
                assert mixed.weights[i, y, x] == number
                assert bool(mixed.valid[i, y, x]) == (int(number) % 3 > 0)
                assert mixed.predictions.values[i, 0, y, x] == number
                assert mixed.soft.log_probs[i, 0, y, x] == number
                assert int(mixed.provenance[i, y, x]) == pasted
        assert mixed.predictions.image_confidence[i] == own.predictions.image_confidence[plan.sources[i]]
    assert mixed.first == 4
    for now, then in zip((own.images, other.images, own.targets), before, strict=True):
        assert torch.equal(now, then)


def test_a_labelled_partner_is_certain_and_keeps_the_teachers_predictions():
    own, other = traced(2, 3, 2, 2, 0), traced(1, 3, 2, 2, 1000)
    labelled = Batch(other.images, other.targets)
    plan = Mixture(torch.tensor([[[True, False]] * 2] * 2), torch.arange(2), torch.zeros(2, dtype=torch.long))
    mixed = plan.paste(own, labelled)
    assert torch.equal(mixed.predictions.values, own.predictions.values)
    assert torch.equal(mixed.weights[:, :, 0], torch.ones(2, 2))
    assert mixed.valid[:, :, 0].all()
    dense = mixed.soft.dense()[:, :, :, 0]
    assert torch.equal(dense.argmax(1), labelled.targets.expand(2, -1, -1)[:, :, 0])
    assert torch.equal(dense.amax(1), torch.ones_like(dense.amax(1)))


def test_gradients_go_through_a_mixture():
    own, other = torch.rand(1, 3, 2, 2, requires_grad=True), torch.rand(1, 3, 2, 2)
    plan = Mixture(torch.tensor([[[True, False]] * 2]), torch.zeros(1).long(), torch.zeros(1).long())
    mixed = plan.apply(own, other)
    mixed.sum().backward()
    assert torch.equal(mixed, torch.where(plan.mask.unsqueeze(1), other, own))
    assert own.grad[0, :, :, 0].eq(0).all()
    assert own.grad[0, :, :, 1].eq(1).all()


def test_what_does_not_fit_is_refused():
    plan = Mixture(torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1).long(), torch.zeros(1).long())
    with pytest.raises(SampleError, match="equal shapes but for the number of samples"):
        plan.apply(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2))
    images = torch.zeros(1, 3, 2, 2)
    one, two = (Batch(images, predictions=Predictions(torch.rand(1, 2, 2, 2), kind)) for kind in ("logits", "probs"))
    with pytest.raises(SampleError, match="kinds logits and probs"):
        plan.paste(one, two)
    with pytest.raises(SampleError, match=r"predictions of shape \(1, 2, 2, 3\)"):
        Batch(images, predictions=Predictions(torch.zeros(1, 2, 2, 3), "logits"))


def test_batches_move_and_flip_as_a_whole():
    batch = traced(3, 2, 2, 2, 0)
    flipped = batch.map(lambda value: value.flip(0))
    assert torch.equal(flipped.targets, batch.targets.flip(0))
    assert flipped.predictions.image_confidence.tolist() == [2, 1, 0]
    queries = replace(batch.predictions, query_logits=torch.arange(3.0).view(3, 1, 1))
    turned = replace(batch, predictions=queries).map(lambda value: value.flip(0))
    assert turned.predictions.query_logits.flatten().tolist() == [2, 1, 0]
    moved = batch.to("meta")
    assert {t.device.type for t in (moved.images, moved.valid, moved.predictions.values, moved.soft.offsets)} == {
        "meta"
    }
    assert (len(batch), batch.size) == (3, (2, 2))
