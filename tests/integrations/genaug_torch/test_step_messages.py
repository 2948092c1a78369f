"""What the step says of things that do not fit: where, what is allowed, what to do; and at the caller's own line."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions
from genaug_torch import SemiSupervisedStep
from genaug_torch.losses import supervised_loss

IMAGES, LABELS = torch.rand(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64)


def step(recipe="fixmatch", classes=4, **more):
    net = nn.Conv2d(3, classes, 1)
    return SemiSupervisedStep(net, recipe, kind="logits", num_classes=4, **{"strong_view": torch.flip, **more})


@pytest.mark.parametrize("who", ["model", "teacher"])
def test_other_numbers_of_classes_say_where_and_what_to_do(who):
    burn_in = 1 if who == "model" else 0  # the first to answer
    made = step(classes=5, overrides=[f"supervised.burn_in={burn_in}"])
    with pytest.raises(
        SampleError, match=rf"{who} has 5 classes, the labels 4\. Allowed: equal numbers\. Check"
    ) as told:
        made(IMAGES, LABELS, IMAGES)
    assert told.value.where == "SemiSupervisedStep"


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (lambda image: None, r"strong_view: a transform gave a NoneType\. Allowed: a tensor \(1, 3, 32, 32\)"),
        (lambda image: image[..., 1:], r"strong_view: a transform gave \(1, 3, 32, 31\)"),
    ],
)
def test_strong_views_that_return_something_else_are_told(view, told):
    with pytest.raises(SampleError, match=told):
        step(strong_view=view)(IMAGES, LABELS, IMAGES)


def test_a_model_that_is_none_is_told():
    with pytest.raises(ConfigError, match=r"model: a function\. Allowed: a torch\.nn\.Module"):
        SemiSupervisedStep(lambda images: images, "fixmatch", kind="logits", num_classes=4)


@pytest.mark.parametrize("ohem", [(0.7, 0), (0.0, 10), (1.5, 10)])
def test_impossible_hard_examples_are_told(ohem):
    with pytest.raises(ConfigError, match=r"ohem: \(.*\)\. Allowed: a threshold above 0 and at most 1, and at least 1"):
        supervised_loss(Predictions(torch.zeros(2, 4, 32, 32), "logits"), LABELS, ohem=ohem)


def test_warnings_name_the_line_that_called():
    patches = {"view": "weak", "mixer": {"use": "patch-mask"}}
    pasted = {"mix_at": "weak", "mixer": {"use": "upc", "grid": 1, "ks": [1]}}
    recipe = {"labeler": {"use": "threshold"}, "terms": [patches, pasted], "views": {"strong": "builtin"}}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = step(recipe, strong_view=None)
        made(3 * IMAGES, LABELS, (3 * IMAGES, 3 * IMAGES))
    wanted = ("replaces whole images", "some images are hidden", "in [0, 1]", "strong views that were passed")
    for text in wanted:
        (one,) = [warning for warning in told if text in str(warning.message)]
        assert Path(one.filename).name in {Path(__file__).name}, one
    assert len(told) == len(wanted)


def test_the_state_records_the_batch_that_targets_depend_on():
    made = step(strong_view=lambda image: image)
    assert made.state_dict()["batch"] == {"processes": 1, "unlabeled": 0}
    made(IMAGES, LABELS, torch.rand(3, 3, 32, 32))
    state = made.state_dict()
    assert state["batch"] == {"processes": 1, "unlabeled": 3}
    made.load_state_dict(state)
    made.load_state_dict({name: value for name, value in state.items() if name != "batch"})  # of before it was there
