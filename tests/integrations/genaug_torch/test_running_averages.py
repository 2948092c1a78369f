"""Running averages of BatchNorm: which passes of a step move them."""

import copy

import pytest
import torch
from torch import nn

from genaug.errors import ConfigError
from genaug_torch import SemiSupervisedStep
from genaug_torch.running_averages import averages_held

K = 4


def student(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
    return nn.Sequential(*layers, nn.BatchNorm2d(8), nn.Conv2d(8, K, 1))


def data():
    generator = torch.Generator().manual_seed(1)
    sizes = (2, 3, 12, 10), (3, 3, 12, 10)
    images, unlabelled = (torch.rand(*size, generator=generator) for size in sizes)
    return images, torch.randint(K, (2, 12, 10), generator=generator), unlabelled


def after_a_step(mode, wrap=lambda model: model):
    model = student()
    term = {"view": "weak", "mixer": {"use": "patch-mask", "patch": 2}, "batch_norm": mode, "scales": [1.0, 0.5]}
    recipe = {"labeler": {"use": "threshold", "threshold": 0.0}, "terms": [term], "views": {"strong": "builtin"}}
    step = SemiSupervisedStep(wrap(model), recipe, kind="logits", num_classes=K)
    loss, _ = step(*data())
    loss.backward()
    return model, loss


def averages(model):
    return {name: value for name, value in model.named_buffers() if "running" in name or "tracked" in name}


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: torch.compile(m, backend="eager")], ids=["plain", "compiled"])
def test_held_averages_are_those_of_the_labelled_images_alone(wrap):
    model, loss = after_a_step("hold", wrap)
    alone = student()
    alone(data()[0])  # the labelled pass
    assert len(averages(alone)) == 6
    for name, expected in averages(alone).items():
        assert torch.equal(averages(model)[name], expected), name
    moved, same = after_a_step("update")
    assert torch.equal(loss, same)  # both normalise with the batch
    for (name, one), (_, two) in zip(model.named_parameters(), moved.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    assert int(moved[1].num_batches_tracked) == 3  # labelled, and the term at two scales
    assert not torch.equal(moved[1].running_mean, model[1].running_mean)


def test_frozen_layers_and_layers_without_averages_stay_what_they_are():
    model = student()
    model[1].eval()
    model[4].track_running_stats = False
    before, images = copy.deepcopy(model.state_dict()), data()[0]
    expected = model(images)
    with averages_held(model, held=True):
        assert torch.equal(model(images), expected)  # the frozen layer normalises with its averages
    assert not model[4].track_running_stats
    assert model[1].track_running_stats
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value), name


def test_an_error_in_the_pass_leaves_the_layers_as_they_were():
    model = student()
    with pytest.raises(RuntimeError, match="channels"), averages_held(model, held=True):
        model(torch.rand(1, 5, 8, 8))
    assert model[1].track_running_stats
    assert model[4].track_running_stats


def test_other_words_are_refused():
    recipe = {"extends": "fixmatch", "terms": [{"view": "strong", "batch_norm": "freeze"}]}
    with pytest.raises(ConfigError, match="batch_norm"):
        SemiSupervisedStep(student(), recipe, kind="logits", num_classes=K)
