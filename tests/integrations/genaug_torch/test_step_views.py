"""The step: weak views that it makes itself, and donors from elsewhere than the batch."""

import copy

import pytest
import torch
from torch import nn

from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.step_config import ViewsConfig
from genaug_torch import SemiSupervisedStep, WeakView

K, IGNORE = 4, 255
WEAK = {"weak": "builtin", "scale": [0.5, 1.0], "crop": [11, 9], "strong": "none"}


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, K, 1))


def data(seed=0, labelled=2, unlabelled=3, size=(12, 10)):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (labelled, *size), generator=generator)
    return (
        torch.rand(labelled, 3, *size, generator=generator),
        labels,
        torch.rand(unlabelled, 3, *size, generator=generator),
    )


def make(student, *terms, views=None, labeler=None):
    recipe = {"labeler": labeler or {"use": "threshold", "threshold": 0.3}, "terms": list(terms), "views": views or {}}
    return SemiSupervisedStep(student, recipe, kind="logits", num_classes=K)


def seen_by(student):
    """Collect the images that a model is called with."""
    images = []
    student.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0].detach().clone()))
    return images


def test_a_step_with_weak_views_equals_the_loop_written_out():
    images, labels, others = data()
    valid = torch.ones(3, 12, 10, dtype=torch.bool)
    valid[0, :, 4:] = False
    step = make(model(), {"view": "weak", "normalizer": "valid"}, views=WEAK)
    loss, figures = step(images, labels, others, valid=valid)

    view, rng = WeakView(ViewsConfig(**WEAK)), step.recipe.rng.child("step", 0, "weak")
    one = view(Batch(images, labels), rng=rng.child("labeled"))
    two = view(Batch(others, valid=valid), rng=rng.child("unlabeled"))
    assert one.images.shape == (2, 3, 11, 9)
    assert not bool(one.valid.all())
    assert not bool(two.valid.all())
    twin = model()
    probabilities = copy.deepcopy(twin).eval()(two.images).softmax(1).detach()
    confidence, targets = probabilities.max(1)
    kept = (confidence >= 0.3) & two.valid
    supervised = nn.functional.cross_entropy(twin(one.images), one.targets, ignore_index=IGNORE)
    pixels = nn.functional.cross_entropy(twin(two.images), targets, reduction="none")
    torch.testing.assert_close(loss, supervised + (pixels * kept).sum() / two.valid.sum())
    torch.testing.assert_close(figures["kept"], kept.sum() / two.valid.sum())


def test_views_are_new_every_step_and_the_same_again_after_a_restart():
    images, labels, others = data()
    student = model()
    step, seen = make(student, {"view": "weak"}, views=WEAK), seen_by(student)
    step(images, labels, others)
    step.update()
    state = step.state_dict()
    step(images, labels, others)
    first, second = seen[:2], seen[2:4]
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    again = model()
    restarted, seen = make(again, {"view": "weak"}, views=WEAK), seen_by(again)
    restarted.load_state_dict(state)
    restarted(images, labels, others)
    assert all(torch.equal(a, b) for a, b in zip(seen, second, strict=True))


def test_a_view_does_not_depend_on_the_other_images_of_the_step():
    images, labels, others = data()
    views = []
    for count in (3, 1):
        student = model()
        step, seen = make(student, {"view": "weak"}, views=WEAK), seen_by(student)
        step(images[: max(1, count - 1)], labels[: max(1, count - 1)], others[:count])
        views.append(seen)
    assert all(torch.equal(whole[:1], alone) for whole, alone in zip(*views, strict=True))


def test_mixers_see_padding():
    images, labels, others = data()
    term = {"view": "strong", "mixer": {"use": "upc", "grid": 2, "ks": [2]}, "mix_at": "weak"}
    student = model()
    step, seen = make(student, term, views=WEAK | {"scale": [0.5, 0.5], "crop": 12}), seen_by(student)
    loss, figures = step(images, labels, others)
    assert [tuple(batch.shape) for batch in seen] == [(2, 3, 12, 12), (3, 3, 12, 12)]
    assert float(seen[0][:, :, 6:].abs().sum()) == 0  # padding of the labelled images
    loss.backward()
    assert torch.isfinite(loss)
    assert 0 < float(figures["kept"]) <= 1


def test_strong_views_made_elsewhere_are_refused():
    images, labels, others = data()
    step = make(model(), {"view": "strong"}, views=WEAK)
    with pytest.raises(SampleError, match=r"set views\.weak to none"):
        step(images, labels, (others, others))


UPC = {"view": "strong", "mixer": {"use": "upc", "grid": 2, "ks": [1]}, "mix_at": "weak", "name": "upc"}


def test_donors_are_pasted_in_place_of_the_batch():
    images, labels, others = data(unlabelled=12)
    donors = torch.full((5, 3, 12, 10), 7.0) + torch.arange(5.0).view(5, 1, 1, 1)
    student = model()
    step, seen = make(student, UPC, views={"strong": "none"}), seen_by(student)
    step(images, labels, others, donors=(donors, torch.ones(5, 12, 10, dtype=torch.long)))
    labelled, mixed = seen
    assert torch.equal(labelled, images)  # the labelled loss is of the batch
    pasted = mixed[mixed >= 7]
    assert pasted.numel() == 12 * 3 * 12 * 10 // 4
    assert set(pasted.unique().tolist()) == {7.0, 8.0, 9.0, 10.0, 11.0}  # more donors than labelled images


def test_labels_of_donors_are_learnt():
    images, labels, others = data(unlabelled=1)
    whole = {"use": "upc", "grid": 2, "ks": [3]}
    losses = []
    for label in (0, 1):
        step = make(model(), UPC | {"mixer": whole}, views={"strong": "none"})
        donors = images[:1], torch.full((1, 12, 10), label)
        losses.append(step(images, labels, others, donors=donors)[1]["loss/upc"])
    assert float(losses[0]) != float(losses[1])


def test_donors_of_other_sizes_are_refused_unless_they_are_cropped():
    images, labels, others = data()
    donors = torch.rand(4, 3, 20, 16), torch.zeros(4, 20, 16, dtype=torch.long)
    with pytest.raises(SampleError, match="partner"):
        make(model(), UPC, views={"strong": "none"})(images, labels, others, donors=donors)
    student = model()
    step, seen = make(student, UPC, views=WEAK), seen_by(student)
    step(images, labels, others, donors=donors)
    assert [tuple(batch.shape) for batch in seen] == [(2, 3, 11, 9), (3, 3, 11, 9)]


def test_donors_that_nobody_asks_for_and_wrong_ones_are_named():
    images, labels, others = data()
    with pytest.raises(ConfigError, match="donors: no mixer of the recipe pastes labelled images"):
        make(model(), {"view": "weak"})(images, labels, others, donors=(images, labels))
    step = make(model(), UPC)
    with pytest.raises(SampleError, match="labels from 9 to 9"):
        step(images, labels, others, donors=(images, torch.full_like(labels, 9)))
    with pytest.raises(SampleError, match=r"images \(2, 3, 12, 10\), labels \(2, 3, 12, 10\)"):
        step(images, labels, others, donors=(images, images))


def test_views_of_a_later_process_go_on_where_those_before_it_end(monkeypatch):
    images, labels, others = data()
    student = model()
    step, seen = make(student, {"view": "weak"}, views=WEAK), seen_by(student)
    step(images, labels, others)
    part = model()
    second, rest = make(part, {"view": "weak"}, views=WEAK), seen_by(part)
    monkeypatch.setattr(second, "_before", lambda count: (1, 1 + count))  # one image before, of either kind
    second(images[1:], labels[1:], others[1:])
    assert all(torch.equal(whole[1:], later) for whole, later in zip(seen, rest, strict=True))
