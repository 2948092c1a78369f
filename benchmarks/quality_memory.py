"""Peak memory and time of ``genaug report --real`` over 1,000 images against 200, and time with one process and more.

Images of 256x256 with masks, drawn by genaug-tiny; 100 of them are the real set. Memory is the largest resident size of
any one process of the command.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from harness import ROOT, emit, parser, row
from PIL import Image

from genaug_tiny.scenes import CLASSES, render_scene

CODE = """
import resource, sys
from genaug.cli import group
if __name__ == "__main__":
    group.main(standalone_mode=False)
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(max(peaks))
"""


def write(folder: Path, count: int, start: int) -> None:
    """Write `count` images and masks: 50 scenes, shifted sideways by some columns more in every further round."""
    scenes = [render_scene(start + i, size=256) for i in range(50)]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        scene, shift = scenes[i % 50], 5 * (i // 50)
        Image.fromarray(np.roll(scene.image, shift, 1)).save(folder / "images" / f"{i:05d}.png")
        Image.fromarray(np.roll(scene.mask, shift, 1)).save(folder / "masks" / f"{i:05d}.png")


def report(folder: Path, count: int, workers: int) -> tuple[float, float]:
    """Return peak megabytes and seconds of a report on `count` images."""
    script = folder / "report.py"
    script.write_text(CODE)
    command = [
        sys.executable, str(script), "report", str(folder / f"made{count}"), "--real", str(folder / "real"),
        "--labels", str(folder / "labels.yaml"), "--output", str(folder / "out"), "--workers", str(workers),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    seconds = time.perf_counter() - start
    return int(done.stdout.split()[-1]) / (1024 if sys.platform != "darwin" else 1024**2), seconds


def main() -> None:
    """Measure, taking turns."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=2)
    arguments.add_argument("--images", type=int, nargs=2, default=[200, 1000])
    options = arguments.parse_args()
    few, many = options.images
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cases = {(few, 1): [], (many, 1): [], (many, cores): []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "labels.yaml").write_text(yaml.safe_dump({"names": dict(CLASSES)}))
        write(folder / "real", 100, 10**6)
        for count in options.images:
            write(folder / f"made{count}", count, 0)
        for _ in range(options.runs):
            for count, workers in cases:
                cases[count, workers].append(report(folder, count, workers))
    memory, seconds = ({case: [run[i] for run in runs] for case, runs in cases.items()} for i in (0, 1))
    emit(
        [
            row(
                f"peak memory, {many} images (baseline: {few})", memory[many, 1], float(np.median(memory[few, 1])), "MB"
            ),
            row(f"seconds, {many} images, one process", seconds[many, 1], None, "s"),
            row(
                f"seconds, {many} images, {cores} processes (baseline: one)",
                seconds[many, cores],
                float(np.median(seconds[many, 1])),
                "s",
            ),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
