"""`genaug run` on a tiny pipeline: interrupted at every stage and repeated, it ends with the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from genaug.engine import preview, run
from genaug.errors import StoreError
from genaug.recipe import load_recipe
from genaug.store import SampleStore
from genaug_diffusion.training import AdapterTrainer
from genaug_scribblegen.generator import ScribbleGenGenerator

STAGES = ("adapt", "generate")


@pytest.fixture
def project(base_folder, samples, tmp_path) -> dict[str, Any]:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for sample in samples[:3]:
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{sample.id}.png")
        Image.fromarray(sample.mask).save(tmp_path / "masks" / f"{sample.id}.png")
    return {
        "seed": 3,
        "labels": {0: "background", 1: "dog", 4: "cat", 9: "potted plant"},
        "data": {"images": str(tmp_path / "images"), "masks": str(tmp_path / "masks")},
        "generator": {
            "use": "scribblegen", "base": str(base_folder), "encode_ratio": [0.4, 1.0], "batch_size": 4, "steps": 2,
            "images_per_scribble": 2,
            "training": {
                "steps": 4, "batch_size": 2, "checkpoint_every": 2, "preview_images": 1, "learning_rate": 0.01
            },
        },
        "output": "store",
    }  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def go(project: dict[str, Any], root: Path) -> dict[str, Any]:
    return run(load_recipe(project, root=root), stages=STAGES, device="cpu")


def test_interrupted_while_adapting_and_while_generating(project, tmp_path, monkeypatch) -> None:
    report = go(project, tmp_path / "whole")
    assert report["stages"]["generate"]["made"] == 12
    step, sample, batches = AdapterTrainer._step, ScribbleGenGenerator._sample, list[int]()

    def stop_training(self: AdapterTrainer, number: int) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    def stop_sampling(self: ScribbleGenGenerator, draws):
        if batches:
            raise KeyboardInterrupt
        batches.append(len(draws))
        return sample(self, draws)

    for place, name, stopping in [
        (AdapterTrainer, "_step", stop_training), (ScribbleGenGenerator, "_sample", stop_sampling),
    ]:  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(place, name, stopping)
            with pytest.raises(KeyboardInterrupt):
                go(project, tmp_path / "cut")
    assert batches == [4]
    assert go(project, tmp_path / "cut")["stages"]["generate"]["reused"] == 4
    found, expected = tree(tmp_path / "cut/store"), tree(tmp_path / "whole/store")
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []

    store = SampleStore.open(tmp_path / "cut/store")
    rows = [json.loads(line) for line in (tmp_path / "cut/store/manifest.jsonl").read_text().splitlines()]
    assert [row["meta"]["encode_ratio"] for row in rows] == [0.4, 0.4, 1.0, 1.0] * 3
    for group in store.groups():
        assert len(group.samples) == 4
        assert all(np.array_equal(s.mask, group.condition) for s in group.samples)

    # Other levels are other samples, so the store refuses them; the trained adapter serves another store.
    project["generator"]["encode_ratio"] = 0.7
    with pytest.raises(StoreError, match=r"generator\.encode_ratio"):
        go(project, tmp_path / "cut")
    project["generator"]["adapter"], project["output"] = str(tmp_path / "cut/store/adapter"), "other"
    other = go(project, tmp_path / "cut")
    assert other["stages"]["generate"]["made"] == 6
    assert not (tmp_path / "cut/other/adapter").exists()


def test_a_preview_needs_no_model(project, tmp_path) -> None:
    report = preview(load_recipe(project, root=tmp_path))
    assert report["samples"] == 12


def test_two_processes_train_what_one_trains(project, tmp_path) -> None:
    project["generator"]["training"] |= {"preview_images": 0, "learning_rate": 1e-3, "scribble_dropout": 0.5}
    outputs = []
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    for name, start in [("one", ["-m"]), ("two", launcher)]:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**project, "output": name}))
        command = [sys.executable, *start, "genaug", "adapt", f"{name}.yaml", "--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        outputs.append(done.stdout)
    assert outputs[1].count("adapter: done") == 1  # the second process is silent
    for file in ("controlnet/diffusion_pytorch_model.safetensors", "null_condition.safetensors"):
        one, two = (load_file(tmp_path / name / "adapter" / file) for name in ("one", "two"))
        for name, value in one.items():
            # Adam divides by the gradient's size, so where that is next to nothing its rounding shows.
            assert (two[name] - value).abs().mean() < 2e-5, name
