"""The ready recipes hold the paper's settings, and MatchMask++ runs on what MatchMask left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from genaug.engine import run
from genaug.errors import DataError
from genaug.recipe import load_recipe
from genaug.store import SampleStore

GIVEN = ["labels={1: dog, 4: cat, 9: potted plant}", "data.images=images", "data.masks=masks"]
QUICK = {
    "images_per_mask": 3, "preset": "fast", "steps": 2,
    "training": {"steps": 2, "checkpoint_every": 2, "preview_images": 0},
}  # fmt: skip


@pytest.mark.parametrize("name", ["matchmask", "matchmask-pp"])
def test_ready_recipes_are_the_papers(name: str) -> None:
    resolved = load_recipe(name, GIVEN).resolved()
    generator = resolved["generator"]
    assert generator["base"] == "CompVis/stable-diffusion-v1-4"
    assert (generator["images_per_mask"], generator["guidance_scale"], generator["preset"]) == (5, 2.0, "plms")
    assert (generator["rank"], generator["training"]["steps"], generator["training"]["batch_size"]) == (4, 100_000, 4)
    assert [f["use"] for f in resolved["filters"]] == ["relative"]
    assert (resolved.get("conditions") or {}).get("format") == ("pseudo-masks" if name == "matchmask-pp" else None)


def test_speed_does_not_make_another_recipe_of_it() -> None:
    plain = load_recipe("matchmask", GIVEN).samples_hash()
    for same in ("generator.batch_size=1", "generator.training.micro_batch_size=1", "filters=[]", "output=x"):
        assert load_recipe("matchmask", [*GIVEN, same]).samples_hash() == plain
    for other in ("generator.guidance_scale=3", "generator.training.steps=7", "seed=1", "data.images=other"):
        assert load_recipe("matchmask", [*GIVEN, other]).samples_hash() != plain


def test_matchmask_pp_makes_images_for_pseudo_masks_with_the_same_adapter(base_folder, samples, tmp_path) -> None:
    for kind in ("images", "masks", "unlabeled"):
        (tmp_path / kind).mkdir()
    for sample in samples[:3]:
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{sample.id}.png")
        Image.fromarray(sample.mask).save(tmp_path / "masks" / f"{sample.id}.png")
    for number, sample in enumerate(samples):
        Image.fromarray(sample.image[:, ::-1].copy()).save(tmp_path / "unlabeled" / f"u{number}.png")
    predictor = {"use": "small-unet", "steps": 30, "width": 4}
    common = {
        "labels": {1: "dog", 4: "cat", 9: "potted plant"},
        "data": {"images": "images", "masks": "masks"},
        "filters": [{"use": "relative", "predictor": predictor}],
    }
    first = {**common, "extends": "matchmask", "generator": {"base": str(base_folder), **QUICK}, "output": "one"}
    second = {
        **common, "extends": "matchmask-pp", "output": "two",
        "generator": {"base": str(base_folder), "adapter": "one/adapter", **QUICK},
        "conditions": {"format": "pseudo-masks", "images": "unlabeled", "predictor": predictor},
    }  # fmt: skip
    for name, recipe in (("one", first), ("two", second)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    run(load_recipe(tmp_path / "one.yaml"), device="cpu", stages=("adapt", "generate", "filter"))
    report = run(load_recipe(tmp_path / "two.yaml"), device="cpu", stages=("adapt", "generate", "filter"))
    assert not (tmp_path / "two/adapter").exists()  # nothing was trained again but the segmenter
    store = SampleStore.open(tmp_path / "two")
    assert len(store) == 4 * 3
    assert report["stages"]["filter"]["samples"] == 12
    about = json.loads((tmp_path / "one/adapter/genaug_config.json").read_text())
    assert about["training"]["samples"] == 3
    for group in store.groups():
        assert len(group.samples) == 3
        assert set(np.unique(group.condition)) <= {1, 4, 9}  # predicted: no pixel is ignored
        assert all(np.array_equal(s.mask, group.condition) for s in group.samples)


def test_unknown_ids_are_refused_or_ignored_as_the_generator_says(base_folder, samples, tmp_path, caplog) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for sample in samples[:2]:
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{sample.id}.png")
        strange = sample.mask.copy()
        strange[:8, :8] = 77
        Image.fromarray(strange).save(tmp_path / "masks" / f"{sample.id}.png")
    table = {
        "extends": "matchmask", "labels": {1: "dog", 4: "cat", 9: "potted plant"}, "filters": [],
        "data": {"images": "images", "masks": "masks"}, "generator": {"base": str(base_folder), **QUICK},
    }  # fmt: skip
    with pytest.raises(DataError, match="id 77 is not in the class table: 2x"):
        run(load_recipe(table, root=tmp_path), stages=["adapt", "generate"], device="cpu")
    assert not (tmp_path / "synthetic").exists()
    recipe = load_recipe(table, ["generator.unknown_class=ignore"], root=tmp_path)
    report = run(recipe, stages=["adapt", "generate"], device="cpu")
    assert (report["complete"], report["failed"]) == (True, 0)
    told = [message for message in caplog.messages if "77" in message]
    assert len(told) == 1  # labelled data are the conditions too, and are read once
    assert told[0].startswith("data: id 77 is not in the class table: 2x: masks/")
    store = SampleStore.open(tmp_path / "synthetic")
    assert len(store.index) == 6
    for key in store.index:
        mask = np.asarray(Image.open(tmp_path / "synthetic" / "masks" / f"{key}.png"))
        assert (mask[:8, :8] == 255).all()
        assert 77 not in mask
