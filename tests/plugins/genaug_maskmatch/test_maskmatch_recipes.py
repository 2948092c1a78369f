"""The ready recipes hold the paper's settings."""

from __future__ import annotations

from importlib import metadata

import pytest

from genaug.recipe import Recipe, load_recipe
from genaug.registry import GROUP, Registry
from genaug_maskmatch.config import MaskMatchOptions, PatchMaskOptions

PLUGINS = {"core": "genaug.sources.plugin", "basics": "genaug_basics.plugin", "maskmatch": "genaug_maskmatch.plugin"}


def load(name: str) -> Recipe:
    registry = Registry([metadata.EntryPoint(key, module, GROUP) for key, module in PLUGINS.items()])
    return load_recipe(name, ["labels={0: road, 1: car}"], registry=registry)


def test_maskmatch_is_the_papers() -> None:
    recipe = load("maskmatch")
    data = recipe.resolved()
    assert data["teacher"]["ema"] == 0.999
    labeler = {key: data["labeler"][key] for key in ("use", "scales", "threshold", "strict", "average")}
    assert labeler == {
        "use": "maskmatch", "scales": [1.0, 0.7, 1.5], "threshold": 0.9, "strict": True, "average": "probs",
    }  # fmt: skip
    strong, local = data["terms"]
    assert (strong["view"], strong["mixer"]["use"], strong["scales"]) == ("strong", "cutmix", [1.0, 0.7, 1.5])
    assert (local["view"], local["mixer"]["use"], local["scales"]) == ("weak", "patch-mask", [1.0])
    assert (local["mixer"]["patch"], local["mixer"]["ratio"], local["mixer"]["sampling"]) == (32, 0.7, "random")
    for term in (strong, local):
        assert (term["normalizer"], term["order"], term["weight"]) == ("per_image_kept", "label-then-mix", 1.0)
    assert data["supervised"]["weight"] == 1.0


@pytest.mark.parametrize(
    ("name", "scales", "terms"),
    [
        ("maskmatch-multi-scale", [1.0, 0.7, 1.5], {"multi-scale": [1.0, 0.7, 1.5]}),
        ("maskmatch-local", [1.0], {"weak-to-strong": [1.0], "local-consistency": [1.0]}),
    ],
)
def test_each_part_alone(name: str, scales: list[float], terms: dict[str, list[float]]) -> None:
    data, whole = load(name).resolved(), load("maskmatch").resolved()
    assert data["name"] == name
    assert data["labeler"] == {**whole["labeler"], "scales": scales}
    assert {term["name"]: term["scales"] for term in data["terms"]} == terms
    shared = {term["name"]: term for term in whole["terms"]}
    for term in data["terms"]:
        assert term == {**shared.get(term["name"], term)}
    assert {key: data[key] for key in ("teacher", "supervised", "views")} == {
        key: whole[key] for key in ("teacher", "supervised", "views")
    }


def test_components_are_built_from_a_recipe() -> None:
    recipe = load("maskmatch")
    context = recipe.context()
    assert recipe.labeler(context).options == MaskMatchOptions()
    assert recipe.mixers(context)[1].options == PatchMaskOptions()
