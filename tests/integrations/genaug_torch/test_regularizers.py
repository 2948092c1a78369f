"""Losses of the user's own beside the labelled one: what they see, how they count, what is wrong with some."""

import math

import pytest
import torch
from torch import nn

from genaug.errors import ConfigError, SampleError
from genaug_torch import SemiSupervisedStep
from genaug_torch.regularizers import Regularizers

K, IGNORE = 3, 255
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(8, K, 1))


def data(size=12):
    """Images, their normalised form, scribbles, unlabelled images."""
    generator = torch.Generator().manual_seed(1)
    images, others = (torch.rand(2, 3, size, size, generator=generator) for _ in range(2))
    labels = torch.full((2, size, size), IGNORE)
    labels[0, 2, 1:9], labels[1, 3:7, 5] = 1, 2
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return images, normalised, labels, others


def smoothness(seen):
    """Neighbours of one colour should be of one class; the mean over images of sums."""
    probs, images = seen.predictions.probs(), seen.images
    alike = (-(images[..., 1:] - images[..., :-1]).square().sum(1) / 0.02).exp()
    return (alike * (probs[..., 1:] - probs[..., :-1]).square().sum(1)).sum((1, 2)).mean()


def sureness(seen):
    return seen.predictions.entropy()[seen.labels == seen.ignore_index].mean()


def make(recipe=None, student=None, **more):
    table = {"views": {"strong": "builtin"}, **(recipe or {})}
    return SemiSupervisedStep(student or model(), table, kind="logits", num_classes=K, mean=MEAN, std=STD, **more)


TERM = {"labeler": {"use": "threshold", "threshold": 0.3}, "terms": [{"name": "weak", "view": "weak"}]}


def test_a_step_equals_the_loss_written_out():
    student, twin = model(), model()
    images, normalised, labels, _ = data()
    step = make({"supervised": {"weight": 0.5}}, student, regularizers={"smooth": (0.25, smoothness), "sure": sureness})
    loss, figures = step(normalised, labels)
    loss.backward()

    logits = nn.functional.interpolate(twin(normalised), size=(12, 12), mode="bilinear")
    probs = logits.softmax(1)
    alike = (-(images[..., 1:] - images[..., :-1]).square().sum(1) / 0.02).exp()
    smooth = (alike * (probs[..., 1:] - probs[..., :-1]).square().sum(1)).sum() / 2
    sure = -(probs * probs.log()).sum(1)[labels == IGNORE].mean()
    supervised = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    expected = 0.5 * supervised + 0.25 * smooth + sure
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    assert set(figures) == {"loss/supervised", "loss/smooth", "loss/sure"}
    torch.testing.assert_close(figures["loss/smooth"], 0.25 * smooth.detach())
    torch.testing.assert_close(figures["loss/sure"], sure.detach())
    torch.testing.assert_close(figures["loss/supervised"], 0.5 * supervised.detach())
    assert not any(value.requires_grad for value in figures.values())


def test_what_a_regularizer_sees():
    images, normalised, labels, _ = data()
    valid = torch.ones(2, 12, 12, dtype=torch.bool)
    valid[:, 8:] = False
    found = []

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model()

        def forward(self, images):
            return {"logits": self.body(images), "features": images[:, :1]}

    def look(seen):
        found.append(seen)
        return seen.predictions.values.mean()

    padded = labels.clone()
    padded[:, 8:] = 254  # what a loader may write there; no class
    step = make(student=Student(), regularizers={"look": look})
    step(normalised, padded, labeled_valid=valid)
    step(normalised, labels)
    seen, whole = found
    torch.testing.assert_close(seen.images, images)
    assert (seen.predictions.kind, tuple(seen.predictions.values.shape)) == ("logits", (2, K, 12, 12))
    assert seen.predictions.values.requires_grad
    assert torch.equal(seen.labels, labels.masked_fill(~valid, IGNORE))
    assert torch.equal(seen.valid, valid)
    assert whole.valid.all()
    assert seen.ignore_index == IGNORE
    assert set(seen.output) == {"logits", "features"}


def test_one_number_may_come_in_any_form():
    """RLoss's released dense-CRF loss returns a float tensor of shape [1] on the CPU, from an autograd function."""

    class Outside(torch.autograd.Function):
        @staticmethod
        def forward(context, probs):
            context.save_for_backward(probs)
            return torch.tensor([float(-(probs.double() ** 2).sum()) / len(probs)], dtype=torch.float64)

        @staticmethod
        def backward(context, gradient):
            (probs,) = context.saved_tensors
            return (-2 * probs * gradient / len(probs)).to(probs)

    _, normalised, labels, _ = data()
    results = []
    for part in (
        lambda seen: Outside.apply(seen.predictions.probs()),
        lambda seen: -seen.predictions.probs().square().sum((1, 2, 3)).mean(),
    ):
        step = make(regularizers={"crf": (2e-3, part)})
        loss, figures = step(normalised, labels)
        loss.backward()
        results.append([loss.detach(), figures["loss/crf"], *(p.grad for p in step.model.parameters())])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)


def test_mixed_precision_leaves_regularizers_in_float32():
    _, normalised, labels, others = data()

    def look(seen):
        assert not torch.is_autocast_enabled("cpu")
        assert seen.images.dtype == seen.predictions.values.dtype == torch.float32
        return smoothness(seen)

    step = make(TERM, regularizers={"smooth": look})
    with torch.autocast("cpu", torch.bfloat16):
        loss, figures = step(normalised, labels, others)
    assert loss.dtype == figures["loss/smooth"].dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in step.model.parameters())
    full, _ = make(TERM, regularizers={"smooth": smoothness})(normalised, labels, others)
    torch.testing.assert_close(loss, full, rtol=0.05, atol=0.02)


def test_parts_one_by_one_and_accumulated_gradients():
    _, normalised, labels, others = data()
    calls = []

    def backward(loss):
        calls.append(float(loss.detach()))
        loss.backward()

    whole, parts = make(TERM, regularizers={"smooth": smoothness}), make(TERM, regularizers={"smooth": smoothness})
    for _ in range(2):
        loss, figures = whole(normalised, labels, others)
        loss.backward()
        other, again = parts(normalised, labels, others, backward=backward)
        torch.testing.assert_close(other, loss.detach())
        assert figures.keys() == again.keys()
    assert len(calls) == 4  # the regularizer shares the labelled pass
    for mine, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_during_burn_in_regularizers_count():
    _, normalised, labels, _ = data()
    step = make({**TERM, "supervised": {"burn_in": 1}}, regularizers={"smooth": smoothness})
    assert set(step(normalised, labels)[1]) == {"loss/supervised", "loss/smooth"}


def test_models_whose_labelled_loss_matches_masks():
    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.masks, self.classes = model(), nn.Parameter(torch.eye(K, K + 1))

        def forward(self, images):
            return self.classes.expand(len(images), -1, -1), self.masks(images)

    _, normalised, labels, _ = data()
    table = {"supervised": {"loss": "set", "set_loss": {"points": 50}}}
    step = SemiSupervisedStep(
        Queries(), table, kind="queries", num_classes=K, mean=MEAN, std=STD, regularizers={"smooth": smoothness}
    )
    loss, figures = step(normalised, labels)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert float(figures["loss/smooth"]) > 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"supervised": smoothness}, "regularizers: 'supervised', which another loss has"),
        ({"weak": smoothness}, "regularizers: 'weak', which another loss has"),
        ({"": smoothness}, "regularizers: ''"),
        ({3: smoothness}, "regularizers: 3"),
        ({"a": 0.1}, r"regularizers\.a: a float\. Allowed: a function, or \(weight, function\)"),
        ({"a": (smoothness, 0.1)}, r"regularizers\.a: weight <function"),
        ({"a": (-1, smoothness)}, r"regularizers\.a: weight -1\. Allowed: a number from 0"),
        ({"a": (float("nan"), smoothness)}, r"regularizers\.a: weight nan"),
        ([smoothness], "regularizers: a list. Allowed: name -> regularizer"),
    ],
)
def test_wrong_regularizers(given, told):
    with pytest.raises(ConfigError, match=told):
        make(TERM, regularizers=given)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda seen: 0.3, "returned float"),
        (lambda seen: None, "returned NoneType"),
        (lambda seen: seen.predictions.entropy(), r"returned torch\.float32 of shape \(2, 12, 12\)"),
        (lambda seen: seen.labels.sum(), r"returned torch\.int64 of shape \(\)"),
    ],
)
def test_results_that_are_no_loss(value, told):
    _, normalised, labels, _ = data()
    with pytest.raises(ConfigError, match=rf"regularizers\.mine: {told}\. Allowed: a float tensor of one number"):
        make(regularizers={"mine": value})(normalised, labels)


def test_losses_that_are_no_numbers():
    _, normalised, labels, _ = data()
    step = make(regularizers={"smooth": smoothness, "sure": sureness})
    step(normalised, labels)
    with pytest.raises(SampleError, match=r"regularizers\.sure: returned nan for finite predictions"):
        step(normalised, torch.zeros_like(labels))  # a mean over no pixel
    with torch.no_grad():
        step.model[0].weight.fill_(torch.nan)
    loss, _ = step(normalised, labels)  # no fault of the regularizers: a gradient scaler may be at work
    assert math.isnan(float(loss.detach()))


def test_padding_is_told_by_booleans_of_the_labels_shape():
    _, normalised, labels, _ = data()
    for valid in (torch.ones(2, 12, 12), torch.ones(2, 12, 11, dtype=torch.bool)):
        with pytest.raises(SampleError, match=r"labeled_valid of type .*Allowed: bool \(2, 12, 12\)"):
            make()(normalised, labels, labeled_valid=valid)


def test_without_any_nothing_is_asked():
    assert not Regularizers({}, [])
