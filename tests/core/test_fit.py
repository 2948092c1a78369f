"""Components that do not fit the data or one another are told before anything is made."""

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from genaug.cli import group
from genaug.engine import preview, run
from genaug.errors import ConfigError
from genaug.recipe import Recipe, load_recipe
from genaug.registry import Registry
from genaug.sources.base import Source
from genaug.types import Prompt, Sample

PLUGIN = """
from genaug import Component, Filter, Generator, Sample, Verdict, hookimpl
from genaug.config import Options
from genaug.sources.base import Source
from genaug.types import Prompt
import numpy as np

class PaintOptions(Options):
    needs: str = "mask"
    learns: str = ""
    labels_them: bool = False
    condition_needs = property(lambda self: {part: f"Bring {part}s" for part in self.needs.split()})
    data_needs = property(lambda self: {part: "" for part in self.learns.split()})
    makes_masks = property(lambda self: self.labels_them)

class Paint(Generator):
    def __init__(self, **options):
        pass
    def prepare(self, labels, *, device):
        raise AssertionError("something heavy began")
    def _generate(self, draws):
        return [Sample(d.key, np.zeros((*d.condition.size, 3), np.uint8), d.condition.mask) for d in draws]

class Judge(Filter):
    def __init__(self, **options):
        pass
    def _judge(self, group):
        return [Verdict(True) for _ in group.samples]

class Looker(Judge):
    judges_unlabeled = True

class JudgeOptions(Options):
    judges_unlabeled = property(lambda self: False)

class LookerOptions(Options):
    judges_unlabeled = property(lambda self: True)
    data_needs = property(lambda self: {"image": "Give a threshold"})

class Words(Source):
    def ids(self):
        return ["a", "b"]
    def load(self, sample_id):
        return Sample(sample_id, prompt=Prompt("a car", (4, 5)))

@hookimpl
def genaug_components():
    yield Component("generator", "paint", "fit_plugin:Paint", "fit_plugin:PaintOptions")
    yield Component("filter", "judge", "fit_plugin:Judge", "fit_plugin:JudgeOptions")
    yield Component("filter", "silent-judge", "fit_plugin:Judge")
    yield Component("filter", "looker", "fit_plugin:Looker", "fit_plugin:LookerOptions")
    yield Component("source", "words", "fit_plugin:Words")
"""
BOTH = {"images": "images", "masks": "masks"}
WORDS = {"conditions": {"format": "words"}, "generator": {"use": "paint", "needs": "prompt"}}


@pytest.fixture
def project(write_pairs: Callable[..., Path], install: Callable[..., None], monkeypatch: Any) -> Callable[..., Recipe]:
    """Return a function that makes a recipe, and writes it to ``recipe.json``."""
    install("fit-dist", {"fit_plugin": PLUGIN}, {"fit": "fit_plugin"})
    core = metadata.EntryPoint("core", "genaug.sources.plugin", "genaug")
    registry = Registry([core, *(e for e in metadata.entry_points(group="genaug") if e.value == "fit_plugin")])
    monkeypatch.setattr("genaug.recipe.default_registry", lambda: registry)
    root = write_pairs({name: np.array([[0, 1, 1]], np.uint8) for name in ("a", "b")})

    def make(**keys: Any) -> Recipe:
        table = {"labels": {"names": {"0": "road", "1": "car"}}, "data": BOTH, "generator": {"use": "paint"}, **keys}
        (root / "recipe.json").write_text(json.dumps(table))
        return load_recipe(root / "recipe.json")

    return make


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, []),
        (WORDS, []),
        ({"generator": {"use": "paint", "needs": "prompt"}},
         ["generator: the conditions have no prompts. Allowed: conditions with prompts. Bring prompts."]),
        ({"conditions": {"format": "words"}},
         ["generator: the conditions have no masks. Allowed: conditions with masks. Bring masks."]),
        ({"conditions": {"masks": "masks"}, "generator": {"use": "paint", "needs": "image mask"}},
         ["generator: the conditions have no images. Allowed: conditions with images and masks. Bring images."]),
        ({"conditions": {"format": "words"}, "generator": {"use": "paint", "needs": "image mask"}},
         ["generator: the conditions have no images and no masks. Allowed: conditions with images and masks. "
          "Bring images."]),
        ({**WORDS, "generator": {"use": "paint", "needs": "prompt", "learns": "image mask"}}, []),
        ({**WORDS, "data": {"masks": "masks"},
          "generator": {"use": "paint", "needs": "prompt", "learns": "image mask"}, "filters": [{"use": "looker"}]},
         ["generator: the labelled samples have no images. Allowed: labelled samples with images and masks.",
          "filters.0: the labelled samples have no images. Allowed: labelled samples with images. Give a threshold."]),
        ({"filters": [{"use": "judge"}, {"use": "looker"}]}, []),
        ({**WORDS, "filters": [{"use": "looker"}, {"use": "judge"}]},
         ["filters.1: the filter judges by masks, which the samples will not have, since their conditions have none. "
          "Allowed: filters that judge by the image alone. Leave it out."]),
        ({**WORDS, "filters": [{"use": "judge"}],
          "generator": {"use": "paint", "needs": "prompt", "labels_them": True}}, []),
    ],
)  # fmt: skip
def test_everything_that_does_not_fit_is_told(project: Callable[..., Recipe], keys: Any, told: list[str]) -> None:
    recipe = project(**keys)
    path = str(recipe.root / "recipe.json")
    done = CliRunner().invoke(group, ["check", path, "--json"])
    report = json.loads(done.stdout)
    assert report["misfits"] == told
    assert (done.exit_code, report["ok"]) == ((2, False) if told else (0, True))
    for verb in (["run"], ["run", "--dry-run"], ["generate", "--dry-run"], ["generate"], ["adapt"])[: 5 if told else 0]:
        done = CliRunner().invoke(group, [*verb, path, "--device", "cpu"])
        assert done.exit_code == 2
        assert all(problem in done.stderr for problem in told)
    assert not recipe.output.exists()
    if not told:
        assert preview(recipe, device="cpu")["samples"] == 2
        with pytest.raises(AssertionError, match="something heavy began"):
            run(recipe, device="cpu")


def test_the_terminal_lists_them(project: Callable[..., Recipe]) -> None:
    recipe = project(conditions={"format": "words"}, filters=[{"use": "judge"}])
    lines = CliRunner().invoke(group, ["check", str(recipe.root / "recipe.json")]).stdout.splitlines()
    assert "parts that do not fit (2):" in lines
    assert lines[-1] == "There are problems; genaug changes no file."


def test_filters_whose_options_say_nothing_are_asked_by_runs(project: Callable[..., Recipe]) -> None:
    recipe = project(**WORDS, filters=[{"use": "silent-judge"}])
    assert CliRunner().invoke(group, ["check", str(recipe.root / "recipe.json")]).exit_code == 0
    for call in (preview, run):
        with pytest.raises(ConfigError, match=r"filters\.0: the filter judges by masks"):
            call(recipe, device="cpu")
    assert not recipe.output.exists()
    preview(project(filters=[{"use": "silent-judge"}]), device="cpu")


class Counted(Source):
    def ids(self) -> list[str]:
        return ["a", "b"]

    def load(self, sample_id: str) -> Sample:
        assert sample_id == "a"
        return Sample(sample_id, mask=np.zeros((2, 2), np.uint8))


class Outlined(Counted):
    def outline(self, sample_id: str) -> Sample:
        return Sample(sample_id, prompt=Prompt("later", (2, 2)))


def test_what_sources_say_of_their_samples() -> None:
    assert Counted().parts() == ["mask"]
    assert Outlined().parts() is None
