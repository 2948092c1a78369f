"""Peak memory of ``genaug generate`` for 2,000 samples against 200: five per mask, genaug-tiny, two sampling steps."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from harness import ROOT, emit, parser, row
from PIL import Image

from genaug_tiny.scenes import CLASSES, render_scene

CODE = """
import resource, sys
import torch
torch.set_num_threads(1)
from genaug.engine import run
from genaug.recipe import load_recipe
run(load_recipe(sys.argv[1]), stages=[sys.argv[2]], device="cpu")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def project(folder: Path, masks: int) -> Path:
    """Write `masks` scenes and a recipe that adapts to 20 of them for one step and makes images for all."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(masks):
        scene = render_scene(i)
        Image.fromarray(scene.image).save(folder / "images" / f"{i:05d}.png")
        Image.fromarray(scene.mask).save(folder / "masks" / f"{i:05d}.png")
    (folder / "labeled.txt").write_text("".join(f"{i:05d}\n" for i in range(20)))
    training = {"steps": 1, "checkpoint_every": 1, "preview_images": 0}
    recipe = {
        "labels": CLASSES,
        "data": {"images": "images", "masks": "masks", "labeled": "labeled.txt"},
        "conditions": {"images": "images", "masks": "masks"},
        "generator": {
            "use": "matchmask", "base": "genaug-tiny", "images_per_mask": 5, "batch_size": 20,
            "preset": "fast", "steps": 2, "training": training,
        },
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    return folder / "recipe.yaml"


def peak_megabytes(samples: int) -> float:
    """Return the peak resident memory of a fresh process that makes `samples` samples."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = project(Path(folder) / "project", samples // 5)
        for stage in ("adapt", "generate"):
            command = [sys.executable, "-c", CODE, str(recipe), stage]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    kilobytes = int(done.stdout.split()[-1])
    return kilobytes / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    """Measure both sizes, taking turns."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=2)
    options = arguments.parse_args()
    peaks: dict[int, list[float]] = {200: [], 2000: []}
    for _ in range(options.runs):
        for samples in peaks:
            peaks[samples].append(peak_megabytes(samples))
    few = float(np.median(peaks[200]))
    emit([row("peak memory, 2000 samples (baseline: 200)", peaks[2000], few, "MB")], options.json)


if __name__ == "__main__":
    main()
