"""MaskMatch: peak memory of one training step with a backward pass after every scale, against all scales at once.

The loss is a sum, so `SemiSupervisedStep` may be given the backward pass and then holds the activations of one forward
pass at a time. Baselines: the student's three scales of the multi-scale term held together, all else alone; and one
backward pass of the whole loss, which also holds the labelled and the masked images. Every run is a process of its own;
the value is its peak resident memory in the step less its resident memory once model, teacher and images are there.
All three must have the same loss and gradients.

Recipe `maskmatch` with 21 classes, as many labelled as unlabelled images, one thread; the U-Net and the SegFormer of
the self-training benchmarks, random weights. All pixels are kept, since an untrained teacher is sure of none.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, emit, parser, row

CLASSES = 21
MODELS = ("unet", "segformer")
#: What `one_step` can do; the first is the candidate.
WAYS = ("sequential", "scales at once", "all at once")
#: Largest distance of the gradients as a share of their norm; they are sums in another order.
TOLERANCE = 1e-5
MEGABYTE = 1024**2


def resident() -> int:
    """Return the bytes in memory now; where the system does not say so, the most there ever were."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * resource.getpagesize() if status.is_file() else peak()


def peak() -> int:
    """Return the most bytes this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def one_step(kind: str, way: str, size: int, batch: int, target: Path) -> dict[str, float]:
    """Run one training step in this process; return its peak memory and loss, write the gradients to `target`."""
    import torch
    from selftraining import build_model

    from genaug_torch import SemiSupervisedStep

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(kind, CLASSES).train()
    overrides = ["labeler.threshold=0", "views.strong=builtin"]
    step = SemiSupervisedStep(model, "maskmatch", kind="logits", num_classes=CLASSES, overrides=overrides)
    images, unlabelled = torch.rand(2, batch, 3, size, size)
    labels = torch.randint(CLASSES, (batch, size, size))
    held: list[torch.Tensor] = []
    parts = iter(["supervised", "scale", "scale", "last scale", "masked"])

    def scales_together(loss: torch.Tensor) -> None:
        part = next(parts)
        held.append(loss)
        if part != "scale":
            torch.stack(held).sum().backward()
            held.clear()

    before, risen = resident(), peak()
    if way == "all at once":
        loss, figures = step(images, labels, unlabelled)
        loss.backward()
    else:
        backward = torch.Tensor.backward if way == "sequential" else scales_together
        loss, figures = step(images, labels, unlabelled, backward=backward)
    used = peak()
    assert used > risen, "the step is too small to be seen: take larger images"
    assert float(figures["kept"]) == 1
    assert float(figures["loss/multi-scale"]) > 0
    np.save(target, np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
    return {"megabytes": (used - before) / MEGABYTE, "loss": float(loss.detach())}


def measure(kind: str, way: str, options: Any, target: Path) -> dict[str, float]:
    """Run one step in a fresh process."""
    arguments = ["--child", kind, way, str(target), "--size", str(options.size), "--batch", str(options.batch)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare_ways(kind: str, options: Any) -> tuple[list[Row], float]:
    """Return the rows of one model, and the largest distance of the gradients."""
    used: dict[str, list[float]] = {way: [] for way in WAYS}
    losses: dict[str, float] = {}
    gradients: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.runs):
            for way in WAYS:
                found = measure(kind, way, options, Path(folder) / "gradients.npy")
                used[way].append(found["megabytes"])
                losses[way], gradients[way] = found["loss"], np.load(Path(folder) / "gradients.npy").astype(np.float64)
    expected = gradients["all at once"]
    distance = max(float(np.linalg.norm(g - expected) / np.linalg.norm(expected)) for g in gradients.values())
    assert distance < TOLERANCE, f"{kind}: the gradients differ by {distance}"
    assert np.allclose(list(losses.values()), losses["all at once"], rtol=1e-6), losses
    medians = {way: statistics.median(values) for way, values in used.items()}
    rows = [row(f"{kind}, backward after every scale (baseline: {way})", used[WAYS[0]], medians[way], "MB")
            for way in WAYS[1:]]  # fmt: skip
    return rows, distance


def main() -> None:
    """Measure both models, all ways taking turns."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--batch", type=int, default=2, help="labelled, and as many unlabelled, images")
    arguments.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    arguments.add_argument("--child", nargs=3, metavar=("MODEL", "WAY", "FILE"), help="one step, for the script itself")
    options = arguments.parse_args()
    if options.child:
        kind, way, target = options.child
        print(json.dumps(one_step(kind, way, options.size, options.batch, Path(target))))
        return
    rows: list[Row] = []
    distances: dict[str, float] = {}
    for kind in options.models:
        more, distances[kind] = compare_ways(kind, options)
        rows += more
    import torch  # so late, because it takes memory and the steps are processes of their own

    torch.set_num_threads(1)  # as they had; the report says how many
    emit(rows, options.json, size=options.size, images=2 * options.batch, gradient_distance=distances)


if __name__ == "__main__":
    main()
