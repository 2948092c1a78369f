"""What the demonstrations of ``genaug quickstart`` have in common: their four parts, their table, their files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.store import SampleStore
from genaug_tiny.experiment import TEST_SEEDS, Arm, Arrays, labelled_seeds, run_recipe
from genaug_tiny.scenes import render_scenes

Say = Callable[[str], None]

TOO_SHORT = "Everything runs; so few steps teach nothing, and the table means nothing."


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One method, from labelled scenes to a comparison of segmenters.

    Args:
        scenes: Labelled scenes.
        test_scenes: Unseen scenes to measure on, at most 300.
        stages: What ``genaug run`` does here, in words.
        write: Writes a project for these scenes and returns its recipe.
        train: Trains and measures the segmenters to compare, given the store, the labelled scenes and the test scenes.
        lines: What a user adds to their own trainer, given the store's folder.
        remark: What to know about the results.
    """

    scenes: int
    test_scenes: int
    stages: str
    write: Callable[[Sequence[int]], Path]
    train: Callable[[SampleStore, Sequence[int], Arrays], Sequence[Arm]]
    lines: Callable[[Path], Sequence[str]]
    remark: str

    def show(self, output: Path, *, seed: int, device: str, say: Say) -> dict[str, Any]:
        """Go the whole way; a second call goes on where the first stopped.

        Args:
            output: Folder for data, recipe, store, gallery and results.
            seed: Which scenes are labelled, and all other randomness.
            device: Torch device of the diffusion model; segmenters train on the CPU.
            say: Takes progress headings.

        Returns:
            ``table`` (text), ``arms`` (mIoU and IoU per class), ``remark``, ``gallery`` and ``results`` (paths) and
            ``lines`` (what a user adds to their own trainer).
        """
        started = time.monotonic()
        seeds, test_seeds = labelled_seeds(self.scenes, seed), TEST_SEEDS[: self.test_scenes]
        say(f"1/4 Drawing {self.scenes} labelled scenes and a recipe in {output}")
        recipe = self.write(seeds)
        say(f"2/4 genaug run {recipe}: {self.stages}")
        store = SampleStore.open(run_recipe(recipe, device=device).output)
        say(f"3/4 Training two small segmenters, {len(test_seeds)} unseen scenes to measure on")
        arms = self.train(store, seeds, render_scenes(test_seeds))
        say(f"4/4 Done in {time.monotonic() - started:.0f} s")
        result = {
            "arms": [{"name": a.name, "miou": a.miou, "iou": a.iou, "images": a.images} for a in arms],
            "seed": seed,
            "labelled_scenes": self.scenes,
            "test_scenes": len(test_seeds),
            "remark": self.remark,
        }
        results = output / "results.json"
        results.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
        return {
            **result,
            "table": format_table(arms),
            "gallery": str(store.path / "report" / "index.html"),
            "results": str(results),
            "lines": list(self.lines(store.path)),
        }


def format_table(arms: Sequence[Arm]) -> str:
    """Return a table of mIoU and per-class IoU in percent, one line per arm."""
    names = list(arms[0].iou)
    width = 2 + max(len(arm.name) for arm in arms)
    lines = [f"{'trained on':{width}}{'images':>7}{'mIoU':>7}" + "".join(f"{n:>10}" for n in names)]
    for arm in arms:
        cells = "".join(f"{100 * arm.iou[n]:10.1f}" for n in names)
        lines.append(f"{arm.name:{width}}{arm.images:7d}{100 * arm.miou:7.1f}{cells}")
    return "\n".join(lines)
