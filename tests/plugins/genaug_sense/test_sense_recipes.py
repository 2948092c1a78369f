"""The ready recipes hold the settings of the released scripts."""

from __future__ import annotations

from importlib import metadata

import pytest
import torch

from genaug.errors import ConfigError
from genaug.predictions import Predictions
from genaug.recipe import load_recipe
from genaug.registry import GROUP, Registry
from genaug_sense.labeler import QuerySenseLabeler, SenseLabeler

GIVEN = ["labels={1: dog, 4: cat, 9: potted plant}"]


@pytest.fixture
def registry() -> Registry:
    plugins = {"core": "genaug.sources.plugin", "basics": "genaug_basics.plugin", "sense": "genaug_sense.plugin"}
    return Registry([metadata.EntryPoint(name, value, GROUP) for name, value in plugins.items()])


@pytest.mark.parametrize(("name", "burn_in"), [("sense", 0), ("sense-query", 2000)])
def test_recipes_are_those_of_the_released_scripts(registry: Registry, name: str, burn_in: int) -> None:
    recipe = load_recipe(name, GIVEN, registry=registry)
    resolved = recipe.resolved()
    assert load_recipe(resolved, registry=registry).resolved() == resolved
    term = resolved["terms"][0]
    assert (resolved["teacher"]["ema"], resolved["teacher"]["ramp"]) == (0.996, True)
    assert (term["view"], term["order"], term["normalizer"], term["weight"]) == (
        "strong",
        "mix-then-label",
        "kept",
        0.5,
    )
    assert term["mixer"] == {"use": "cutmix", "probability": 0.5, "area": [0.02, 0.4], "aspect": [0.3, 1 / 0.3]}
    assert (resolved["supervised"]["weight"], resolved["supervised"]["burn_in"]) == (0.5, burn_in)
    views = resolved["views"]
    assert [views[k] for k in ("jitter", "gray", "blur", "brightness", "hue")] == [0.8, 0.2, 0.5, 0.5, 0.25]


def test_losses_have_the_weights_of_the_released_scripts(registry: Registry) -> None:
    resolved = load_recipe("sense-query", GIVEN, registry=registry).resolved()
    term, supervised = resolved["terms"][0], resolved["supervised"]
    assert (term["loss"], supervised["loss"]) == ("set", "set")
    shared = {"points": 112**2, "oversample": 3.0, "importance": 0.75, "conf_mask": "intended"}
    names = ("class_weight", "mask_weight", "dice_weight", "no_object", "cost_class", "cost_mask", "cost_dice")
    assert term["set_loss"] == {**dict(zip(names, (2, 5, 0, 0.02, 1, 1, 0), strict=True)), **shared}
    assert supervised["set_loss"] == {**dict(zip(names, (2, 5, 5, 0.1, 2, 5, 5), strict=True)), **shared}
    one = load_recipe("sense-query", [*GIVEN, "supervised.set_loss.no_object=0.2"], registry=registry).resolved()
    assert one["supervised"]["set_loss"] == {**supervised["set_loss"], "no_object": 0.2}
    pixels = load_recipe("sense", GIVEN, registry=registry).resolved()
    assert (pixels["terms"][0]["loss"], pixels["supervised"]["loss"]) == ("pixel", "cross-entropy")


def test_labelers_have_the_documented_defaults(registry: Registry) -> None:
    shared = {
        "beta": 0.05, "iterations": 3, "min_pixels": 1, "marginal": None, "ot_scope": "valid", "tta": "none",
        "scales": [1.0], "multiple": 1, "align_corners": False, "threshold": 0.95,
    }  # fmt: skip
    pixel = {**shared, "use": "sense", "support": "fp32", "target": "soft", "gate": "pre"}
    query = {
        **shared, "use": "sense-query", "support": "present", "target": "hard", "gate": "post",
        "query_cost": "softmax_score", "image_gate": 0.95,
    }  # fmt: skip
    assert load_recipe("sense", GIVEN, registry=registry).resolved()["labeler"] == pixel
    assert load_recipe("sense-query", GIVEN, registry=registry).resolved()["labeler"] == query


def test_built_labelers_label(registry: Registry) -> None:
    values = 4 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    recipe = load_recipe("sense", [*GIVEN, "labeler.marginal=[2, 1, 1]"], registry=registry)
    labeler = recipe.labeler(recipe.context())
    assert isinstance(labeler, SenseLabeler)
    expected = SenseLabeler(marginal=(2, 1, 1)).label(Predictions(values, "logits"))
    assert torch.equal(labeler.label(Predictions(values, "logits")).hard, expected.hard)
    recipe = load_recipe("sense-query", GIVEN, registry=registry)
    assert isinstance(recipe.labeler(recipe.context()), QuerySenseLabeler)


def test_a_prior_of_another_length_is_found_before_training(registry: Registry) -> None:
    recipe = load_recipe("sense", [*GIVEN, "labeler.marginal=[1, 1]"], registry=registry)
    with pytest.raises(ConfigError, match=r"2 shares.*one for each of 3"):
        recipe.labeler(recipe.context())
