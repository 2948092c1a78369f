"""``genaug quickstart``: MatchMask from labelled scenes to a comparison, on data that genaug draws itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genaug.store import SampleStore
from genaug_tiny.experiment import (
    TEST_SEEDS,
    Arm,
    labelled_seeds,
    run_recipe,
    synthetic_arrays,
    train_arm,
    write_project,
)
from genaug_tiny.scenes import render_scenes

SCENES = 20


def quickstart_matchmask(
    output: Path, *, seed: int = 0, device: str = "cpu", say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Show MatchMask's whole path: about five minutes on two CPU cores.

    Args:
        output: Folder for data, recipe, store, gallery and results; a second call goes on where the first stopped.
        seed: Which scenes are labelled, and all other randomness.
        device: Torch device of the diffusion model; segmenters train on the CPU.
        say: Takes progress headings.

    Returns:
        ``table`` (text), ``arms`` (mIoU and IoU per class), ``gallery`` and ``results`` (paths) and ``lines`` (what a
        user adds to their own trainer).
    """
    started = time.monotonic()
    seeds = labelled_seeds(SCENES, seed)
    say(f"1/4 Drawing {SCENES} labelled scenes and a recipe in {output}")
    recipe = write_project(output, seeds, seed=seed)
    say(f"2/4 genaug run {recipe}: adapt, generate, filter, report")
    store = SampleStore.open(run_recipe(recipe, device=device).output)
    say(f"3/4 Training two small segmenters, {len(TEST_SEEDS)} unseen scenes to measure on")
    real, synthetic, test = render_scenes(seeds), synthetic_arrays(store), render_scenes(TEST_SEEDS)
    arms = [
        train_arm("real only", [real], test, seed=seed),
        train_arm("real + synthetic", [real, synthetic], test, seed=seed),
    ]
    say(f"4/4 Done in {time.monotonic() - started:.0f} s")
    result = {
        "arms": [{"name": a.name, "miou": a.miou, "iou": a.iou, "images": a.images} for a in arms],
        "seed": seed,
        "labelled_scenes": SCENES,
        "test_scenes": len(TEST_SEEDS),
    }
    results = output / "results.json"
    results.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return {
        **result,
        "table": format_table(arms),
        "gallery": str(output / "synthetic" / "report" / "index.html"),
        "results": str(results),
        "lines": [
            "from genaug_torch import MixedDataset, StoreDataset",
            f'synthetic = StoreDataset("{output / "synthetic"}")',
            'train_set = MixedDataset(train_set, synthetic, ratio=1.0, scheme="append")',
        ],
    }


def format_table(arms: Sequence[Arm]) -> str:
    """Return a table of mIoU and per-class IoU in percent, one line per arm."""
    names = list(arms[0].iou)
    lines = [f"{'trained on':18}{'images':>7}{'mIoU':>7}" + "".join(f"{n:>10}" for n in names)]
    for arm in arms:
        cells = "".join(f"{100 * arm.iou[n]:10.1f}" for n in names)
        lines.append(f"{arm.name:18}{arm.images:7d}{100 * arm.miou:7.1f}{cells}")
    return "\n".join(lines)
