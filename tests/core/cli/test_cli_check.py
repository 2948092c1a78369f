import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from genaug.cli import group
from genaug.registry import Registry

RECIPE: dict[str, Any] = {
    "labels": {"names": {0: "ground", 1: "tree", 2: "car"}, "ignore_index": 255},
    "data": {"images": "images", "masks": "masks"},
    "generator": {"use": "paint"},
}
PLUGIN = """
from genaug import Component, hookimpl
from genaug.config import Options

class PaintOptions(Options):
    strange: str = "error"
    side: int | None = None

    def mask_size(self, look):
        if self.side is None:
            look.note("side", "not said")
            return None
        return lambda size: (self.side, self.side)

    @property
    def ignores_unknown_ids(self):
        return self.strange == "ignore"

@hookimpl
def genaug_components():
    yield Component(
        "generator",
        "paint",
        "check_parts:Paint",
        config="check_plugin:PaintOptions",
        requires=("no_such_module",),
        extra="diffusion",
    )
"""


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


@pytest.fixture
def recipe(write_pairs: Callable[..., Path], install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe file over two sound pairs; its generator exists but its library does not."""
    from importlib import metadata

    install("check-dist", {"check_plugin": PLUGIN}, {"check": "check_plugin"})
    core = metadata.EntryPoint("core", "genaug.sources.plugin", "genaug")
    mine = [e for e in metadata.entry_points(group="genaug") if e.value == "check_plugin"]
    registry = Registry([core, *mine])
    monkeypatch.setattr("genaug.recipe.default_registry", lambda: registry)
    root = write_pairs({"a": mask(0, 0, 0, 1), "b": mask(0, 255, 255, 255)})
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return root / "recipe.yaml"


def check(*arguments: str | Path) -> Any:
    return CliRunner().invoke(group, ["check", *map(str, arguments)])


def test_a_sound_recipe_passes_and_shows_its_classes(recipe: Path) -> None:
    result = check(recipe)
    assert (result.exit_code, result.stderr) == (0, "")
    words = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "data: 2 samples, 2 images, 2 masks; width x height: 4x1 (2)" in words
    assert "0 ground 80.00% 2" in words
    assert "1 tree 20.00% 1" in words
    assert "2 car 0.00% 0 never occurs" in words
    assert "37.50% of all pixels are ignored" in words
    assert "note: generator paint needs no_such_module to run: pip install 'genaug[diffusion]'" in words


def test_json_says_the_same(recipe: Path) -> None:
    report = json.loads(check(recipe, "--json", "name=mine").stdout)
    assert (report["recipe"], report["ok"], report["conditions"]) == ("mine", True, None)
    ground = {"id": 0, "name": "ground", "pixels": 4, "share": 0.8, "masks": 2, "masks_share": 1.0, "strokes": None}
    ground |= {"lost_strokes": None, "lost_masks": None}
    assert report["data"]["classes"][0] == ground
    assert (report["data"]["missing_classes"], report["data"]["ignored_share"]) == ([2], 0.375)
    assert (report["data"]["labelled_share"], report["data"]["sparse"]) == (0.625, False)
    assert report["data"]["sizes"] == {"4x1": 2}


def test_scribbles_are_told_with_their_strokes(recipe: Path) -> None:
    root = recipe.parent
    for name, rows in {"a": [(0, 2), (0, 7), (9, 3)], "b": [(0, 2)]}.items():
        sparse = np.full((10, 10), 255, np.uint8)
        for place, (y, x) in enumerate(rows):
            sparse[y : y + 2, x] = 1 if place == 2 else 0
        Image.fromarray(sparse).save(root / "masks" / f"{name}.png")
        Image.new("RGB", (10, 10)).save(root / "images" / f"{name}.png")
    result = check(recipe)
    words = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "id class pixels share masks of all strokes" in words
    assert "0 ground 6 85.71% 2 100% 3" in words
    assert "1 tree 1 14.29% 1 50% 1" in words
    assert "2 car 0 0.00% 0 0% 0 never occurs" in words
    assert "scribbles: 3.50% of all pixels are labelled, 2.0 strokes a mask" in words
    assert "- scribbles of one class only: 1x: masks/b.png. Beside the other" in " ".join(words)
    assert (result.exit_code, "are ignored" in result.stdout) == (0, False)
    data = json.loads(check(recipe, "--json").stdout)["data"]
    ground = {"id": 0, "name": "ground", "pixels": 6, "share": 6 / 7, "masks": 2, "masks_share": 1.0, "strokes": 3}
    ground |= {"lost_strokes": None, "lost_masks": None}
    assert (data["classes"][0], data["sparse"], data["ignored_share"]) == (ground, True, 0.965)
    assert data["labelled_share"] == pytest.approx(0.035)


def test_strokes_that_the_generator_will_not_see_are_counted(recipe: Path) -> None:
    root = recipe.parent
    for name, columns in {"a": {0: 0, 4: 1, 8: 2}, "b": {1: 0, 5: 0}}.items():
        sparse = np.full((12, 12), 255, np.uint8)
        for column, class_id in columns.items():
            sparse[:4, column] = class_id
        Image.fromarray(sparse).save(root / "masks" / f"{name}.png")
        Image.new("RGB", (12, 12)).save(root / "images" / f"{name}.png")
    assert "note: generator.side: not said" in check(recipe).stdout
    result = check(recipe, "generator.side=3")  # columns 0, 4 and 8
    assert (result.exit_code, "not said" in result.stdout) == (0, False)
    words = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "id class pixels share masks of all strokes lost" in words
    assert "0 ground 12 60.00% 2 100% 3 2" in words
    assert "1 tree 4 20.00% 1 50% 1 0" in words
    assert "lost: of 2 of 5 strokes no pixel is left at the size of the images to make" in words
    assert "left at the size of the images to make: 1x: masks/b.png (ground). They are no labels" in " ".join(words)
    ground, tree, _ = json.loads(check(recipe, "generator.side=3", "--json").stdout)["data"]["classes"]
    assert [(c["lost_strokes"], c["lost_masks"]) for c in (ground, tree)] == [(2, 1), (0, 0)]
    assert "lost:" not in check(recipe, "generator.side=12").stdout
    given = json.loads(check(recipe, "generator.side=3", "conditions={masks: masks}", "--json").stdout)
    assert given["conditions"]["classes"][0]["lost_strokes"] == 2
    assert (
        given["data"]["classes"][0]["lost_strokes"] is None
    )  # the generator says of no labelled sample that it needs it


def test_problems_of_data_and_conditions_are_listed_with_exit_code_1(recipe: Path) -> None:
    root = recipe.parent
    Image.fromarray(mask(0, 9)).save(root / "masks" / "b.png")
    (root / "more").mkdir()
    (root / "more" / "c.png").write_bytes(b"torn")
    for result in (check(recipe, "conditions={masks: more}"), check(recipe, "conditions={masks: more}", "--json")):
        assert result.exit_code == 1
        for told in ("image and mask differ in size", "id 9 is not in the class table", "the file cannot be read"):
            assert told in result.stdout
    report = json.loads(check(recipe, "conditions={masks: more}", "--json").stdout)
    assert (report["ok"], len(report["data"]["problems"]), len(report["conditions"]["problems"])) == (False, 2, 1)


def test_every_file_is_named_on_request_and_in_json(recipe: Path) -> None:
    root = recipe.parent
    for number in range(5):
        Image.new("RGB", (4, 1)).save(root / "images" / f"bare{number}.png")
    bare = [f"images/bare{number}.png" for number in range(5)]
    short, full = check(recipe), check(recipe, "--all")
    assert (short.exit_code, full.exit_code) == (1, 1)
    assert "images without mask: 5x: images/bare0.png, images/bare1.png, images/bare2.png and 2 more." in short.stdout
    assert "All of them: --all." in short.stdout
    lines = full.stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("  - images without mask: 5x. Add the files"))
    assert [line.strip() for line in lines[place + 1 : place + 6]] == bare
    assert "--all" not in full.stdout
    (problem,) = json.loads(check(recipe, "--json").stdout)["data"]["problems"]
    assert (problem["what"], problem["subjects"]) == ("images without mask", bare)
    assert problem["hint"].startswith("Add the files")


def test_data_without_a_labelled_pixel_are_not_called_sound(recipe: Path) -> None:
    for name in "ab":
        Image.fromarray(mask(255, 255, 255, 255)).save(recipe.parent / "masks" / f"{name}.png")
    result = check(recipe)
    assert result.exit_code == 1
    assert "every pixel of every mask is ignored" in result.stdout
    assert "sound" not in result.stdout


def test_unknown_ids_that_the_generator_ignores_are_noted(recipe: Path) -> None:
    Image.fromarray(mask(0, 7, 7, 1)).save(recipe.parent / "masks" / "a.png")
    assert check(recipe).exit_code == 1
    result = check(recipe, "generator.strange=ignore")
    assert result.exit_code == 0
    assert "notes (1):\n  - id 7 is not in the class table: 1x: masks/a.png. Ignored, as the" in result.stdout
    assert "62.50% of all pixels are ignored" in result.stdout
    (note,) = json.loads(check(recipe, "generator.strange=ignore", "--json").stdout)["data"]["notes"]
    assert note["subjects"] == ["masks/a.png"]
    masks_only = check(recipe, "generator.strange=ignore", "conditions={masks: masks}")
    assert masks_only.stdout.count("id 7 is not in the class table") == 2


def test_a_missing_folder_is_a_problem_and_a_wrong_key_an_error(recipe: Path) -> None:
    result = check(recipe, "data.masks=nowhere")
    assert result.exit_code == 1
    assert "the folder of masks nowhere does not exist" in result.stdout
    result = check(recipe, "data.maskz=masks")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "genaug: data.maskz: unknown key. Did you mean 'masks'?\n"
