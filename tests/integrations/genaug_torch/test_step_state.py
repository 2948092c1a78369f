"""States of the step and its teacher: what is refused, in which words, and that a refusal changes nothing."""

import copy

import pytest
import torch
from torch import nn

from genaug.errors import ConfigError
from genaug_torch import EmaTeacher, SemiSupervisedStep

K = 4


def model(classes=K, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, classes, 1))


def make(classes=K, recipe="mean-teacher", seed=0, student=None):
    return SemiSupervisedStep(student or model(classes, seed), recipe, kind="logits", num_classes=classes)


def trained(classes=K, recipe="mean-teacher", seed=1):
    step = make(classes, recipe, seed)
    step.update()
    step.calls = 3
    return step.state_dict()


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def with_teacher(change):
    return lambda state: {**state, "teacher": change(state["teacher"])}


REFUSED = {
    "no teacher": (without("teacher"), r"SemiSupervisedStep state: no teacher\. Allowed: teacher, calls, updates"),
    "no counters": (lambda s: {"teacher": s["teacher"]}, r"no calls, updates\. "),
    "another entry": (lambda s: {**s, "ema": 1}, r"unknown ema\. Allowed: teacher"),
    "a student": (lambda s: model().state_dict(), r"no teacher, calls, updates; unknown 0\.weight, .* and 6 more\. "),
    "nothing": (lambda s: None, r"a NoneType\. Allowed: a dictionary of teacher.*state_dict\(\)"),
    "another recipe": (lambda s: trained(recipe="fixmatch"), r"recipe: 'fixmatch', but this step runs 'mean-teacher'"),
    "negative calls": (lambda s: {**s, "calls": -1}, r"calls: -1\. Allowed: a whole number"),
    "half an update": (lambda s: {**s, "updates": 1.5}, r"updates: 1\.5\. "),
    "classes": (
        lambda s: trained(classes=5),
        r"teacher: module\.3\.weight of shape \(5, 6, 1, 1\) instead of \(4, 6, 1, 1\), module\.3\.bias of .*classes\.",
    ),
    "a plain model": (with_teacher(lambda t: model().state_dict()), r"teacher: no n_averaged, module\.0\.weight.*more"),
    "a layer less": (with_teacher(without("module.3.bias")), r"teacher: no module\.3\.bias\. Allowed: weights"),
    "a layer more": (with_teacher(lambda t: {**t, "module.5.bias": t["n_averaged"]}), r"unknown module\.5\.bias\. "),
    "a list": (with_teacher(list), r"teacher: a list\. "),
    "a number": (with_teacher(lambda t: {**t, "module.3.bias": 7}), r"module\.3\.bias of shape int instead of \(4,\)"),
}


@pytest.mark.parametrize(("change", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_other_states_are_refused_and_nothing_is_loaded(change, told):
    step = make()
    step.update()
    before, wrong = copy.deepcopy(step.state_dict()), change(trained())
    with pytest.raises(ConfigError, match=told):
        step.load_state_dict(wrong)
    after = step.state_dict()
    assert {k: v for k, v in after.items() if k != "teacher"} == {k: v for k, v in before.items() if k != "teacher"}
    assert all(torch.equal(value, after["teacher"][name]) for name, value in before["teacher"].items())
    assert not torch.equal(after["teacher"]["module.0.weight"], trained()["teacher"]["module.0.weight"])


@pytest.mark.parametrize("change", [dict, without("recipe"), lambda s: {**s, "calls": torch.tensor(3)}])
def test_own_states_are_taken_also_those_without_a_recipe(change):
    step, state = make(), trained()
    step.load_state_dict(change(state))
    assert (step.calls, step.updates) == (3, 1)
    assert all(torch.equal(value, step.teacher.state_dict()[name]) for name, value in state["teacher"].items())


def test_states_survive_a_file(tmp_path):
    torch.save(trained(), tmp_path / "state.pt")
    step = make()
    step.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert step.calls == 3


def test_the_teacher_of_another_recipe_can_be_taken_alone():
    step, state = make(), trained(recipe="fixmatch")
    step.teacher.load_state_dict(state["teacher"])
    assert torch.equal(step.teacher.model[0].weight, state["teacher"]["module.0.weight"])


def test_what_torch_says_is_passed_on_where_names_and_shapes_fit():
    class Picky(nn.Conv2d):
        def _load_from_state_dict(self, *args):
            super()._load_from_state_dict(*args)
            args[-1].append("the wrong colour")

    teacher = EmaTeacher(Picky(3, 4, 1))
    before = copy.deepcopy(teacher.state_dict())
    with pytest.raises(ConfigError, match=r"teacher: (?s:.*)the wrong colour\. Allowed"):
        teacher.load_state_dict({name: value + 1 for name, value in before.items()})
