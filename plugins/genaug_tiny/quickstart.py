"""``genaug quickstart``: MatchMask from labelled scenes to a comparison, on data that genaug draws itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.store import SampleStore
from genaug_tiny.demonstration import TOO_SHORT, Demonstration, Say
from genaug_tiny.experiment import (
    RECIPE,
    SEGMENTER_STEPS,
    TEST_SEEDS,
    Arm,
    Arrays,
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
    remark=TOO_SHORT,
)


def quickstart_matchmask_short(output: Path, *, seed: int = 0, device: str = "cpu", say: Say = print) -> dict[str, Any]:
    """Go MatchMask's whole path in seconds, to see that an installation works; `quickstart_matchmask` shows results."""
    return quickstart_matchmask(output, seed=seed, device=device, say=say, extent=SHORT)


def quickstart_matchmask(
    output: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    say: Say = print,
    extent: Extent = FULL,
) -> dict[str, Any]:
    """Show MatchMask's whole path: about five minutes on two CPU cores.

    Args:
        output: See `Demonstration.show`.
        seed: See there.
        device: See there.
        say: See there.
        extent: How much to do.

    Returns:
        See there.
    """

    def train(store: SampleStore, seeds: Sequence[int], test: Arrays) -> Sequence[Arm]:
        real, synthetic, steps = render_scenes(seeds), synthetic_arrays(store), extent.segmenter_steps
        return [
            train_arm("real only", [real], test, seed=seed, steps=steps),
            train_arm("real + synthetic", [real, synthetic], test, seed=seed, steps=steps),
        ]

    shown = Demonstration(
        scenes=extent.scenes,
        test_scenes=extent.test_scenes,
        stages="adapt, generate, filter, report",
        write=lambda seeds: write_project(output, seeds, seed=seed, changes=extent.recipe_changes()),
        train=train,
        lines=lambda store: [
            "from genaug_torch import MixedDataset, StoreDataset",
            f'synthetic = StoreDataset("{store}")',
            'train_set = MixedDataset(train_set, synthetic, ratio=1.0, scheme="append")',
        ],
        remark=extent.remark,
    )
    return shown.show(output, seed=seed, device=device, say=say)
