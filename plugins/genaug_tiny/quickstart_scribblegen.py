"""``genaug quickstart --method scribblegen``: from scribbled scenes to a comparison, on drawn data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.store import SampleStore
from genaug_tiny.demonstration import TOO_SHORT, Demonstration, Say
from genaug_tiny.experiment import SEGMENTER_STEPS, TEST_SEEDS, Arm, Arrays, write_project
from genaug_tiny.scenes import render_scenes
from genaug_tiny.scribbled import SCRIBBLE_RECIPE, scribbled, train_scribble_arm


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a demonstration does; the defaults are those of ``genaug quickstart``.

    Args:
        scenes: Scribbled scenes.
        test_scenes: Unseen scenes to measure on, at most 300.
        sampling_steps: Of the diffusion model.
        adapter_steps: Optimiser steps of the ControlNet.
        segmenter_steps: Optimiser steps of each segmenter.
        remark: What to know about the results.
    """

    scenes: int = 30
    test_scenes: int = len(TEST_SEEDS)
    sampling_steps: int = SCRIBBLE_RECIPE["generator"]["steps"]
    adapter_steps: int = SCRIBBLE_RECIPE["generator"]["training"]["steps"]
    segmenter_steps: int = SEGMENTER_STEPS
    remark: str = "One training each: two points more or less are chance."

    def recipe_changes(self) -> dict[str, Any]:
        """Return the keys of `SCRIBBLE_RECIPE` to replace."""
        generator = SCRIBBLE_RECIPE["generator"]
        training = {**generator["training"], "steps": self.adapter_steps}
        return {"generator": {**generator, "steps": self.sampling_steps, "training": training}}


FULL = Extent()
#: Every stage for real, and none of them long enough to learn from.
SHORT = Extent(scenes=3, test_scenes=12, sampling_steps=2, adapter_steps=2, segmenter_steps=12, remark=TOO_SHORT)


def quickstart_scribblegen_short(
    output: Path, *, seed: int = 0, device: str = "cpu", say: Say = print
) -> dict[str, Any]:
    """Go ScribbleGen's whole path in seconds, to see that an installation works."""
    return quickstart_scribblegen(output, seed=seed, device=device, say=say, extent=SHORT)


def quickstart_scribblegen(
    output: Path, *, seed: int = 0, device: str = "cpu", say: Say = print, extent: Extent = FULL
) -> dict[str, Any]:
    """Show ScribbleGen's whole path: scribbles, a ControlNet, images at three encode ratios, adaptive training.

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
        images, masks = render_scenes(seeds)
        real, steps = (images, scribbled(masks, seed)), extent.segmenter_steps
        return [
            train_scribble_arm("scribbles only", real, test, seed=seed, steps=steps),
            train_scribble_arm("scribbles + synthetic", real, test, store=store, seed=seed, steps=steps),
        ]

    shown = Demonstration(
        scenes=extent.scenes,
        test_scenes=extent.test_scenes,
        stages="adapt, generate, report",
        write=lambda seeds: write_project(
            output, seeds, seed=seed, changes=extent.recipe_changes(), template=SCRIBBLE_RECIPE,
            label=lambda masks: scribbled(masks, seed),
        ),
        train=train,
        lines=lambda store: [
            "from genaug_torch import EncodeRatioDataset, MixedDataset",
            f'synthetic = EncodeRatioDataset("{store}", epochs=60)',
            'train_set = MixedDataset(train_set, synthetic, ratio=1.0, scheme="append")',
            "train_set.set_epoch(0)  # and so on, before every epoch: the encode ratio rises with them",
        ],
        remark=extent.remark,
    )  # fmt: skip
    return shown.show(output, seed=seed, device=device, say=say)
