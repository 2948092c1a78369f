"""Two gloo processes with unequal shards, one without any confident pixel: no hang, and one process's gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "distributed_step.py"


def outcomes(folder, processes, cases):
    """Return what `distributed_step.py` found, by case; all in one launch, as every process imports torch first."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*launcher, str(SCRIPT), str(folder / f"{processes}.pt"), json.dumps(cases)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / f"{processes}.pt")


def fixmatch(normalizer):
    terms = [
        {"view": "strong", "normalizer": normalizer},
        {"view": "weak", "normalizer": normalizer, "scales": [1.0, 0.5]},
    ]
    return {"labeler": {"use": "threshold", "threshold": 0.9}, "terms": terms, "views": {"strong": "builtin"}}


SENSE = {
    "labeler": {"use": "sense", "threshold": 0.9},
    "terms": [{"view": "strong", "normalizer": "kept"}],
    "views": {"strong": "builtin"},
}

WEAK = {
    **fixmatch("valid"),  # nothing is padded: a black pixel would make the sure image unsure
    "views": {"weak": "builtin", "scale": [1.0, 1.6], "crop": 6, "strong": "builtin"},
}

SETS = {
    **fixmatch("kept"),
    "terms": [{"view": "strong", "loss": "set", "set_loss": {"points": 100, "dice_weight": 1.0}}],
    "supervised": {"loss": "set", "set_loss": {"points": 100}},
}


CASES = {
    "kept": (fixmatch("kept"), "masks"),
    "valid": (fixmatch("valid"), "masks"),
    "per_image_kept": (fixmatch("per_image_kept"), "masks"),
    "sense": (SENSE, "masks"),
    "sets": (SETS, "masks"),
    "weak views": (WEAK, "masks"),
    # The second process has no labelled pixel at all, and four of the five labelled images.
    "scribbles and regularizers": (
        {**fixmatch("valid"), "supervised": {"loss": "ohem", "ohem_min_kept": 1000}},
        "scribbles",
    ),
}


@pytest.mark.timeout(500)
def test_two_processes_equal_one(tmp_path, subtests):
    ones, twos = (outcomes(tmp_path, processes, CASES) for processes in (1, 2))
    for name, (_, kind) in CASES.items():
        with subtests.test(name):
            one, two = ones[name], twos[name]
            if kind == "masks":
                assert one["kept"] == [[True, False, False, False, False]]
                assert two["kept"] == [[True, False], [False, False, False]]  # the second process keeps nothing
            assert_equal(one, two)


def assert_equal(one, two):
    assert max(float(g.abs().max()) for g in one["gradients"]) > 1e-3
    for mine, other in zip(one["gradients"], two["gradients"], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)
    for mine, other in zip(one["teacher"], two["teacher"], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)
