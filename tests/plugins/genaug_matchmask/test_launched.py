"""Two processes under torchrun adapt together and end where one process ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file


@pytest.mark.timeout(300)
def test_two_processes_equal_one(base_folder, samples, tmp_path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for sample in samples:
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{sample.id}.png")
        Image.fromarray(sample.mask).save(tmp_path / "masks" / f"{sample.id}.png")
    for name in ("one", "two"):
        recipe = {
            "labels": {1: "dog", 4: "cat", 9: "potted plant"},
            "data": {"images": "images", "masks": "masks"},
            "generator": {
                "use": "matchmask", "base": str(base_folder), "preset": "fast", "steps": 2,
                "training": {
                    "steps": 4, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 2, "preview_images": 1,
                    "holdout": 0.25, "validate_every": 2,
                },
            },
            "filters": [{"use": "relative", "predictor": {"use": "small-unet", "steps": 3, "width": 4}}],
            "output": name,
        }  # fmt: skip
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    single = [sys.executable, "-m", "genaug", "adapt", "one.yaml", "--device", "cpu"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    outputs = []
    for command in (single, [*launcher, "genaug", "adapt", "two.yaml", "--device", "cpu"]):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        outputs.append(done.stdout)
    assert outputs[1].count("adapter: done") == 1  # the second process is silent
    one, two = (load_file(tmp_path / n / "adapter/adapter_model.safetensors") for n in ("one", "two"))
    assert max(float(v.abs().max()) for v in one.values()) > 0.01
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(two[n], v) for n, v in one.items())  # averaged over processes: other roundings
    assert [p.name for p in (tmp_path / "two/adapters").iterdir()] == [
        p.name for p in (tmp_path / "one/adapters").iterdir()
    ]
