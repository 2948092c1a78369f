"""Two gloo processes with BatchNorm: the running averages that their teachers label with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.timeout(300)
def test_teachers_of_all_processes_label_with_the_same_buffers(tmp_path):
    """Students with BatchNorm see other images in every process; gradients are shared, running averages are not."""
    script = Path(__file__).parent / "distributed_buffers.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(script), str(tmp_path / "found")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    for mode, found in torch.load(tmp_path / "found").items():
        assert found["batch"] == {"processes": 2, "unlabeled": 4}
        (first, second), last = found["seen"], -1
        equal = [
            torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
        ]
        assert len(equal) == 9
        assert all(equal) == (mode == "shared")
        assert first[last][2] == 4  # labelled and unlabelled images of two steps
