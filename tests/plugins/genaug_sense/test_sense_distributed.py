"""Two processes with unequal shards end where one process ends; every one of them always enters the collectives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from genaug.predictions import Predictions
from genaug_sense.functional import transport
from genaug_sense.labeler import QuerySenseLabeler, SenseLabeler

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from genaug.predictions import Predictions
from genaug_sense.functional import transport
from genaug_sense.labeler import QuerySenseLabeler, SenseLabeler

rank, meeting, given, out = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
group, made = dist.group.WORLD, {}
for name, batch in torch.load(given).items():
    start, stop = (0, batch["first"]) if rank == 0 else (batch["first"], None)
    values, valid = batch["values"][start:stop], batch["valid"][start:stop]
    for support in ("fp32", "exact", "present"):
        soft = transport(values.log_softmax(1), valid=valid, support=support, group=group)
        made[name, support] = soft.offsets, soft.dense()
        labeler = SenseLabeler(support=support, ot_scope="kept", threshold=0.9)
        targets = labeler.label(Predictions(values, "logits"), valid=valid, group=group)
        made[name, support, "hard"] = targets.hard, targets.weights
    scores = Predictions(values.softmax(1), "scores")
    targets = QuerySenseLabeler(image_gate=None).label(scores, valid=valid, group=group)
    made[name, "query"] = targets.hard, targets.weights
torch.save(made, f"{out}{rank}")
dist.destroy_process_group()
"""


def batches() -> dict[str, dict[str, object]]:
    """Return whole batches, most of them with one shard that is not like the other."""
    draw = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(4, 7, 12, 10, generator=draw, dtype=torch.float64)
    logits[:, 5:] -= torch.tensor([20.0, 80.0], dtype=torch.float64).view(1, 2, 1, 1)
    valid = torch.rand(4, 12, 10, generator=draw) < 0.8
    unsure = logits.clone()
    unsure[3] *= 0.05
    nothing = valid.clone()
    nothing[3] = False
    flat = 0.01 * torch.randn(4, 200, 5, 6, generator=draw, dtype=torch.float64)  # float32 cannot represent it
    mixed = flat.clone()
    mixed[:2, 0] = 30.0
    spoilt = logits.clone()
    spoilt[3, 2, 4, 4] = torch.nan
    everywhere = torch.ones(4, 5, 6, dtype=torch.bool)
    return {
        "ordinary": {"values": logits, "valid": valid, "first": 1},
        "unsure": {"values": unsure, "valid": valid, "first": 3},
        "padding": {"values": logits, "valid": nothing, "first": 3},
        "empty": {"values": logits, "valid": valid, "first": 4},
        "flat": {"values": flat, "valid": everywhere, "first": 1},
        "half flat": {"values": mixed, "valid": everywhere, "first": 2},
        "spoilt": {"values": spoilt, "valid": valid, "first": 3},
        "nowhere": {"values": logits, "valid": torch.zeros_like(valid), "first": 2},
    }


def test_two_processes_equal_one(tmp_path: Path) -> None:
    whole = batches()
    torch.save(whole, tmp_path / "given")
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    names = [str(tmp_path / name) for name in ("meeting", "given", "out")]
    running = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "script.py"), str(rank), *names],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in running:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in running:
            process.kill()
    one, two = (torch.load(tmp_path / f"out{rank}") for rank in range(2))
    for name, batch in whole.items():
        values, valid = batch["values"], batch["valid"]
        assert isinstance(values, torch.Tensor)
        for support in ("fp32", "exact", "present"):
            soft = transport(values.log_softmax(1), valid=valid, support=support)
            for made in (one, two):
                torch.testing.assert_close(made[name, support][0], soft.offsets, atol=1e-10, rtol=1e-12)
            assert torch.equal(one[name, support][0], two[name, support][0])  # the same bits everywhere
            dense = torch.cat([one[name, support][1], two[name, support][1]])
            torch.testing.assert_close(dense, soft.dense(), atol=1e-10, rtol=0, equal_nan=True)
            labeler = SenseLabeler(support=support, ot_scope="kept", threshold=0.9)
            check(labeler.label(Predictions(values, "logits"), valid=valid), one, two, (name, support, "hard"))
        scores = Predictions(values.softmax(1), "scores")
        check(QuerySenseLabeler(image_gate=None).label(scores, valid=valid), one, two, (name, "query"))


def check(expected, one, two, key) -> None:
    for number, value in enumerate((expected.hard, expected.weights)):
        assert torch.equal(torch.cat([one[key][number], two[key][number]]), value), key
