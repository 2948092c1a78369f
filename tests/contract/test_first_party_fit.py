"""What the options of genaug's own components say of the data they need."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genaug.fit import misfits
from genaug.recipe import load_recipe

SOURCES: dict[str, dict[str, Any]] = {
    "pairs": {"images": "images", "masks": "masks"},
    "masks": {"masks": "masks"},
    "images": {"images": "images"},
    "words": {"format": "prompts", "path": "p.jsonl", "size": [8, 9]},
    "scenes": {"format": "class-prompts"},
    "captions": {"format": "captions", "model": "nobody/nothing"},
    "predicted": {"format": "pseudo-masks", "images": "images", "predictor": {"use": "small-unet"}},
    "scribbles": {"format": "scribbles", "source": {"images": "images", "masks": "masks"}},
    "list": {"format": "text-list", "root": ".", "list": "unlabeled.txt"},
}
NET = {"predictor": {"use": "small-unet"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    for name in ("images", "masks"):
        (folder / name).mkdir()
        Image.fromarray(np.zeros((8, 9, 3) if name == "images" else (8, 9), np.uint8)).save(folder / name / "a.png")
    (folder / "p.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a road"}))
    (folder / "unlabeled.txt").write_text("images/a.png None\n")
    return folder


def found(root: Path, generator: dict[str, Any], conditions: str, data: str = "pairs", *filters: Any) -> list[str]:
    """Return the keys that do not fit."""
    table: dict[str, Any] = {
        "labels": {"names": {"0": "road", "1": "car"}},
        "data": SOURCES[data],
        "generator": generator,
        "filters": [{"name": str(number), **each} for number, each in enumerate(filters)],
    }
    if conditions != data:
        table["conditions"] = SOURCES[conditions]
    recipe = load_recipe(table, root=root)
    context = recipe.context()
    problems = misfits(recipe, data=recipe.source(context), conditions=recipe.conditions(context))
    return [problem.partition(":")[0] for problem in problems]


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"use": "matchmask"}, {"pairs", "masks", "predicted", "scribbles"}),
        ({"use": "scribblegen"}, {"pairs", "predicted", "scribbles"}),
        ({"use": "scribblegen", "encode_ratio": 1.0}, {"pairs", "masks", "predicted", "scribbles"}),
        ({"use": "scribblegen", "encode_ratio": 1.0, "leak_at_one": True}, {"pairs", "predicted", "scribbles"}),
        ({"use": "text2image"}, {"words", "scenes", "captions"}),
    ],
)
def test_conditions_of_generators(root: Path, options: dict[str, Any], fits: set[str]) -> None:
    assert {name for name in SOURCES if not found(root, options, name)} == fits


@pytest.mark.parametrize("use", ["matchmask", "scribblegen"])
def test_adapting_needs_labelled_images(root: Path, use: str) -> None:
    for data in ("masks", "images", "list"):
        assert "generator" in found(root, {"use": use}, "pairs", data)
        assert found(root, {"use": use, "adapter": "somewhere"}, "pairs", data) == []
    assert found(root, {"use": "text2image"}, "words", "images") == []


@pytest.mark.parametrize(
    ("options", "unlabeled", "needs"),
    [
        ({"use": "relative", **NET}, False, set()),
        ({"use": "confidence", **NET}, False, set()),
        ({"use": "class-loss", **NET}, False, {"images", "masks"}),
        ({"use": "class-hardness", **NET}, False, {"images", "masks"}),
        ({"use": "class-balanced", "count": 1}, False, set()),
        ({"use": "density"}, False, {"masks"}),
        ({"use": "density", "threshold": 1}, False, set()),
        ({"use": "density", **NET}, True, {"images"}),
        ({"use": "agreement", **NET}, False, {"images", "masks"}),
        ({"use": "agreement", "threshold": 1, **NET}, False, set()),
        ({"use": "fidelity"}, True, {"images"}),
        ({"use": "fidelity", "threshold": 1}, True, set()),
        ({"use": "duplicate"}, True, {"images"}),
        ({"use": "duplicate", "radius": 1}, True, set()),
    ],
)
def test_filters(root: Path, options: dict[str, Any], unlabeled: bool, needs: set[str]) -> None:
    assert found(root, {"use": "text2image"}, "words", "pairs", options) == ([] if unlabeled else ["filters.0"])
    adapted = {"use": "matchmask", "adapter": "somewhere"}
    for data, lacks in (("masks", "images"), ("images", "masks")):
        assert found(root, adapted, "pairs", data, options) == (["filters.0"] if lacks in needs else [])
