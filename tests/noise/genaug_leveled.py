"""A generator for tests: several images of every mask at each of several encode ratios, as ScribbleGen's."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import genaug_noise
from noise_helpers import OFFLINE, table
from pydantic import Field

from genaug.component import Component
from genaug.engine import run
from genaug.hookspecs import hookimpl
from genaug.recipe import load_recipe
from genaug.registry import Registry
from genaug.types import Sample

LEVELS = (0.5, 0.7, 1.0)
IMAGES = 2  # of a mask at each level


@hookimpl
def genaug_components():
    yield Component("generator", "leveled", "genaug_leveled:Leveled", "genaug_leveled:LeveledOptions")


class LeveledOptions(genaug_noise.NoiseOptions):
    ratios: tuple[float | str, ...] = Field(LEVELS, description="Of every `IMAGES` images, in order.")


class Leveled(genaug_noise.Noise):
    """Noise; image k of a mask is of level ``k // IMAGES``."""

    def _generate(self, draws):
        made = super()._generate(draws)
        for draw, sample in zip(draws, made, strict=True):
            if isinstance(sample, Sample):
                sample.meta["encode_ratio"] = self.options.ratios[draw.k // IMAGES]
        return made


def make_store(root: Path, *, below: float | None = None, ratios=LEVELS, **generator) -> Path:
    """Fill a store with `IMAGES` images of four masks at every ratio; a filter drops means under `below`."""
    root.mkdir(parents=True, exist_ok=True)
    entries = [("noise", "genaug_noise"), ("leveled", "genaug_leveled")]
    registry = Registry([metadata.EntryPoint(name, module, "genaug") for name, module in entries], strict=True)
    options = {"use": "leveled", "images_per_mask": IMAGES * len(ratios), "ratios": list(ratios), "refuse": []}
    changes = table(
        data={"odd_every": 0},
        generator={**options, **generator},
        filters=[] if below is None else [{"use": "dark", "below": below}],
    )
    run(load_recipe(changes, root=root, registry=registry), device="cpu", stages=OFFLINE)
    return root / "out"
