"""Sizes that the student sees: one key, the labeler's, unless a term has its own."""

import pytest
import torch
from torch import nn

from genaug.errors import SampleError
from genaug_torch import SemiSupervisedStep


class Network(nn.Module):
    """Remembers the sizes of what it was shown."""

    def __init__(self):
        super().__init__()
        self.body, self.sizes = nn.Conv2d(3, 3, 1), []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        return self.body(images)


def sizes_of(recipe, size=(28, 42), **more):
    student = Network()
    step = SemiSupervisedStep(student, recipe, kind="logits", num_classes=3, strong_view=lambda image: image, **more)
    step(torch.rand(1, 3, *size), torch.zeros(1, *size, dtype=torch.int64), torch.rand(2, 3, *size))
    return student.sizes[1:], step.teacher.model.sizes


@pytest.mark.parametrize(("size", "small"), [((28, 42), (14, 28)), ((30, 40), (28, 28))])
def test_terms_round_as_the_labeler_does_and_leave_scale_1_alone(size, small):
    student, teacher = sizes_of("maskmatch-multi-scale", size, overrides=["labeler.multiple_of=14"])
    assert student == teacher == [size, small, (42, 56)]


def test_a_term_may_have_a_multiple_of_its_own():
    more = ["labeler.multiple_of=14", "terms.0.multiple_of=10"]
    student, teacher = sizes_of("maskmatch-multi-scale", overrides=more)
    assert teacher == [(28, 42), (14, 28), (42, 56)]
    assert student == [(28, 42), (20, 30), (40, 60)]


def test_the_multiple_of_sense_holds_for_terms_too():
    term = {"view": "weak", "scales": [1.0, 0.5], "normalizer": "kept"}
    student, _ = sizes_of({"labeler": {"use": "sense", "multiple": 7}, "terms": [term]})
    assert student == [(28, 42), (14, 21)]
    student, _ = sizes_of({"labeler": {"use": "threshold"}, "terms": [term]}, (27, 42))
    assert student == [(27, 42), (14, 21)]


def test_the_longest_side_holds_for_terms_too():
    recipe = {
        "labeler": {"use": "maskmatch", "scales": [1.0], "max_side": 50},
        "terms": [{"view": "weak", "scales": [1.0, 1.5]}],
    }
    with pytest.raises(SampleError, match=r"labeler\.max_side: scale 1\.5 makes 42x63 of 28x42 pixels"):
        sizes_of(recipe)
