"""Every message that docs/troubleshooting.md quotes is what genaug says in the situation that the page describes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genaug import Component, GenaugError
from genaug.engine import run
from genaug.errors import PluginWarning
from genaug.recipe import load_recipe
from genaug.registry import Registry
from genaug.store import SampleStore
from genaug_text2image.generator import Text2Image
from genaug_tiny.scenes import CLASSES, render_scenes

PAGE = (Path(__file__).resolve().parents[2] / "docs/troubleshooting.md").read_text("utf-8")
QUOTED = re.findall(r"^\*\*`(.+?)`", PAGE, flags=re.M)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "masks", "rgb", "binary"):
        (tmp_path / name).mkdir()
    for number, (image, mask) in enumerate(zip(*render_scenes(range(2), size=64), strict=True)):
        name = f"{number}.png"
        Image.fromarray(image).save(tmp_path / "images" / name)
        Image.fromarray(mask).save(tmp_path / "masks" / name)
        Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(tmp_path / "rgb" / name)
        Image.fromarray(((mask == 2) * 255).astype(np.uint8)).save(tmp_path / "binary" / name)
    (tmp_path / "prompts.jsonl").write_text('{"file_name": "0.png", "text": "a road"}\n')
    return tmp_path


def problems(folder: Path, labels: Any = CLASSES, masks: str = "masks") -> str:
    recipe = load_recipe({"labels": labels, "data": {"images": "images", "masks": masks}}, root=folder)
    return " ".join(recipe.source().check())


def prompted(folder: Path, **generator: Any) -> dict[str, Any]:
    options = {"use": "text2image", "base": "genaug-tiny", "steps": 2, "resolution": 64, **generator}
    data = {"images": str(folder / "images"), "masks": str(folder / "masks")}
    conditions = {"format": "prompts", "path": str(folder / "prompts.jsonl")}
    return {
        "labels": CLASSES,
        "data": data,
        "conditions": conditions,
        "generator": options,
        "output": str(folder / "store"),
    }


def generated(recipe: dict[str, Any], **options: Any) -> None:
    run(load_recipe(recipe), stages=["generate"], **options)


def not_installed(folder: Path) -> None:
    registry = Registry()
    missing = Component("generator", "x", "a:B", requires=("diffusers_of_nobody",), extra="diffusion")
    registry.load(missing)


def changed_recipe(folder: Path) -> None:
    generated(prompted(folder))
    generated({**prompted(folder), "seed": 3})


def damaged(folder: Path) -> None:
    generated(prompted(folder))
    (image,) = (folder / "store/images").iterdir()
    image.write_bytes(image.read_bytes()[:300])
    list(SampleStore.open(folder / "store"))


def in_worker(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data.get_worker_info", object)
        Text2Image.generate(object.__new__(Text2Image), [], ignore_index=255)


SITUATIONS: dict[str, Callable[[Path], Any]] = {
    "the Python package 'diffusers' is not installed": not_installed,
    "the mask is RGB: colours, not class ids": lambda f: problems(f, masks="rgb"),
    "is not in the class table": lambda f: problems(f, {0: "sky", 1: "building"}),
    "the masks hold 0 and 255 only": lambda f: problems(f, {0: "background", 1: "road"}, "binary"),
    "masks without image": lambda f: (f / "images/0.png").unlink() or problems(f),
    "unknown key. Did you mean": lambda f: load_recipe(prompted(f, stepz=3)),
    "'runwayml/stable-diffusion-v1-5' could not be loaded": lambda f: generated(
        prompted(f, base="runwayml/stable-diffusion-v1-5")
    ),
    "the store was made by another recipe": changed_recipe,
    "make damaged samples again": damaged,
    "was called inside a DataLoader worker": in_worker,
}


@pytest.mark.parametrize("quoted", SITUATIONS)
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")  # diffusers still passes it
def test_a_quoted_message_is_what_genaug_says(quoted: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        said = SITUATIONS[quoted](folder)
    except GenaugError as error:
        said = str(error)
    assert quoted in said.replace("diffusers_of_nobody", "diffusers")


def test_a_broken_plugin_is_told_of_in_the_quoted_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.EntryPoint.load", lambda entry: 1 / 0)
    with pytest.warns(PluginWarning) as caught:
        Registry()
    text = re.sub(r"could not be loaded: .*?\. Run", "could not be loaded. Run", str(caught[0].message))
    assert "could not be loaded. Run 'genaug plugins' for the list" in text


def test_every_quoted_message_is_tried() -> None:
    assert set(QUOTED) == {*SITUATIONS, "could not be loaded. Run 'genaug plugins' for the list"}


def test_options_and_commands_that_the_page_names_exist(folder: Path) -> None:
    load_recipe("sense", ["labels=voc21", "supervised.burn_in=100", "teacher.ema=0.99", "labeler.threshold=0.97"])
    load_recipe("fixmatch", ["labels=voc21", "terms.0.mixer=null"])
    training = ["generator.training.micro_batch_size=1", "generator.training.gradient_checkpointing=true"]
    options = ["generator.batch_size=1", "generator.safety_checker=false", "generator.unknown_class=ignore"]
    data = {"extends": "matchmask", "labels": "voc21", "data": {"images": "i", "masks": "m", "color_map": True}}
    load_recipe(data, [*training, *options])
    load_recipe(prompted(folder), ["generator.cpu_offload=true"])
