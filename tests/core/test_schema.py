"""The JSON schema of recipes: it takes what `load_recipe` takes, and marks what people mistype."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata, resources
from typing import Any

import jsonschema
import pytest

from genaug import Component
from genaug.config import merge, parse
from genaug.errors import PluginWarning
from genaug.recipe import load_recipe
from genaug.registry import GROUP, Registry, default_registry
from genaug.schema import recipe_schema

RECIPES = default_registry().names("recipe")


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_are_valid_as_written_and_as_resolved(validator: Any, name: str) -> None:
    package, _, inside = default_registry().recipe_path(name).partition(":")
    written = parse(resources.files(package).joinpath(inside).read_text("utf-8"), ".yaml", where=name)
    # Class table and data are what every user of a ready recipe adds.
    validator.validate({"labels": "voc21", **written})
    data = {"images": "i", "masks": "m"}
    resolved = load_recipe(merge({"extends": name}, {"labels": "voc21", "data": data})).resolved()
    validator.validate(json.loads(json.dumps(resolved)))


def recipe(**keys: Any) -> dict[str, Any]:
    return {"labels": {"1": "road"}, "data": {"images": "i", "masks": "m"}, **keys}


def messages(errors: Iterable[Any]) -> Iterator[str]:
    for error in errors:
        yield error.message
        yield from messages(error.context)  # why none of several alternatives fits


@pytest.mark.parametrize(
    ("keys", "marked"),
    [
        ({"sed": 1}, "sed"),
        ({"seed": -1}, "-1"),
        ({"extends": "matchmusk"}, "matchmusk"),
        ({"generator": {"use": "matchmusk"}}, "matchmusk"),
        ({"generator": {"use": "matchmask", "stepz": 3}}, "stepz"),
        ({"generator": {"use": "matchmask", "images_per_mask": 0}}, "0 is less"),
        ({"filters": [{"use": "relative"}]}, "predictor"),
        ({"filters": [{"predictor": "p"}]}, "use"),
        ({"filters": [{"use": "relative", "predictor": {"use": "exported", "pth": "x"}}]}, "pth"),
        ({"conditions": {"format": "pseudo-masks", "imags": "u"}}, "imags"),
        ({"labeler": {"use": "sense"}, "terms": [{"mixer": {"use": "classmix", "ratio": 1}}]}, "ratio"),
    ],
)
def test_mistakes_are_marked(validator: Any, keys: dict[str, Any], marked: str) -> None:
    found = list(messages(validator.iter_errors(recipe(**keys))))
    assert any(marked in message for message in found), found


def test_what_is_right_is_not_marked(validator: Any) -> None:
    validator.validate(recipe(generator={"use": "matchmask"}, filters=[{"use": "relative", "predictor": "runs/x"}]))
    # The extended recipe says the rest: neither labels nor the name of the generator have to be repeated.
    validator.validate({"extends": "matchmask", "generator": {"base": "some/base"}})
    validator.validate({"labels": ["a", "b"]})
    assert [e.message for e in validator.iter_errors({})] == ["'labels' is a required property"]


def test_every_component_is_described_with_every_option() -> None:
    schema, registry = recipe_schema(), default_registry()
    for kind in ("generator", "filter", "labeler", "mixer", "source", "predictor"):
        for name in registry.names(kind):
            model = registry.config_model(registry.component(kind, name))
            options = set(model.model_fields) if model else set()
            key = "format" if kind == "source" else "use"
            assert set(schema["$defs"][f"{kind}.{name}"]["properties"]) - {"name"} == {key, *options} - {"name"}
            for option in options:
                assert schema["$defs"][f"{kind}.{name}"]["properties"][option]["description"]


def test_a_component_whose_options_cannot_be_imported_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    name = registry.names("mixer")[0]
    broken = Component("mixer", name, "nowhere:Mixer", config="nowhere.config:Options")
    known = registry.component
    monkeypatch.setattr(
        registry, "component", lambda kind, n, **k: broken if (kind, n) == ("mixer", name) else known(kind, n, **k)
    )
    with pytest.warns(PluginWarning, match=f"options of mixer '{name}' cannot be described.*nowhere"):
        schema = recipe_schema(registry)
    assert schema["$defs"]["mixer"]["properties"]["use"]["enum"] == registry.names("mixer")[1:]


ODD = """
from collections.abc import Callable
from pydantic import BaseModel
from genaug import Component, hookimpl

@hookimpl
def genaug_components():
    for name in ("Open", "Plain", "Calls", "RecipeConfig"):
        yield Component("filter", name.lower(), "odd_plugin:A", config=f"odd_plugin:{name}")

class Open(BaseModel):
    of: "Nowhere"
class Plain: ...
class Calls(BaseModel):
    what: Callable[[int], int] = abs
class RecipeConfig(BaseModel):
    share: float = 0.5
"""


def test_models_that_cannot_be_described_harm_no_other(install: Callable[..., None]) -> None:
    install("odd-dist", {"odd_plugin": ODD}, {"odd": "odd_plugin"})
    found = [e for e in metadata.entry_points(group=GROUP) if e.dist and (e.dist.name, e.name) == ("odd-dist", "odd")]
    with pytest.warns(PluginWarning, match="cannot be described") as warned:
        schema = recipe_schema(Registry(found))
    assert [w.message.args[0].split("'")[1] for w in warned] == ["calls", "open", "plain"]  # type: ignore[union-attr]
    assert schema["$defs"]["filter"]["properties"]["use"]["enum"] == ["recipeconfig"]
    assert set(schema["$defs"]["filter.recipeconfig"]["properties"]) == {"use", "name", "share"}
    assert schema["properties"]["filters"]["items"] == {"$ref": "#/$defs/filter"}  # a namesake of the recipe's model


def test_the_verb_prints_it_without_heavy_imports() -> None:
    code = (
        "import sys\nfrom genaug.cli import group\n"
        "group.main(['schema', '--json'], standalone_mode=False)\n"
        "assert not {'torch', 'numpy', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(recipe_schema()))
