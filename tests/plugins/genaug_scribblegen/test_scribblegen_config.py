"""Options: the published defaults, contradictions, and models that are looked for without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from genaug.cli.check import inspect
from genaug.errors import ConfigError
from genaug.models import check_models
from genaug.recipe import load_recipe
from genaug_diffusion.testing import make_pipeline
from genaug_scribblegen.adapter_files import NULL
from genaug_scribblegen.checkpoint import save_adapter
from genaug_scribblegen.codec import make_codec
from genaug_scribblegen.config import ScribbleGenOptions

GIVEN = ["labels={1: dog, 4: cat}", "data.images=images", "data.masks=masks"]


def recipe(**options: Any) -> dict[str, Any]:
    return {
        "labels": {1: "dog", 4: "cat"},
        "data": {"images": "images", "masks": "masks"},
        "generator": {"use": "scribblegen", "base": "genaug-tiny", **options},
    }


def test_the_ready_recipe_and_the_defaults_are_the_published_ones() -> None:
    generator = load_recipe("scribblegen", GIVEN).resolved()["generator"]
    assert generator["base"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert generator["encode_ratio"] == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert (generator["steps"], generator["guidance_scale"], generator["hint"]) == (50, 2.0, "rgb")
    assert (generator["grid"], generator["leak_at_one"], generator["null_learned"]) == ("paper", False, True)
    training = generator["training"]
    assert (training["batch_size"], training["learning_rate"], training["scribble_dropout"]) == (16, 1e-4, 0.1)
    assert (training["flip_probability"], training["schedule"]) == (0.0, "constant")
    assert training["steps"] == 132_400
    assert -(-10_582 // 16) * 200 == 132_400  # 200 epochs of 662 steps


def test_speed_does_not_make_another_recipe_of_it() -> None:
    plain = load_recipe("scribblegen", GIVEN).samples_hash()
    for same in ("generator.batch_size=1", "generator.training.micro_batch_size=1", "output=x"):
        assert load_recipe("scribblegen", [*GIVEN, same]).samples_hash() == plain
    for other in ("generator.guidance_scale=3", "generator.encode_ratio=0.4", "generator.steps_mode=scaled"):
        assert load_recipe("scribblegen", [*GIVEN, other]).samples_hash() != plain


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"encode_ratio": 0}, "0 would only reconstruct the real image"),
        ({"encode_ratio": [0.0, 0.5]}, "0 would only reconstruct the real image"),
        ({"encode_ratio": 1.1}, "less than or equal to 1"),
        ({"encode_ratio": []}, "no encode ratio"),
        ({"encode_ratio": [0.7, 0.5]}, "do not ascend"),
        ({"encode_ratio": [0.5, 0.5]}, "do not ascend"),
        ({"encode_ratio": 0.5, "leak_at_one": True}, "which encode_ratio does not have"),
        ({"training": {"scribble_dropout": 0}}, "nothing else teaches the null condition"),
        ({"controlnet": "a/b", "adapter": "adapter"}, "with an adapter nothing is adapted"),
        ({"controlnet": "a/b", "training": {"hint_init": "scaled"}}, "would change what the named controlnet"),
        ({"training": {"batch_size": 2, "micro_batch_size": 3}}, "larger than training.batch_size"),
        ({"guidance_scale": 0.5}, "greater than or equal to 1"),
        ({"guidance": 2}, "guidance"),
        ({"steps": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused_before_anything_starts(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_models(load_recipe(recipe(**options)))


def test_a_controlnet_is_looked_for_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, told in (("empty", "has no ControlNet"), ("./nowhere", "neither a folder nor a Hub id")):
        look = check_models(load_recipe(recipe(controlnet=name), root=tmp_path), ["generator"])
        assert [told in problem for problem in look.problems] == [True]
    look = check_models(load_recipe(recipe(controlnet="someone/controlnet"), root=tmp_path), ["generator"])
    assert not look.problems
    assert ["generator.controlnet: 'someone/controlnet' is no folder" in note for note in look.notes] == [True]


def test_levels_and_what_they_need() -> None:
    assert ScribbleGenOptions(encode_ratio=0.4).levels == (0.4,)
    assert ScribbleGenOptions(encode_ratio=1).levels == (1.0,)
    assert list(ScribbleGenOptions().condition_needs) == ["image", "mask"]
    assert list(ScribbleGenOptions(encode_ratio=1).condition_needs) == ["mask"]
    assert list(ScribbleGenOptions(encode_ratio=1, leak_at_one=True).condition_needs) == ["image", "mask"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.full((8, 8), 4, np.uint8)).save(tmp_path / "masks" / "a.png")
    return tmp_path


def test_models_are_looked_for(root, make_network) -> None:
    def problems(**options: Any) -> list[str]:
        return check_models(load_recipe(recipe(**options), root=root)).problems

    assert problems() == []
    assert "generator.base" in problems(base="no/such/base")[0]
    assert "does not exist" in problems(adapter="nowhere")[0]
    labels = load_recipe(recipe(), root=root).labels
    about = {
        "labels": labels.to_dict(), "hint": make_codec("rgb", labels).describe(), "null_shape": "spatial",
        "training": {"samples": 1, "steps": 1},
    }  # fmt: skip
    save_adapter(make_network(make_pipeline()), root / "adapter", base="x", revision=None, about=about)
    assert problems(adapter="adapter") == []
    (root / "adapter" / NULL).write_bytes(b"")
    (found,) = problems(adapter="adapter")
    assert "null_condition.safetensors: damaged" in found
    assert "name another adapter" in found
    (root / "adapter" / NULL).unlink()
    assert f"has no {NULL}" in problems(adapter="adapter")[0]


def test_the_size_of_masks_is_that_of_the_images_to_make(tmp_path: Path) -> None:
    def size(**options: Any) -> tuple[int, int] | None:
        model = ScribbleGenOptions(**{"base": "genaug-tiny", **options})
        seen_at = model.mask_size(look)
        return None if seen_at is None else seen_at((90, 120))

    look = check_models(load_recipe(recipe(), root=tmp_path), ["generator"]).at("generator")
    assert (look.problems, look.notes) == ([], [])
    assert size() == (64, 64)  # the base's own
    assert size(resolution=112, size_mode="keep_aspect") == (96, 128)
    make_pipeline().save_pretrained(tmp_path / "base", safe_serialization=True)
    assert size(base="base") == (64, 64)
    assert look.notes == []
    assert size(base="nobody/has-this") is None
    (note,) = look.notes
    assert note.startswith("generator.resolution: left to the base, which is not here")


def test_check_tells_what_the_generator_would_drop(root) -> None:
    scribble = np.full((256, 256), 255, np.uint8)
    scribble[97:100, :], scribble[:, 121:124], scribble[41:44, 60:90] = 1, 4, 4
    scribble[200:203, 5:9] = 4  # the only one that is seen
    Image.fromarray(scribble).save(root / "masks" / "a.png")
    Image.new("RGB", (256, 256)).save(root / "images" / "a.png")
    given = inspect(load_recipe(recipe(), root=root))  # every fourth row and column
    counts = {c["name"]: (c["lost_strokes"], c["lost_masks"]) for c in given["data"]["classes"]}
    assert counts == {"dog": (2, 1), "cat": (2, 0)}
    assert [note["subjects"] for note in given["data"]["notes"]] == [("masks/a.png (dog)",)]
    wide = inspect(load_recipe(recipe(resolution=128), root=root))
    assert [c["lost_strokes"] for c in wide["data"]["classes"]] == [0, 0]


def test_looking_imports_nothing_heavy(root) -> None:
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    code = (
        "import sys; from genaug.models import check_models; from genaug.recipe import load_recipe; "
        "from genaug.cli.check import inspect; recipe = load_recipe('recipe.yaml'); "
        "assert check_models(recipe).problems == []; assert inspect(recipe)['data']['classes'][1]['lost_masks'] == 0; "
        "assert not {'torch', 'diffusers', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
