"""The teacher against the recursion written out, for weights and both kinds of buffers."""

import copy

import pytest
import torch
from torch import nn

from genaug.errors import ConfigError
from genaug_torch import EmaTeacher
from genaug_torch.teacher import unwrap


def student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def shake(model, step):
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator))
            else:
                value.add_(3)


@pytest.mark.parametrize("ramp", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999, 1.0])
def test_three_updates_equal_the_recursion(decay, ramp):
    model = student()
    teacher = EmaTeacher(model, decay=decay, ramp=ramp)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for t in range(3):
        shake(model, t)
        factor = min(1 - 1 / (t + 1), decay) if ramp else decay
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = factor * expected[name] + (1 - factor) * value
            else:
                expected[name] = value.clone()
        teacher.update(model)
        for name, value in teacher.model.state_dict().items():
            torch.testing.assert_close(value, expected[name])
    assert int(teacher.model[1].num_batches_tracked) == 9


def test_it_labels_in_evaluation_mode_without_gradients_and_leaves_the_student_alone():
    model = student().train()
    before = copy.deepcopy(model.state_dict())
    teacher = EmaTeacher(model)
    out = teacher(torch.rand(2, 3, 8, 8))
    assert not out.requires_grad
    assert not teacher.model.training
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_restored_teacher_goes_on_as_if_never_stopped():
    one, model = EmaTeacher(student(), decay=0.9), student()
    for t in range(5):
        shake(model, t)
        one.update(model)
        if t == 2:
            two = EmaTeacher(student(), decay=0.9)
            two.load_state_dict(copy.deepcopy(one.state_dict()))
        if t > 2:
            two.update(model)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name])


def test_wrappers_are_looked_through():
    model = student()
    compiled = torch.compile(model, backend="eager")
    assert unwrap(nn.DataParallel(compiled)) is model
    teacher = EmaTeacher(compiled, decay=0.0)
    shake(model, 0)
    teacher.update(compiled)
    assert torch.equal(teacher.model[0].weight, model[0].weight)


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan")])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(ConfigError, match="decay"):
        EmaTeacher(student(), decay=decay)


def test_averages_in_half_precision_are_warned_of():
    with pytest.warns(UserWarning, match=r"bfloat16.*hardly moves.*float32"):
        teacher = EmaTeacher(student().bfloat16(), decay=0.999, ramp=False)
    model = copy.deepcopy(teacher.model)
    with torch.no_grad():
        model[0].weight.add_(0.05)
    before = teacher.model[0].weight.clone()
    for _ in range(20):
        teacher.update(model)
    assert float((teacher.model[0].weight == before).float().mean()) > 0.5  # this is why
    EmaTeacher(student().bfloat16(), decay=0.0)


def test_an_update_waits_for_no_number_on_the_models_device():
    """On the device 'meta' reading a number is an error; on a GPU it makes the CPU wait."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, device="meta"), nn.BatchNorm2d(4, device="meta"))
    teacher = EmaTeacher(model, decay=0.9)
    for _ in range(3):
        teacher.update(model)
    assert int(teacher.state_dict()["n_averaged"]) == 3
