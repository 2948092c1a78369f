import datetime
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from genaug.config import Options, RecipeConfig, merge, override, parse, plain, read_recipe, validate
from genaug.errors import ConfigError, PluginError, UnknownComponentError
from genaug.registry import Registry

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=8
)
tables = st.dictionaries(st.text(), values, max_size=4)


# ---------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "seed: 7\nlabels: {1: road}\n"),
        (".toml", 'seed = 7\n[labels]\n1 = "road"\n'),
        (".json", '{"seed": 7, "labels": {"1": "road"}}'),
    ],
)
def test_three_formats_say_the_same(suffix: str, text: str) -> None:
    assert parse(text, suffix, where="r") == {"seed": 7, "labels": {"1": "road"}}


@given(tables)
def test_json_comes_back_as_it_was(table: dict[str, Any]) -> None:
    assert parse(json.dumps(table), ".json", where="r") == table == plain(table, where="r")


@pytest.mark.parametrize(
    ("suffix", "text", "told"),
    [
        (".yaml", "a: 1\nb: 2\na: 3\n", r"r, line 3: key 'a' appears twice"),
        (".yaml", "x:\n  a: 1\n  a: 2\n", r"r, line 3: key 'a' appears twice"),
        (".yaml", "labels: {1: a, '1': b}\n", r"r: labels: key '1' appears twice"),
        (".yaml", "? [a, b]\n: 1\n", r"r, line 1: a list or table as a key"),
        (".yaml", "a: [1\nb: 2\n", r"r, line 2, column 2: cannot be parsed"),
        (".yaml", "a: !!python/object:os.system {}\n", r"r, line 1, column 4: cannot be parsed"),
        (".yaml", "- a\n", r"r: holds a list\. Allowed: a table of recipe keys"),
        (".yaml", "", r"r: holds a NoneType"),
        (".yaml", "a: !!binary aGk=\n", r"r: a: a bytes\. Allowed: text, numbers"),
        (".toml", "a = \n", r"r: cannot be parsed"),
        (".json", "{", r"r: cannot be parsed"),
    ],
)
def test_unreadable_recipes_say_where(suffix: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse(text, suffix, where="r")
    assert "\n" not in str(error.value)


def test_yaml_anchors_merge_and_own_keys_win() -> None:
    text = "base: &b {steps: 20, scale: 2}\nother: {<<: *b, scale: 3}\n"
    assert parse(text, ".yaml", where="r")["other"] == {"steps": 20, "scale": 3}


def test_dates_and_paths_become_text_and_objects_are_refused() -> None:
    assert parse("name: 2024-01-31\n", ".yaml", where="r") == {"name": "2024-01-31"}
    assert plain({1: Path("a/b"), "t": (datetime.date(2024, 1, 31),)}, where="r") == {"1": "a/b", "t": ["2024-01-31"]}
    with pytest.raises(ConfigError, match=r"r: deep: x: a object"):
        plain({"deep": {"x": object()}}, where="r")


# ---------------------------------------------------------------------- merging and overriding


def test_tables_of_one_component_merge_and_another_component_replaces() -> None:
    base = {"generator": {"use": "a", "steps": 1, "train": {"lr": 1, "n": 2}}, "filters": [1], "labels": {"0": "x"}}
    assert merge(base, {"generator": {"train": {"lr": 5}}})["generator"]["train"] == {"lr": 5, "n": 2}
    assert merge(base, {"generator": {"use": "b", "k": 1}})["generator"] == {"use": "b", "k": 1}
    assert merge(base, {"filters": []})["filters"] == []
    assert merge(base, {"labels": {"1": "y"}})["labels"] == {"1": "y"}
    assert merge({"data": {"format": "folder", "images": "a"}}, {"data": {"format": "hub", "repo": "b"}}) == {
        "data": {"format": "hub", "repo": "b"}
    }


@given(tables, tables)
def test_merging_changes_neither_table(base: dict[str, Any], top: dict[str, Any]) -> None:
    before = json.dumps([base, top])
    merged = merge(base, top)
    assert json.dumps([base, top]) == before
    assert set(merged) == {*base, *top}
    assert merge(base, {}) == base


def test_overrides_are_yaml_and_reach_into_lists() -> None:
    data = {"generator": {"use": "a"}, "filters": [{"use": "x"}, {"use": "y"}]}
    changed = override(
        data,
        [
            "generator.training.lr=1e-4",
            "generator.on=true",
            "filters.1.predictor={use: p}",
            "name=a=b",
            "seed=",
            "x.y=[1]",
        ],
    )
    assert changed["generator"] == {"use": "a", "training": {"lr": "1e-4"}, "on": True}
    assert changed["filters"] == [{"use": "x"}, {"use": "y", "predictor": {"use": "p"}}]
    assert (changed["name"], changed["seed"], changed["x"]) == ("a=b", None, {"y": [1]})
    assert data == {"generator": {"use": "a"}, "filters": [{"use": "x"}, {"use": "y"}]}


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("generator", r"command line: 'generator'\. Allowed: key=value"),
        ("=3", "command line: '=3'"),
        ("filters.2.use=x", r"item '2' of a list\. Allowed: a number in 0\.\.1"),
        ("filters.x=1", "item 'x' of a list"),
        ("seed.deep=1", "goes below a plain value"),
        ("seed=[1", r"the value of 'seed=\[1' is no YAML\. Quote text"),
    ],
)
def test_wrong_overrides_are_refused(assignment: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        override({"seed": 1, "filters": [{}, {}]}, [assignment])


# ---------------------------------------------------------------------- validating


class Inner(Options):
    rate: float = Field(1e-3, gt=0)


class Outer(Options):
    steps: int = Field(20, ge=1)
    inner: Inner = Field(default_factory=Inner)
    parts: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    name: str = Field(description="Who it is.")


def test_numbers_written_as_yaml_reads_them_are_numbers() -> None:
    # YAML 1.1 reads 1e-4 as text; a recipe's author means the number.
    options = validate(Outer, parse("name: a\ninner: {rate: 1e-4}\n", ".yaml", where="r"))
    assert math.isclose(options.inner.rate, 0.0001)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({}, "generator.name: is missing. Who it is."),
        ({"name": "a", "stepz": 1}, "generator.stepz: unknown key. Did you mean 'steps'?"),
        ({"name": "a", "inner": {"rat": 1}}, "generator.inner.rat: unknown key. Did you mean 'rate'?"),
        ({"name": "a", "parts": [{}, {"rat": 1}]}, "generator.parts.1.rat: unknown key. Did you mean 'rate'?"),
        ({"name": "a", "maybe": {"rat": 1}}, "generator.maybe.rat: unknown key. Did you mean 'rate'?"),
        ({"name": "a", "inner": "x"}, "generator.inner: found 'x' where a table of keys belongs."),
        ({"name": "a", "steps": "many"}, "generator.steps: Input should be a valid integer"),
        ("text", "generator: found 'text' where a table of keys belongs."),
    ],
)
def test_wrong_options_are_named_by_their_whole_key(data: Any, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(Outer, data, where="generator")
    assert str(error.value).startswith(told)


def test_all_wrong_keys_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        validate(RecipeConfig, {"seed": -1, "generater": {}})
    for told in (
        "seed: Input should be greater than or equal to 0 (found -1)",
        "labels: is missing",
        "Did you mean 'gen",
    ):
        assert told in str(error.value)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"generator": {"use": "x"}}, "'data' is missing, which 'generator' needs"),
        ({"data": {}, "filters": [{"use": "x"}]}, "'generator' is missing, which 'filters' needs"),
        ({"data": {}, "conditions": {}}, "'generator' is missing, which 'conditions' needs"),
        ({"terms": [{}]}, "'labeler' is missing, which 'terms' needs"),
    ],
)
def test_a_part_that_another_needs_is_asked_for(table: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate(RecipeConfig, {"labels": "voc21", **table})


# ---------------------------------------------------------------------- ready recipes


def recipes(registry_install: Any, files: dict[str, str]) -> Registry:
    from importlib import metadata

    text = "from genaug import hookimpl\n@hookimpl\ndef genaug_recipes():\n    return {"
    text += ", ".join(f"{name!r}: 'recipe_files:{name}.yaml'" for name in files) + "}\n"
    registry_install("recipe-dist", {"recipe_files_plugin": text}, {"recipes": "recipe_files_plugin"})
    return Registry([e for e in metadata.entry_points(group="genaug") if e.value == "recipe_files_plugin"])


@pytest.fixture
def ready(install: Any, tmp_path: Path) -> Registry:
    package = tmp_path / "site" / "recipe_files"
    package.mkdir()
    (package / "__init__.py").write_text("")
    files = {
        "parent": "seed: 1\ngenerator: {use: g, steps: 2}\n",
        "child": "extends: parent\ngenerator: {steps: 3}\n",
        "round": "extends: again\n",
        "again": "extends: round\n",
    }
    for name, text in files.items():
        (package / f"{name}.yaml").write_text(text)
    return recipes(install, {**files, "gone": ""})


def test_recipes_extend_recipes(ready: Registry, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "child"\nname = "mine"\n')
    data, root = read_recipe(mine, ready)
    assert (data, root) == ({"name": "mine", "seed": 1, "generator": {"use": "g", "steps": 3}}, tmp_path)
    assert read_recipe("child", ready) == ({"seed": 1, "generator": {"use": "g", "steps": 3}}, Path())
    assert read_recipe({"extends": "parent", "seed": 5}, ready)[0]["seed"] == 5


def test_wrong_ready_recipes(ready: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="round extends again extends round"):
        read_recipe("round", ready)
    with pytest.raises(PluginError, match=r"recipe gone: its file recipe_files:gone\.yaml cannot be read"):
        read_recipe("gone", ready)
    with pytest.raises(UnknownComponentError, match=r"no recipe is called 'chld'\. Did you mean 'child'\?"):
        read_recipe("chld", ready)
    with pytest.raises(ConfigError, match="extends: 3"):
        read_recipe({"extends": 3}, ready)
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        read_recipe("nowhere.yaml", ready)
    with pytest.raises(ConfigError, match=r"is no recipe\. Allowed: a \.yaml"):
        read_recipe(tmp_path / "folder" / "recipe", ready)
