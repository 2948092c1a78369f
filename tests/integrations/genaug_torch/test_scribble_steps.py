"""Labels that are scribbles: partial cross-entropy, and every ready recipe with labelled images mostly blank."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genaug.config import read_recipe
from genaug.predictions import Predictions
from genaug.registry import default_registry
from genaug_torch import SemiSupervisedStep, supervised_loss

K, IGNORE, SIZE = 4, 255, 128

#: Ready recipes with an online part; `test_every_recipe_is_here` compares.
RECIPES = (
    "classmix", "fixmatch", "maskmatch", "maskmatch-local", "maskmatch-multi-scale", "mean-teacher", "pseudo-label",
    "sense", "sense-query", "upc", "upc-faithful",
)  # fmt: skip


# ---------------------------------------------------------------------- the loss


@given(st.integers(0, 1000), st.sampled_from(["logits", "log_probs", "probs"]), st.sampled_from([0.0, 0.02, 0.2]))
def test_partial_cross_entropy_is_the_mean_over_labelled_pixels(seed, kind, share):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, K, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(K, (2, 6, 5), generator=generator)
    labels[torch.rand(2, 6, 5, generator=generator) >= share] = IGNORE
    values = {"logits": logits, "log_probs": logits.log_softmax(1), "probs": logits.softmax(1)}[kind].requires_grad_()
    pixels = [(i, y, x) for i in range(2) for y in range(6) for x in range(5) if labels[i, y, x] != IGNORE]
    expected = [-float(logits[i, :, y, x].detach().log_softmax(0)[labels[i, y, x]]) for i, y, x in pixels]
    for ohem in (None, (0.7, 100_000)):  # fewer labelled pixels than are kept at least: all of them count
        values.grad = None
        loss = supervised_loss(Predictions(values, kind), labels, ohem=ohem)
        loss.backward()
        mean = sum(expected) / len(expected) if expected else 0.0
        assert math.isclose(float(loss.detach()), mean, rel_tol=1e-9, abs_tol=1e-12)
        blank = (labels == IGNORE).unsqueeze(1).expand_as(logits)
        assert torch.isfinite(values.grad).all()
        assert (values.grad[blank] == 0).all()


@pytest.mark.parametrize("ohem", [None, (0.7, 5), (0.01, 100_000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_labelled_pixel_is_a_zero_with_zero_gradients(ohem, dtype):
    logits = torch.randn(2, K, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    loss = supervised_loss(Predictions(logits, "logits"), torch.full((2, 4, 4), IGNORE), ohem=ohem)
    loss.backward()
    assert (float(loss.detach()), loss.dtype) == (0, torch.float32)
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_ohem_with_a_few_pixels_keeps_the_hardest_of_them():
    logits = torch.zeros(1, 2, 1, 100, dtype=torch.float64)
    logits[0, 0, 0, :4] = torch.tensor([3.0, 2.0, 1.0, -1.0])  # the true class 0 is surer from right to left
    labels = torch.full((1, 1, 100), IGNORE)
    labels[0, 0, :4] = 0
    each = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")[0, 0, :4]
    for least, kept in ((1, 1), (2, 2), (3, 3), (4, 4), (50, 4)):
        found = supervised_loss(Predictions(logits, "logits"), labels, ohem=(0.3, least))
        torch.testing.assert_close(found, each[4 - kept :].mean())


# ---------------------------------------------------------------------- recipes


class Student(nn.Module):
    """Says something of colours, surely enough for pseudo-labels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, K, 1)
        with torch.no_grad():
            self.head.weight.mul_(30)

    def forward(self, images):
        return self.head(images)


class QueryStudent(nn.Module):
    """The same with a query for every class."""

    def __init__(self):
        super().__init__()
        self.dense, self.classes = Student(), nn.Parameter(9 * torch.eye(K, K + 1))

    def forward(self, images):
        return self.classes.expand(len(images), -1, -1), self.dense(images)


def data(scribbled=True):
    """Labelled images are red, their green says which; unlabelled ones have no red at all."""
    generator = torch.Generator().manual_seed(0)
    images, others = (
        torch.rand(3, 3, SIZE, SIZE, generator=generator),
        torch.rand(2, 3, SIZE, SIZE, generator=generator),
    )
    images[:, 0], others[:, 0] = 1, 0
    images[:, 1] = torch.tensor([0.0, 0.4, 0.8]).view(3, 1, 1)
    labels = torch.full((3, SIZE, SIZE), IGNORE)
    if scribbled:
        for number in range(3):
            labels[number, 10 + 40 * number :: 50, 5:120] = number
            labels[number, 20:100, 7 + 30 * number] = 3
        assert 0.01 < float((labels != IGNORE).float().mean()) < 0.03
    return images, labels, others


def make(recipe):
    overrides = ["views.strong=none"]  # colours stay, and tell where a pixel is from
    queries = recipe == "sense-query"
    if queries:
        overrides.append("supervised.burn_in=0")
    student = QueryStudent() if queries else Student()
    kind = "queries" if queries else "logits"
    return SemiSupervisedStep(student, recipe, kind=kind, num_classes=K, overrides=overrides)


def test_every_recipe_is_here():
    registry = default_registry()
    online = [name for name in registry.names("recipe") if read_recipe(name, registry)[0].get("terms")]
    assert sorted(online) == sorted(RECIPES)


@pytest.fixture
def seen(monkeypatch):
    """Every batch that a term's loss gets, and the labels of the labelled loss."""
    import genaug_torch.step as module

    batches, labelled = [], []
    whole, dense, sets = module.unlabeled_loss, module.supervised_loss, module.hard_targets

    def unlabeled(predictions, batch, **options):
        batches.append(batch)
        return whole(predictions, batch, **options)

    def supervised(predictions, labels, **options):
        labelled.append(labels)
        return dense(predictions, labels, **options)

    def masks(batch, ignore_index):
        (labelled if batch.predictions is None else batches).append(
            batch.targets if batch.predictions is None else batch
        )
        return sets(batch, ignore_index)

    for name, function in (("unlabeled_loss", unlabeled), ("supervised_loss", supervised), ("hard_targets", masks)):
        monkeypatch.setattr(module, name, function)
    return batches, labelled


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_with_scribbles(recipe, seen):
    images, labels, others = data()
    step = make(recipe)
    loss, figures = step(images, labels, others)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert float(figures["loss/supervised"]) > 0
    assert float(figures["kept"]) > 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in step.model.parameters())
    batches, labelled = seen
    assert [torch.equal(given, labels) for given in labelled] == [True]
    assert batches
    pasted = 0
    for batch in batches:
        foreign = batch.images[:, 0] > 0.9
        donor = (batch.images[:, 1] / 0.4).round().long().clamp(0, 2)
        _, y, x = torch.meshgrid(*map(torch.arange, foreign.shape), indexing="ij")
        truth = labels[donor, y, x]
        assert torch.equal(batch.targets[foreign], truth[foreign])  # blank pixels stay blank, strokes stay strokes
        blank = foreign & (truth == IGNORE)
        assert batch.weights is None or (batch.weights[blank] == 0).all()
        pasted += int((foreign & (truth != IGNORE)).sum())
    assert (pasted > 0) == recipe.startswith("upc")  # the only recipes that paste labelled pixels


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_whose_labelled_images_say_nothing(recipe):
    images, labels, others = data(scribbled=False)
    step = make(recipe)
    loss, figures = step(images, labels, others)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert float(figures["loss/supervised"]) == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in step.model.parameters())


@pytest.mark.parametrize("loss", ["cross-entropy", "ohem"])
def test_supervised_training_with_scribbles(loss):
    images, labels, _ = data()
    step = SemiSupervisedStep(Student(), {"supervised": {"loss": loss}}, kind="logits", num_classes=K)
    optimizer = torch.optim.Adam(step.model.parameters(), lr=1.0)
    found = []
    for _ in range(10):
        value, _ = step(images, labels)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        step.update()
        found.append(float(value.detach()))
    assert found[-1] < found[0] / 2


def test_the_blank_pixels_of_scribbled_images_may_get_pseudo_labels():
    images, labels, _ = data()
    step = make("fixmatch")
    loss, figures = step(images, labels, images)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert float(figures["kept"]) > float((labels != IGNORE).float().mean())
