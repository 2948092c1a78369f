"""SENSE targets: class potentials in cache-sized blocks against the released in-place scaling and POT.

One image of 518x518 pixels (n = 268,324), three iterations, one thread, from log-probabilities of a simulated teacher:
smooth regions of mostly confident pixels, 14 of 19 or 45 of 150 classes present. The released procedure is written
from its description, in float32; POT's plain solver is given float64, because in float32 its result is another one.
Equal results are asserted: against the released procedure with its own support (99.9 % of the targets within 0.01),
against POT with all classes supported. Ours are the potentials of the classes, of which the loss makes targets piece
by piece; so the same is timed with the targets written out, and with the loss on them and its gradient.

    python benchmarks/sense_targets.py --json benchmarks/results/sense_targets.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import Row, alternate, compare, emit, parser, row
from torch import Tensor

from genaug.predictions import Predictions
from genaug_sense.functional import transport
from genaug_torch.losses import pixel_losses

SIZE, BETA, ITERATIONS = 518, 0.05, 3
CLASSES = {19: 14, 150: 45}


def teacher(classes: int, present: int, seed: int = 0) -> Tensor:
    """Return log-probabilities ``[1, K, 518, 518]``: a coarse grid's logits, resized as a segmenter's head does."""
    draw = torch.Generator().manual_seed(seed)
    grid = SIZE // 4 + 1

    def smooth(channels: int, cells: int) -> Tensor:
        made = torch.randn(1, channels, cells, cells, generator=draw)
        return torch.nn.functional.interpolate(made, size=(grid, grid), mode="bilinear")

    frequency = 1 / torch.arange(1, present + 1).view(1, -1, 1, 1)  # Zipf
    regions = (2 * smooth(present, 12) + frequency.log()).argmax(1, keepdim=True)
    logits = 0.5 * torch.randn(1, classes, grid, grid, generator=draw) + 1.5 * smooth(classes, 24)
    logits[:, present:] -= 3
    logits.scatter_add_(1, regions, 10 + 4 * smooth(1, 30))
    full = torch.nn.functional.interpolate(logits, size=(SIZE, SIZE), mode="bilinear")
    return full.log_softmax(1).contiguous()


def released(log_probs: Tensor) -> Tensor:
    """Return the plan ``[n, K]`` of the released procedure: exponentiate, then scale columns and rows in place."""
    cost = -log_probs.permute(0, 2, 3, 1).reshape(-1, log_probs.shape[1])
    plan = torch.exp(-cost / BETA)
    if torch.isnan(plan).any():
        raise ValueError("the released code would fall back to the softmax")
    n, classes = plan.shape
    plan /= plan.sum()
    for _ in range(ITERATIONS):
        column = plan.sum(0, keepdim=True)
        plan /= torch.where(column == 0, 1e-5, column)
        plan /= classes
        plan /= plan.sum(1, keepdim=True)
        plan /= n
    plan *= n
    return plan


def pot(cost: Tensor) -> Tensor:
    """Return POT's plan for a cost ``[n, K]``."""
    import ot

    n, classes = cost.shape
    a, b = cost.new_full((n,), 1 / n), cost.new_full((classes,), 1 / classes)
    return ot.sinkhorn(a, b, cost, BETA, method="sinkhorn", numItermax=ITERATIONS, stopThr=0, warn=False) * n


def learn_ours(log_probs: Tensor, student: Tensor) -> float:
    """Return the mean loss of a student's logits, after the backward pass."""
    everywhere = torch.zeros(log_probs.shape[0], *log_probs.shape[2:], dtype=torch.int64)  # no pixel is ignored
    loss = pixel_losses(Predictions(student, "logits"), everywhere, transport(log_probs)).mean()
    student.grad = None
    loss.backward()
    return float(loss.detach())


def learn_released(log_probs: Tensor, student: Tensor) -> float:
    """Return the same by torch's loss on written targets."""
    targets = released(log_probs).t().reshape(log_probs.shape)
    loss = torch.nn.functional.cross_entropy(student, targets)
    student.grad = None
    loss.backward()
    return float(loss.detach())


def rows_of(dense: Tensor) -> Tensor:
    return dense[0].flatten(1).t()


def differences(log_probs: Tensor, cost: Tensor) -> tuple[float, float]:
    """Return the share of targets off by over 0.01 from the released ones, and the largest difference from POT."""
    old = released(log_probs)
    off = (rows_of(transport(log_probs).dense()) - old).abs().amax(1) > 1e-2
    sure = log_probs[0].amax(0).flatten().exp() >= 0.95
    assert float(off.float().mean()) <= 1e-3
    assert float(off[sure].float().mean()) <= 5e-5
    exact = rows_of(transport(log_probs, support="exact").dense())
    largest = float((exact - pot(cost)).abs().max())
    assert largest <= 2e-5
    return float(off.float().mean()), largest


def peak(function: Callable[[Tensor], object], log_probs: Tensor) -> float:
    """Return the extra memory of a call in a fresh process, in tensors of n x K float32 numbers."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "given.npy", log_probs.numpy())
        command = [sys.executable, __file__, "--peak", function.__name__, str(Path(folder) / "given.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)) / (log_probs.numel() * 4)


def largest_size() -> int:
    """Return the largest resident size of this process in bytes; not getrusage's, which starts with the parent's."""
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def measure_peak(name: str, path: str) -> None:
    """Print by how many bytes the largest resident size grows while a function runs."""
    function = {"transport": transport, "released": released}[name]
    values = np.load(path)
    log_probs = torch.from_numpy(values)
    function(log_probs[:, :, :8, :8].contiguous())  # libraries load and allocate on first use
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # Linux: forget the largest size so far
    before = largest_size()
    function(log_probs)
    print(json.dumps(largest_size() - before))


def measure(classes: int, runs: int) -> list[Row]:
    """Return the rows of one number of classes."""
    log_probs = teacher(classes, CLASSES[classes])
    cost = -rows_of(log_probs).double().contiguous()
    off, largest = differences(log_probs, cost)
    name = f"{classes} classes"
    times = alternate(
        {"ours": lambda: transport(log_probs), "released": lambda: released(log_probs)}, runs=runs, warmup=2
    )
    made = [compare(f"{name}, as released", times, candidate="ours", baseline="released")]
    times = alternate(
        {"ours": lambda: transport(log_probs, support="exact"), "POT": lambda: pot(cost)}, runs=runs, warmup=2
    )
    made.append(compare(f"{name}, all supported, against POT", times, candidate="ours", baseline="POT"))
    times = alternate(
        {"ours": lambda: transport(log_probs).dense(), "released": lambda: released(log_probs)}, runs=runs // 2
    )
    made.append(compare(f"{name}, targets written out", times, candidate="ours", baseline="released"))
    made.append(compare_learning(name, log_probs, runs // 2))
    ours, theirs = ([peak(f, log_probs) for _ in range(3)] for f in (transport, released))
    made.append(row(f"{name}, extra memory", ours, float(np.median(theirs)), "n x K tensors"))
    made.append(row(f"{name}, targets off by over 0.01 from the released", [off], None, "share"))
    made.append(row(f"{name}, largest difference from POT", [largest], None, ""))
    return made


def compare_learning(name: str, log_probs: Tensor, runs: int) -> Row:
    """Return the row of targets, loss and gradient together."""
    student = (log_probs + torch.randn(log_probs.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    ours, theirs = learn_ours(log_probs, student), learn_released(log_probs, student)
    assert abs(ours - theirs) <= 1e-3 * theirs
    times = alternate(
        {"ours": lambda: learn_ours(log_probs, student), "released": lambda: learn_released(log_probs, student)},
        runs=runs,
    )
    return compare(f"{name}, targets and loss, both passes", times, candidate="ours", baseline="released")


def main() -> None:
    """Measure at 19 and 150 classes."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=15)
    arguments.add_argument("--peak", nargs=2, metavar=("FUNCTION", "FILE"), help="only that, in this process")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        measure_peak(*options.peak)
        return
    made = [r for classes in CLASSES for r in measure(classes, options.runs)]
    emit(made, options.json, size=SIZE, iterations=ITERATIONS, beta=BETA)


if __name__ == "__main__":
    main()
