"""Option models of strangers that fail, or hold what no recipe can: one line that says whose they are, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from genaug.cli import group
from genaug.errors import ConfigError, PluginError, PluginWarning
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext, check_options, load_recipe
from genaug.registry import Registry
from genaug.report.quality import build_sections
from genaug.schema import recipe_schema

ODD = """
import collections.abc
from typing import Any
from pydantic import BaseModel, Field, field_serializer, field_validator, model_serializer
from genaug import Component, hookimpl
from genaug.config import Options

MODELS = ("Anything", "Called", "Made", "Nested", "Text", "Raises", "Divides", "Rings", "Sound", "Named")

@hookimpl
def genaug_components():
    yield Component("generator", "paint", "odd_options:A")
    yield Component("figures", "broken", "odd_options:A", config="odd_options:Raises")
    yield Component("figures", "gone", "odd_options:Gone")
    yield Component("figures", "whole", "odd_options:A")
    for name in MODELS:
        yield Component("filter", name.lower(), "odd_options:A", config=f"odd_options:{name}")

class A: ...
class Anything(Options):
    share: float = 0.5
    score: Any = abs
class Called(Options):
    score: collections.abc.Callable[[int], int] = abs
class Made(Options):
    scores: list[Any] = Field(default_factory=lambda: [1, print])
class Inner(Options):
    score: object = abs
class Nested(Options):
    inner: Inner = Inner()
class Text(BaseModel):
    @model_serializer
    def as_text(self):
        return "text"
class Raises(Options):
    share: float = 0.5
    @field_validator("share")
    def check(cls, value):
        raise TypeError("two\\nlines")
class Divides(Options):
    share: float = Field(default_factory=lambda: 1 / 0)
class Rings(BaseModel):
    ring: Any = None
    def model_post_init(self, context):
        self.ring = [self]
class Sound(Options):
    share: float = 0.5
class Named(Options):
    score: Any = abs
    @field_serializer("score")
    def name(self, value):
        return getattr(value, "__name__", value)
"""
BASE = {"labels": ["a", "b"], "data": {"images": "images", "masks": "masks"}, "generator": {"use": "paint"}}
NO_JSON = r"f: filter '{}' of the plugin 'odd' \(odd-dist 1\.0\) has no JSON form for its option '{}' \("
FAILS = r"f: filter '{}' of the plugin 'odd' \(odd-dist 1\.0\) fails over its options \({}\)"


@pytest.fixture
def registry(install: Callable[..., None]) -> Registry:
    install("odd-dist", {"odd_options": ODD}, {"odd": "odd_options"})
    core = metadata.EntryPoint("core", "genaug.sources.plugin", "genaug")
    return Registry([core, *(e for e in metadata.entry_points(group="genaug") if e.value == "odd_options")])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("anything", NO_JSON.format("anything", "score")),
        ("called", NO_JSON.format("called", "score")),
        ("made", NO_JSON.format("made", "scores")),
        ("nested", NO_JSON.format("nested", "inner")),
        ("rings", NO_JSON.format("rings", "ring")),
        (
            "text",
            r"'text' of the plugin 'odd' \(odd-dist 1\.0\) has options without a JSON form \(TypeError: the model be",
        ),
        ("raises", FAILS.format("raises", "TypeError: two lines")),
        ("divides", FAILS.format("divides", "ZeroDivisionError: division by zero")),
    ],
)
def test_models_that_no_recipe_can_hold(registry: Registry, name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as error:
        check_options(registry, "filter", name, {}, where="f")
    assert "\n" not in str(error.value)
    assert "Its author " in str(error.value)
    assert str(error.value).endswith("GENAUG_DISABLE_PLUGINS=odd does without it.")
    assert error.value.__cause__ is not None  # for who debugs the plugin


def test_other_options_and_other_components_go_on(registry: Registry) -> None:
    assert check_options(registry, "filter", "sound", {"share": 1}, where="f")[0] == {"share": 1.0}
    assert check_options(registry, "filter", "named", {}, where="f")[0] == {"score": "abs"}
    with pytest.raises(ConfigError, match=r"f\.shade: unknown key\. Did you mean 'share'"):
        check_options(registry, "filter", "sound", {"shade": 1}, where="f")
    recipe = {**BASE, "filters": [{"use": "sound"}]}
    assert load_recipe(recipe, registry=registry).resolved()["filters"] == [{"use": "sound", "share": 0.5}]
    with pytest.raises(PluginError, match=r"filters\.1: filter 'anything' of the plugin 'odd'"):
        load_recipe({**recipe, "filters": [{"use": "sound"}, {"use": "anything"}]}, registry=registry)


def test_the_schema_leaves_out_what_no_recipe_can_hold(registry: Registry) -> None:
    with pytest.warns(PluginWarning, match="so the schema leaves it out") as warned:
        schema = recipe_schema(registry)
    assert {"anything", "called", "nested"} <= {str(w.message).split("'")[1] for w in warned}
    assert {"sound", "made"} <= set(schema["$defs"]["filter"]["properties"]["use"]["enum"])


def test_a_report_leaves_out_broken_sections_that_nobody_asked_for(registry: Registry) -> None:
    context = BuildContext(Path(), LabelSpace({0: "a", 1: "b"}), registry)
    with pytest.warns(PluginWarning, match="is left out: ") as warned:
        assert list(build_sections(context, {})) == ["whole"]
    assert [str(w.message).split("'")[1] for w in warned] == ["broken", "gone"]
    assert list(build_sections(context, {}, ["broken", "gone"])) == ["whole"]
    for name in ("broken", "gone"):
        with pytest.raises(PluginError):
            build_sections(context, {name: {}}, [n for n in ("broken", "gone") if n != name])


def test_the_verbs(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path, capsys) -> None:
    from click.testing import CliRunner

    monkeypatch.setattr("genaug.registry.default_registry", lambda: registry)
    for module in ("recipe", "schema", "cli.plugins"):
        monkeypatch.setattr(f"genaug.{module}.default_registry", lambda: registry, raising=False)
    (tmp_path / "r.json").write_text(json.dumps({**BASE, "filters": [{"use": "anything"}]}))
    checked = CliRunner().invoke(group, ["check", str(tmp_path / "r.json")])
    assert "has no JSON form for its option 'score'" in checked.output
    assert checked.exit_code in (1, 2)
    assert isinstance(checked.exception, SystemExit)
    listed = CliRunner().invoke(group, ["plugins"])
    assert listed.exit_code == 0
    assert "anything" in listed.output
