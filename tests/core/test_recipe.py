import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genaug.errors import ConfigError, UnknownComponentError
from genaug.recipe import Recipe, canonical_json, digest, load_recipe
from genaug.registry import Registry

PLUGIN = """
from genaug import Component, hookimpl

@hookimpl
def genaug_components():
    yield Component("generator", "paint", "paint_parts:Paint", config="paint_options:PaintOptions")
    yield Component("generator", "plain", "paint_parts:Plain")
    yield Component("filter", "judge", "paint_parts:Judge", config="paint_options:JudgeOptions")
    yield Component("predictor", "guess", "paint_parts:Guess", config="paint_options:GuessOptions")
"""

OPTIONS = """
from typing import Any
from genaug.config import Options

class PaintOptions(Options):
    steps: int = 20
    rate: float = 1e-3

class JudgeOptions(Options):
    predictor: str | dict[str, Any]
    threshold: float = 0.5

class GuessOptions(Options):
    width: int = 8
"""

PARTS = """
from genaug import Filter, Generator

class Paint(Generator):
    def __init__(self, steps, rate):
        self.steps, self.rate = steps, rate
    def _generate(self, draws):
        return [None for _ in draws]

class Plain(Paint):
    def __init__(self):
        super().__init__(1, 1.0)

class Judge(Filter):
    def __init__(self, predictor):
        self.predictor = predictor
    @classmethod
    def from_config(cls, options, context):
        return cls(context.predictor(options.predictor, where="judge"))
    def _judge(self, group):
        return []

class Guess:
    needs_adapting = True
    def __init__(self, width):
        self.width = width
    def __call__(self, images): ...
    def adapted(self, folder): ...
    def adapt(self, samples, folder, *, labels, rng): ...
    def load_adapted(self, folder): ...
"""

BASE: dict[str, Any] = {
    "labels": {"names": {"0": "a", "1": "b"}, "ignore_index": 255},
    "data": {"images": "images", "masks": "masks"},
    "generator": {"use": "paint"},
    "filters": [{"use": "judge", "predictor": {"use": "guess", "width": 4}}],
}


@pytest.fixture
def registry(install: Callable[..., None]) -> Registry:
    modules = {"paint_plugin": PLUGIN, "paint_options": OPTIONS, "paint_parts": PARTS}
    install("paint-dist", modules, {"paint": "paint_plugin"})
    core = metadata.EntryPoint("core", "genaug.sources.plugin", "genaug")
    return Registry([core, *(e for e in metadata.entry_points(group="genaug") if e.value == "paint_plugin")])


def test_loading_validates_every_option_and_imports_no_component(registry: Registry) -> None:
    recipe = load_recipe(BASE, ["generator.rate=1e-4"], registry=registry)
    assert recipe.resolved()["generator"] == {"use": "paint", "steps": 20, "rate": 0.0001}
    assert recipe.resolved()["data"]["mask_suffix"] == ".png"
    assert "paint_parts" not in sys.modules


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        (["generator.stepz=1"], ConfigError, r"generator\.stepz: unknown key\. Did you mean 'steps'\?"),
        (["filters.0.treshold=1"], ConfigError, r"filters\.0\.treshold: unknown key\. Did you mean 'threshold'\?"),
        (["data.image=x"], ConfigError, r"data\.image: unknown key\. Did you mean 'images'\?"),
        (["data={}"], ConfigError, r"data: name a folder of images, of masks, or both"),
        (["conditions={masks: m, recursiv: 1}"], ConfigError, r"conditions\.recursiv: unknown key"),
        (["generator.use=pain"], UnknownComponentError, r"generator: no generator is called 'pain'\. Did you mean"),
        (["data.format=foldr"], UnknownComponentError, r"data: no source is called 'foldr'"),
        (
            ["generator.use=plain", "generator.steps=1"],
            ConfigError,
            r"unknown key 'steps'\. Allowed: plain takes no options",
        ),
        (
            ["filters.0.predictor.use=gess"],
            UnknownComponentError,
            r"filters\.0\.predictor: no predictor is called 'gess'",
        ),
        (
            ["filters.0.predictor.widht=3"],
            ConfigError,
            r"filters\.0\.predictor\.widht: unknown key\. Did you mean 'width'",
        ),
        (["labels=vok21"], ConfigError, r"labels: no class table is called 'vok21'"),
        (["seeed=1"], ConfigError, r"seeed: unknown key\. Did you mean 'seed'\?"),
        (["name=a b"], ConfigError, r"name: .*\(found 'a b'\)"),
        (["generator=paint"], ConfigError, r"generator: found 'paint' where a table of keys belongs"),
    ],
)
def test_every_wrong_key_is_told_by_its_place(
    registry: Registry, overrides: list[str], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        load_recipe(BASE, overrides, registry=registry)


def test_two_filters_need_two_names(registry: Registry) -> None:
    two = {**BASE, "filters": BASE["filters"] * 2}
    with pytest.raises(ConfigError, match="two filters are called 'judge'"):
        load_recipe(two, registry=registry)
    named = load_recipe(two, ["filters.1.name=strict"], registry=registry)
    assert [part.label for part in named.config.filters] == ["judge", "strict"]


def test_paths_belong_to_the_recipe_file(registry: Registry, tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    write_pairs({"one": np.zeros((2, 3), np.uint8)})
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(BASE))
    recipe = load_recipe(file, registry=registry)
    assert (recipe.root, recipe.output) == (tmp_path, tmp_path / "synthetic")
    assert recipe.source().ids() == ("one",)
    assert recipe.context().path("~/x") == Path("~/x").expanduser()
    assert load_recipe(file, ["output=/somewhere"], registry=registry).output == Path("/somewhere")


def test_the_resolved_recipe_loads_again_and_means_the_same(registry: Registry, tmp_path: Path) -> None:
    recipe = load_recipe({**BASE, "conditions": {"masks": "more"}, "seed": 3}, registry=registry)
    again = load_recipe(json.loads(json.dumps(recipe.resolved())), registry=registry)
    assert again.resolved() == recipe.resolved()
    assert again.samples_hash() == recipe.samples_hash()


def test_the_hash_covers_what_decides_samples_and_nothing_else(registry: Registry) -> None:
    def hashed(*overrides: str) -> str:
        return load_recipe(BASE, overrides, registry=registry).samples_hash()

    same = hashed()
    assert hashed("generator.steps=20") == hashed("filters=[]") == hashed("output=x") == hashed("name=n") == same
    changes = ["generator.steps=21", "seed=1", "labels.names.1=c", "data.masks=m", "conditions={masks: masks}"]
    assert len({same, *map(hashed, changes)}) == len(changes) + 1


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": 1, "a": [1.0, "ü"]}) == '{"a":[1.0,"ü"],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert len(digest(0)) == 16


def test_equal_components_are_built_once_and_learners_are_remembered(registry: Registry) -> None:
    more = [*BASE["filters"], {**BASE["filters"][0], "name": "other", "threshold": 0.9}]
    recipe: Recipe = load_recipe({**BASE, "filters": more}, registry=registry)
    context = recipe.context()
    first, second = (part for _, part in recipe.filters(context))
    assert first is not second
    assert first.predictor is second.predictor  # type: ignore[attr-defined]
    assert recipe.generator(context) is recipe.generator(context)
    ((folder, learner),) = context.adaptables
    assert learner is first.predictor  # type: ignore[attr-defined]
    assert folder.startswith("guess-")
    assert recipe.context().adaptables == []


def test_predictors_come_from_a_path_or_a_name(registry: Registry, tmp_path: Path) -> None:
    context = load_recipe(BASE, root=tmp_path, registry=registry).context()
    with pytest.raises(ConfigError, match=r"f: .*nowhere does not exist\. Allowed: a transformers model folder"):
        context.predictor("nowhere", where="f")
    with pytest.raises(ConfigError, match="f: no key 'use'"):
        context.predictor({"width": 3}, where="f")
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(ConfigError, match="is no predictor"):
        context.predictor("mine", where="f")
    (folder / "config.json").write_text("{}")
    with pytest.raises(UnknownComponentError, match="no predictor is called 'transformers'"):
        context.predictor("mine", where="f")


def test_options_are_checked_without_numpy_pillow_or_torch() -> None:
    code = (
        "import sys; from importlib.metadata import EntryPoint; from genaug.recipe import Registry; "
        "r = Registry([EntryPoint('core', 'genaug.sources.plugin', 'genaug')]); "
        "r.config_model(r.component('source', 'folder')); "
        "print(sorted({'torch', 'numpy', 'PIL', 'diffusers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
