"""Recipes from prompts to a store: resumed, sharded, on the shipped model; and what may go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from genaug.cli import group
from genaug.engine import preview, run
from genaug.errors import ConfigError, StoreError
from genaug.hub.card import Wishes
from genaug.hub.stores import check_store, store_parcel
from genaug.interfaces import Filter
from genaug.recipe import load_recipe
from genaug.store import SampleStore, Shard
from genaug.types import Verdict
from genaug_text2image.generator import Text2Image

NAMES = {1: "sky", 2: "road", 5: "car", 7: "tree"}


@pytest.fixture
def project(bases, write_pairs) -> dict[str, Any]:
    masks = {name: np.repeat(np.array(ids, np.uint8)[:, None], 40, 1) for name, ids in
             {"a": [1] * 24, "b": [1, 2, 5] * 8, "c": [1, 7] * 16}.items()}  # fmt: skip
    root = write_pairs(masks)
    return {
        "extends": "sense-images",
        "labels": NAMES,
        "data": {"images": str(root / "images"), "masks": str(root / "masks")},
        "generator": {"base": str(bases("flux")), "steps": 1, "batch_size": 2, "images_per_prompt": 2,
                      "max_sequence_length": 48},
        "output": "store",
    }  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def go(project: dict[str, Any], root: Path, **options: Any) -> dict[str, Any]:
    return run(load_recipe(project, root=root), device="cpu", **options)


def test_interrupted_or_in_shards_it_ends_with_the_same_bytes(project, tmp_path, monkeypatch) -> None:
    report = go(project, tmp_path / "whole")
    assert report["stages"]["generate"]["made"] == 6
    sample, calls = Text2Image._sample, list[int]()

    def stop(self: Text2Image, prompts, size, seeds):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return sample(self, prompts, size, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(Text2Image, "_sample", stop)
        with pytest.raises(KeyboardInterrupt):
            go(project, tmp_path / "cut")
    assert go(project, tmp_path / "cut")["stages"]["generate"]["reused"] == 2
    for index in (2, 1):
        done = go(project, tmp_path / "parts", shard=Shard(index, 2))["complete"]
    assert done
    whole = tree(tmp_path / "whole/store")
    assert tree(tmp_path / "cut/store") == whole == tree(tmp_path / "parts/store")
    assert not [name for name in whole if name.startswith("masks/") or name.startswith("conditions/")]

    store = SampleStore.open(tmp_path / "whole/store")
    assert store.verify() == []
    assert [s.mask for s in store.training_view()] == [None] * 6
    assert {s.size for s in store} == {(24, 40), (32, 40)}
    assert {group.condition.max() for group in store.groups()} == {255}
    rows = [json.loads(line) for line in (tmp_path / "whole/store/metadata.jsonl").read_text().splitlines()]
    assert all(row["kept"] and "mask_file_name" not in row and row["synthetic"] for row in rows)
    page = (tmp_path / "whole/store/report/index.html").read_text("utf-8")
    assert rows[0]["id"] in page
    assert json.loads(rows[0]["meta"])["prompt"] in page

    # Other prompts are other samples: of the same ids by a changed mask, or by another recipe.
    project["conditions"] = {"seed": 5}
    with pytest.raises(StoreError, match=r"conditions\.seed"):
        go(project, tmp_path / "whole")


def test_a_store_without_masks_can_be_published_and_fetched(project, tmp_path) -> None:
    go(project, tmp_path, stages=["generate"])
    parcel = store_parcel(tmp_path / "store", "org/name", Wishes(license="apache-2.0"))
    for name, content in parcel.files.items():
        target = tmp_path / "fetched" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    fetched = check_store(tmp_path / "fetched")
    assert [s.image.tobytes() for s in fetched] == [s.image.tobytes() for s in SampleStore.open(tmp_path / "store")]


def test_changed_prompts_are_noticed(project, tmp_path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"file_name": "a.png", "text": "a road"}\n')
    project["conditions"] = {"format": "prompts", "path": str(prompts)}
    go(project, tmp_path, stages=["generate"])
    prompts.write_text('{"file_name": "a.png", "text": "a car"}\n')
    with pytest.raises(StoreError, match="made from another prompt"):
        go(project, tmp_path, stages=["generate"])


def test_a_dry_run_prints_the_prompts(project, tmp_path) -> None:
    report = preview(load_recipe(project, root=tmp_path), device="cpu")
    assert list(report["prompts"]) == ["scene_000000", "scene_000001", "scene_000002"]
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**project, "conditions": {"count": 25}}))
    done = CliRunner().invoke(group, ["generate", str(recipe), "--dry-run", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if line.startswith("prompt ")]
    assert len(lines) == 20
    assert lines[0].endswith(report["prompts"]["scene_000000"])
    assert "and 5 more prompts" in done.output
    assert not (tmp_path / "store").exists()
    checked = CliRunner().invoke(group, ["check", str(recipe)])
    assert checked.exit_code == 0, checked.output
    assert "conditions: 25 samples" in checked.output


def test_without_prompts_nothing_is_written(project, tmp_path) -> None:
    project["conditions"] = {"format": "folder", "masks": project["data"]["masks"]}
    with pytest.raises(ConfigError, match=r"generator: the conditions have no prompts\. .*class-prompts"):
        go(project, tmp_path)
    project["generator"]["base"] = "nowhere"
    with pytest.raises(ConfigError, match=r"generator\.base: .*nowhere does not exist"):
        go(project, tmp_path)


class KeepNone(Filter):
    def _judge(self, group):
        return [Verdict(False, "no") for _ in group.samples]


def test_filters_that_look_at_masks_are_refused_and_others_judge(project, tmp_path, monkeypatch) -> None:
    from genaug.errors import SampleError

    go(project, tmp_path, stages=["generate"])
    store = SampleStore.open(tmp_path / "store")
    group = next(iter(store.groups()))
    with pytest.raises(SampleError, match="samples without masks"):
        KeepNone().judge(group, store.labels)
    monkeypatch.setattr(KeepNone, "judges_unlabeled", True)
    assert [v.keep for v in KeepNone().judge(group, store.labels)] == [False, False]

    # Filters that look at images alone judge the whole store, in the run and in its report.
    project["filters"] = [{"use": "duplicate", "radius": 4}, {"use": "fidelity", "measure": "noise", "threshold": 0.0}]
    done = go(project, tmp_path)["stages"]
    assert done["filter"]["filters"]["duplicate"]["judged"] == 6
    assert done["filter"]["filters"]["fidelity"]["dropped"] == 6
    assert (
        len(SampleStore.open(tmp_path / "store").training_view(["duplicate"]))
        == done["filter"]["samples"] - (done["filter"]["filters"]["duplicate"]["dropped"])
    )
    assert "no mask" in (tmp_path / "store/report/index.html").read_text("utf-8")


def test_the_shipped_model_draws_what_a_prompt_says(project, tmp_path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"file_name": word, "text": word}) + "\n" for word in ("grass", "water")))
    project["conditions"] = {"format": "prompts", "path": str(prompts), "size": [64, 64]}
    project["generator"] = {
        "base": "genaug-tiny", "steps": 5, "batch_size": 3, "images_per_prompt": 3, "guidance_scale": 4.0,
        "max_sequence_length": None,
    }  # fmt: skip
    go(project, tmp_path, stages=["generate"])
    for sample in SampleStore.open(tmp_path / "store"):
        red, _, blue = sample.image.mean((0, 1))
        assert (red > blue) == (sample.meta["prompt"] == "grass"), sample.id
