"""`genaug run` on a real, tiny diffusion pipeline, killed twenty times: the same bytes as an undisturbed run."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from genaug.engine import run
from genaug.errors import StoreError
from genaug.recipe import load_recipe

STAGES = ("adapt", "generate", "filter")


@pytest.fixture
def project(base_folder, samples, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for sample in samples:
        Image.fromarray(sample.image).save(tmp_path / "images" / f"{sample.id}.png")
        Image.fromarray(sample.mask).save(tmp_path / "masks" / f"{sample.id}.png")
    return {
        "seed": 3,
        "labels": {1: "dog", 4: "cat", 9: "potted plant"},
        "data": {"images": str(tmp_path / "images"), "masks": str(tmp_path / "masks")},
        "generator": {
            "use": "matchmask", "base": str(base_folder), "images_per_mask": 3, "batch_size": 4, "preset": "fast",
            "steps": 3,
            "training": {"steps": 8, "checkpoint_every": 2, "preview_images": 1, "learning_rate": 0.01},
        },
        "filters": [{"use": "relative", "predictor": {"use": "small-unet", "steps": 6, "width": 4}}],
        "output": "store",
    }  # fmt: skip


REFUSED = 3


def in_child(recipe: dict, root: Path, *, largest: int | None = None) -> int:
    """Start a run in a forked child, which has everything imported already; return its process id.

    With `largest`, the system refuses to write files of more bytes, and the child ends with `REFUSED` if genaug says
    so in words.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; torch runs on one thread here
        child = os.fork()
    if child == 0:
        try:
            if largest is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            run(load_recipe(recipe, root=root), stages=STAGES, device="cpu")
            os._exit(0)
        except StoreError as error:
            os._exit(REFUSED if "the file is larger than this system" in str(error) else 1)
        except BaseException:
            os._exit(1)
    return child


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_twenty_kills(project, tmp_path) -> None:
    torch.set_num_threads(1)
    begin = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(in_child(project, tmp_path / "whole"), 0)[1]) == 0
    duration = time.monotonic() - begin
    moments = random.Random(5)
    kills = finished = 0
    while kills < 20:
        root = tmp_path / f"killed{finished}"
        child = in_child(project, root)
        time.sleep(duration * moments.uniform(0.05, 0.45))
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == -signal.SIGKILL:
            kills += 1
        else:
            assert code == 0
            finished += 1  # it got through between kills: compare it, and start another
            assert tree(root / "store") == tree(tmp_path / "whole/store")
    run(load_recipe(project, root=tmp_path / f"killed{finished}"), stages=STAGES, device="cpu")
    found, expected = tree(tmp_path / f"killed{finished}/store"), tree(tmp_path / "whole/store")
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []
    assert len([name for name in found if name.startswith("images/")]) == 12
    assert "adapter/adapter_model.safetensors" in found


def test_a_limit_on_file_sizes_is_told_and_the_next_run_goes_on(project, tmp_path) -> None:
    """Each limit lets the run through to a larger file; in the end the bytes are those of an undisturbed run."""
    torch.set_num_threads(1)
    project["generator"]["training"] |= {"steps": 4, "preview_images": 0}
    project["filters"][0]["predictor"]["width"] = 6
    assert os.waitstatus_to_exitcode(os.waitpid(in_child(project, tmp_path / "whole"), 0)[1]) == 0
    whole, store = tree(tmp_path / "whole/store"), tmp_path / "cut/store"
    segmenter = next(name for name in whole if name.endswith("segmenter.safetensors"))
    checkpoint = "adapter/checkpoint.safetensors"
    assert len(whole[checkpoint]) < len(whole[segmenter])
    for refused in (checkpoint, segmenter):
        child = in_child(project, tmp_path / "cut", largest=len(whole[refused]) - 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == REFUSED
        assert not list(store.rglob(".tmp-*"))
        assert tree(store).get(refused) != whole[refused]  # none, or the checkpoint before
    assert (store / "adapter/adapter_model.safetensors").read_bytes() == whole["adapter/adapter_model.safetensors"]
    run(load_recipe(project, root=tmp_path / "cut"), stages=STAGES, device="cpu")
    assert tree(store) == whole
