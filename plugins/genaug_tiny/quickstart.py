"""``genaug quickstart``: MatchMask from labelled scenes to a comparison, on data that genaug draws itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.store import SampleStore
from genaug_tiny.experiment import (
    RECIPE,
    SEGMENTER_STEPS,
    TEST_SEEDS,
    Arm,
    labelled_seeds,
    run_recipe,
    synthetic_arrays,
    train_arm,
    write_project,
)
from genaug_tiny.scenes import render_scenes


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a demonstration does; the defaults are those of ``genaug quickstart``.

    Args:
        scenes: Labelled scenes.
        test_scenes: Unseen scenes to measure on, at most 300.
        images_per_mask: K.
        sampling_steps: Of the diffusion model; None for the preset's own.
        adapter_steps: Optimiser steps of the adapter.
        segmenter_steps: Optimiser steps of each segmenter: the filter's and the compared ones.
        remark: What to know about the results.
    """

    scenes: int = 20
    test_scenes: int = len(TEST_SEEDS)
    images_per_mask: int = RECIPE["generator"]["images_per_mask"]
    sampling_steps: int | None = None
    adapter_steps: int = RECIPE["generator"]["training"]["steps"]
    segmenter_steps: int = SEGMENTER_STEPS
    remark: str = "One training each: two points more or less are chance. The README has the means over several seeds."

    def recipe_changes(self) -> dict[str, Any]:
        """Return the keys of `experiment.RECIPE` to replace."""
        generator = {**RECIPE["generator"], "images_per_mask": self.images_per_mask}
        generator["training"] = {**generator["training"], "steps": self.adapter_steps}
        if self.sampling_steps is not None:
            generator["steps"] = self.sampling_steps
        predictor = {"use": "small-unet", "steps": self.segmenter_steps}
        return {"generator": generator, "filters": [{"use": "relative", "predictor": predictor}]}


FULL = Extent()
#: Every stage for real, and none of them long enough to learn from.
SHORT = Extent(
    scenes=4,
    test_scenes=12,
    images_per_mask=3,
    sampling_steps=4,
    adapter_steps=6,
    segmenter_steps=12,
    remark="Everything runs; so few steps teach nothing, and the table means nothing.",
)


def quickstart_matchmask_short(
    output: Path, *, seed: int = 0, device: str = "cpu", say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Go MatchMask's whole path in seconds, to see that an installation works; `quickstart_matchmask` shows results."""
    return quickstart_matchmask(output, seed=seed, device=device, say=say, extent=SHORT)


def quickstart_matchmask(
    output: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    extent: Extent = FULL,
) -> dict[str, Any]:
    """Show MatchMask's whole path: about five minutes on two CPU cores.

    Args:
        output: Folder for data, recipe, store, gallery and results; a second call goes on where the first stopped.
        seed: Which scenes are labelled, and all other randomness.
        device: Torch device of the diffusion model; segmenters train on the CPU.
        say: Takes progress headings.
        extent: How much to do.

    Returns:
        ``table`` (text), ``arms`` (mIoU and IoU per class), ``remark``, ``gallery`` and ``results`` (paths) and
        ``lines`` (what a user adds to their own trainer).
    """
    started = time.monotonic()
    seeds, test_seeds = labelled_seeds(extent.scenes, seed), TEST_SEEDS[: extent.test_scenes]
    say(f"1/4 Drawing {extent.scenes} labelled scenes and a recipe in {output}")
    recipe = write_project(output, seeds, seed=seed, changes=extent.recipe_changes())
    say(f"2/4 genaug run {recipe}: adapt, generate, filter, report")
    store = SampleStore.open(run_recipe(recipe, device=device).output)
    say(f"3/4 Training two small segmenters, {len(test_seeds)} unseen scenes to measure on")
    real, synthetic, test = render_scenes(seeds), synthetic_arrays(store), render_scenes(test_seeds)
    arms = [
        train_arm("real only", [real], test, seed=seed, steps=extent.segmenter_steps),
        train_arm("real + synthetic", [real, synthetic], test, seed=seed, steps=extent.segmenter_steps),
    ]
    say(f"4/4 Done in {time.monotonic() - started:.0f} s")
    result = {
        "arms": [{"name": a.name, "miou": a.miou, "iou": a.iou, "images": a.images} for a in arms],
        "seed": seed,
        "labelled_scenes": extent.scenes,
        "test_scenes": len(test_seeds),
        "remark": extent.remark,
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
