"""Contracts are worth what they catch: each of these components has one fault, and one check that names it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genaug.batch import Batch
from genaug.interfaces import Filter, Generator, Mixer, PseudoLabeler
from genaug.mixture import Mixture
from genaug.predictions import PseudoTargets, SoftTargets
from genaug.rng import Rng
from genaug.testing import FilterContract, GeneratorContract, MixerContract, PluginContract, PseudoLabelerContract
from genaug.types import Refused, Sample, Verdict


def failing(contract: Any) -> set[str]:
    """Return the checks that fail, without the prefix ``test_``."""
    found = set()
    for name in [n for n in dir(contract) if n.startswith("test_")]:
        check = getattr(contract, name)
        try:
            if check is not None:
                check()
        except Exception:
            found.add(name.removeprefix("test_"))
    return found


# ---------------------------------------------------------------------------- generators


class Painter(Generator):
    """Sound: noise of the seed's own. Its faults are other methods `_one`."""

    batch_size = 3

    def __init__(self, one: Callable[[Painter, Any], Any] | None = None) -> None:
        self.one, self.made, self.started = one or Painter.good, 0, os.urandom(4).hex()

    def good(self, draw: Any) -> Any:
        if draw.condition.mask is None:
            return Refused("it needs a mask")
        numbers = Rng(draw.seed).numpy()
        image = numbers.integers(0, 255, (*draw.condition.size, 3)).astype(np.uint8)
        return Sample(draw.key, image, draw.condition.mask.copy())

    def _generate(self, draws: Any) -> Any:
        self.made += 1
        return [self.one(self, draw) for draw in draws]


class Unsure(Painter):
    def describe(self) -> Any:
        return {"started": self.started}


def global_numbers(self: Painter, draw: Any) -> Any:
    image = np.full((*draw.condition.size, 3), random.randrange(256), np.uint8)
    return Sample(draw.key, image, draw.condition.mask)


def counts_calls(self: Painter, draw: Any) -> Any:
    sample = self.good(draw)
    if isinstance(sample, Refused):
        return sample
    return replace(sample, image=sample.image // 2 + np.uint8(10 * (self.made % 9)))


def one_image(self: Painter, draw: Any) -> Any:
    return self.good(replace(draw, seed=0))


def scribbles(self: Painter, draw: Any) -> Any:
    if draw.condition.mask is not None:
        draw.condition.mask[0, 0] = 255
    return self.good(draw)


def refuses_all(self: Painter, draw: Any) -> Any:
    return Refused(" ")


def takes_masks_for_granted(self: Painter, draw: Any) -> Any:
    return self.good(replace(draw, condition=replace(draw.condition, mask=draw.condition.mask.copy())))


def chokes(self: Painter, draw: Any) -> Any:
    if np.all(draw.condition.mask == 255):
        raise ValueError("zero-size array")
    return self.good(draw)


def wrong_size(self: Painter, draw: Any) -> Any:
    sample = self.good(draw)
    return sample if isinstance(sample, Refused) else Sample(draw.key, sample.image[1:], sample.mask[1:])


@pytest.mark.parametrize(
    ("make", "caught"),
    [
        (Painter, set()),
        (lambda: Painter(global_numbers),
         {"global_random_state_stays_untouched", "the_same_call_gives_the_same_bytes"}),
        (lambda: Painter(counts_calls), {"an_image_depends_on_its_draw_alone", "the_same_call_gives_the_same_bytes"}),
        (lambda: Painter(one_image), {"seeds_matter"}),
        (lambda: Painter(scribbles), {"conditions_stay_untouched"}),
        (lambda: Painter(refuses_all), {"every_draw_is_answered"}),
        (lambda: Painter(chokes), {"a_condition_without_a_label_is_answered"}),
        (lambda: Painter(takes_masks_for_granted), {"a_condition_of_another_kind_is_told"}),
        (lambda: Painter(wrong_size), {"every_draw_is_answered"}),
        (Unsure, {"provenance_is_json_that_stays_the_same"}),
    ],
)  # fmt: skip
def test_faulty_generators(make: Callable[[], Generator], caught: set[str]) -> None:
    class Contract(GeneratorContract):
        def make_generator(self) -> Generator:
            return make()

    found = failing(Contract())
    assert caught <= found
    assert bool(found) == bool(caught)


# ---------------------------------------------------------------------------- filters


class Lenient(Filter):
    """Sound: keeps everything. Faults are other verdicts."""

    judges_unlabeled = True

    def __init__(self, one: Callable[[Sample], Verdict] = lambda sample: Verdict(True)) -> None:
        self.one = one

    def _judge(self, group: Any) -> Any:
        return [self.one(sample) for sample in group.samples]


class Overrides(Lenient):
    judges_unlabeled = False

    def judge(self, group: Any, labels: Any) -> Any:
        return list(self._judge(group))


@pytest.mark.parametrize(
    ("make", "caught"),
    [
        (Lenient, set()),
        (lambda: Lenient(lambda sample: Verdict(True, mask=sample.mask.copy())),
         {"samples_without_masks_are_judged_or_refused"}),
        (Overrides, {"samples_without_masks_are_judged_or_refused"}),
    ],
)  # fmt: skip
def test_faulty_filters(make: Callable[[], Filter], caught: set[str]) -> None:
    class Contract(FilterContract):
        def make_filter(self) -> Filter:
            return make()

    assert failing(Contract()) == caught


# ---------------------------------------------------------------------------- labelers


class Hard(PseudoLabeler):
    """Sound: the teacher's class where it is sure. Faults come as functions of that answer."""

    def __init__(self, fault: Callable[..., PseudoTargets] | None = None) -> None:
        self.fault = fault

    def _label(self, predictions: Any, valid: Any, ignore_index: int, group: Any) -> PseudoTargets:
        confidence, classes = predictions.confidence()
        kept = confidence > 0.6
        good = PseudoTargets(torch.where(kept, classes, ignore_index), kept.float())
        return good if self.fault is None else self.fault(good, predictions, valid)


def refuses_padding(good: PseudoTargets, predictions: Any, valid: Any) -> PseudoTargets:
    if not valid.any():
        raise ZeroDivisionError
    return good


class HalfSeen(Hard):
    """Asks the teacher about half of the image."""

    def predict(self, teacher: Any, images: Any) -> Any:
        return teacher(images[..., ::2])


@pytest.mark.parametrize(
    ("make", "caught"),
    [
        (Hard, set()),
        (lambda: Hard(lambda g, p, v: replace(g, hard=g.hard.int())), {"targets_are_classes_and_weights_are_finite"}),
        (lambda: Hard(lambda g, p, v: replace(g, hard=g.hard + 5)), {"targets_are_classes_and_weights_are_finite"}),
        (lambda: Hard(lambda g, p, v: replace(g, weights=torch.ones_like(g.weights))),
         {"targets_are_classes_and_weights_are_finite"}),
        (lambda: Hard(lambda g, p, v: replace(g, weights=g.weights * 0)),
         {"targets_are_classes_and_weights_are_finite"}),
        (lambda: Hard(refuses_padding), {"nothing_valid_is_no_error"}),
        (lambda: Hard(lambda g, p, v: replace(g, weights=g.weights * torch.rand(()))),
         {"equal_predictions_give_equal_targets", "predictions_and_global_random_state_stay_untouched"}),
        (lambda: Hard(lambda g, p, v: replace(g, hard=g.hard.masked_fill(g.hard == 200, 255))),
         {"the_ignore_index_is_the_callers"}),
        (lambda: Hard(lambda g, p, v: replace(g, soft=SoftTargets(p.values.masked_fill(g.hard.unsqueeze(1) < 255,
                                                                                       -torch.inf), torch.zeros(5)))),
         {"targets_are_classes_and_weights_are_finite"}),
        (HalfSeen, {"the_teacher_is_asked_for_predictions_of_the_images_size"}),
    ],
)  # fmt: skip
def test_faulty_labelers(make: Callable[[], PseudoLabeler], caught: set[str]) -> None:
    class Contract(PseudoLabelerContract):
        def make_labeler(self) -> PseudoLabeler:
            return make()

    found = failing(Contract())
    assert caught <= found
    assert bool(found) == bool(caught)


# ---------------------------------------------------------------------------- mixers


class Lower(Mixer):
    """Sound: pastes the lower part. Faults change the plan or the result."""

    def __init__(self, fault: Callable[..., Batch] | None = None) -> None:
        self.fault = fault

    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:
        height, width = batch.size
        starts = [rng.child(batch.first + i).numpy().uniform(0, height) for i in range(len(batch))]
        mask = (torch.arange(height) >= torch.tensor(starts).unsqueeze(1)).unsqueeze(2).expand(-1, -1, width)
        sources = torch.arange(len(batch))
        good = Mixture(mask, sources, sources % len(partner)).paste(batch, partner)
        return good if self.fault is None else self.fault(good, batch, partner, rng)


def spoils(good: Batch, batch: Batch, partner: Batch, rng: Rng) -> Batch:
    batch.images.mul_(2)
    return good


def by_place(good: Batch, batch: Batch, partner: Batch, rng: Rng) -> Batch:
    keep = torch.tensor([rng.child(i).numpy().random() < 0.5 for i in range(len(batch))])
    return replace(good, images=torch.where(keep.view(-1, 1, 1, 1), good.images, batch.images.flip(3)), targets=None)


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        (None, set()),
        (lambda g, b, p, r: replace(g, targets=b.targets), {"labels_and_padding_travel_with_their_pixels"}),
        (lambda g, b, p, r: replace(g, valid=g.targets == g.targets), {"labels_and_padding_travel_with_their_pixels"}),
        (lambda g, b, p, r: replace(g, images=g.images.flip(3)), {"labels_and_padding_travel_with_their_pixels"}),
        (lambda g, b, p, r: replace(g, valid=None), {"labels_and_padding_travel_with_their_pixels"}),
        (lambda g, b, p, r: replace(g, targets=None), {"the_result_is_a_sound_batch"}),
        (lambda g, b, p, r: replace(g, images=g.images / 0), {"the_result_is_a_sound_batch"}),
        (lambda g, b, p, r: replace(g, images=g.images.float()), {"half_precision_images_stay_half_precision"}),
        (lambda g, b, p, r: replace(g, images=g.images * torch.rand(())), {"the_same_rng_gives_the_same_batch"}),
        (lambda g, b, p, r: replace(g, images=g.images - g.images.mean()),
         {"a_sample_depends_on_its_number_and_not_on_its_batch"}),
        (by_place, {"a_sample_depends_on_its_number_and_not_on_its_batch"}),
        (spoils, {"inputs_and_global_random_state_stay_untouched"}),
        (lambda g, b, p, r: replace(g, images=g.images.roll(1, 0)),
         {"labels_and_padding_travel_with_their_pixels"}),
    ],
)  # fmt: skip
def test_faulty_mixers(fault: Callable[..., Batch] | None, caught: set[str]) -> None:
    class Contract(MixerContract):
        size = (8, 10)

        def make_mixer(self) -> Mixer:
            return Lower(fault)

    found = failing(Contract())
    assert caught <= found
    assert bool(found) == bool(caught)


# ---------------------------------------------------------------------------- plugins

PLUGIN = """
{imports}
from genaug import Component, hookimpl

@hookimpl
def genaug_components():
    yield Component("filter", "{name}", "{target}", config={config!r}, summary="{summary}")

@hookimpl
def genaug_recipes():
    return {recipes}

from pydantic import Field
from genaug.config import Options
from genaug.interfaces import Filter

class Judge(Filter):
    def _judge(self, group): return []

class Plain(Options):
    '''Options.'''
    bare: int = 1

class Boasts(Options):
    '''Options.'''
    judges_unlabeled = property(lambda self: True)

class Holds(Options):
    '''Options.'''
    score: object = Field(abs, description="A function.")
"""
GOOD = {"imports": "", "name": "sound", "target": "{m}:Judge", "config": None, "summary": "yes", "recipes": {}}


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        ({}, set()),
        ({"imports": "import tensorflow"}, {"listing_and_checking_import_nothing_heavy"}),
        ({"summary": " "}, {"everything_is_described"}),
        ({"config": "{m}:Plain"}, {"everything_is_described"}),
        ({"config": "{m}:Holds"}, {"options_can_stand_in_recipes"}),
        ({"config": "{m}:Boasts"}, {"options_of_filters_say_what_filters_say"}),
        ({"target": "{m}:Nothing"}, {"targets_are_what_they_say"}),
        ({"target": "{m}:Plain"}, {"targets_are_what_they_say"}),
        ({"recipes": {"odd": "{m}:no_such_file.yaml"}}, {"ready_recipes_can_be_read"}),
        ({"name": "relative"}, {"no_name_is_taken"}),
        ({"imports": "1 / 0"}, {"it_declares_entry_points_that_load"}),
    ],
)
def test_faulty_plugins(change: dict[str, Any], caught: set[str], install: Callable[..., None]) -> None:
    module = "caught_plugin"
    text = PLUGIN.format(**{**GOOD, **change}).replace("{m}", module)
    install("caught-dist", {module: text, "tensorflow": "# nothing, but by this name"}, {"caught": module})

    class Contract(PluginContract):
        distribution = "caught-dist"
        if change and "tensorflow" not in text:  # half a second each
            test_listing_and_checking_import_nothing_heavy = None

    found = failing(Contract())
    assert caught <= found
    assert bool(found) == bool(caught)
