"""What the benchmarks of SENSE with generated images share: prompts from the labelled masks, images, arms.

All arms of a seed start from one model that a training on the labelled images made, and take the same number of steps
with the same labelled batches; those with unlabelled images see as many of them as labelled ones in a step, whatever
they are: real, generated, or half and half. ``sparse`` images come from prompts with one class each, ``synthetic`` ones
from prompts that are as dense as the denser half of the labelled masks. The ceiling sees true labels of the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from selftraining import ABLATIONS, ARMS, CEILING, Arrays, every, train

from genaug.engine import run
from genaug.recipe import load_recipe
from genaug.store import SampleStore

SENSE, FIXMATCH, NO_TRANSPORT = ARMS["sense"], ARMS["fixmatch"], ABLATIONS["sense, no transport"]
#: Arm -> its recipe and where its unlabelled images come from. FixMatch and SENSE without transport are controls.
SENSE_ARMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "supervised": (ARMS["supervised"], ()),
    "sense, real": (SENSE, ("real",)),
    "sense, synthetic": (SENSE, ("synthetic",)),
    "sense, sparse synthetic": (SENSE, ("sparse",)),
    "sense, real and synthetic": (SENSE, ("real", "synthetic")),
    "sense without transport, synthetic": (NO_TRANSPORT, ("synthetic",)),
    "fixmatch, real": (FIXMATCH, ("real",)),
    "fixmatch, synthetic": (FIXMATCH, ("synthetic",)),
    "fixmatch, real and synthetic": (FIXMATCH, ("real", "synthetic")),
    CEILING: (ARMS["supervised"], ()),
}
#: Bases like genaug-tiny know class names and nothing else, in ascending order, separated by a space.
WORDS_ALONE = {"templates": ["{classes}"], "separator": " ", "last_separator": None, "order": "id", "min_share": 0.01}


def make_images(
    folder: Path, labelled: Arrays, names: Mapping[int, str], *, base: str, count: int, seed: int, sparse: bool,
    steps: int = 20, guidance: float = 2.0, batch: int = 20, resolution: int | None = None, device: str = "cpu",
) -> np.ndarray:  # fmt: skip
    """Generate unlabelled images of the labelled images' size, or read what an earlier call made.

    Args:
        folder: Gets labelled samples, recipe and store.
        labelled: Images and masks; prompts are made from the masks, nothing learns from the images.
        names: Class table.
        base: Folder or name of the text-to-image model.
        count: Number of images.
        seed: Of prompts and images.
        sparse: One class a prompt, in turn, instead of dense scenes.
        steps: Sampling steps.
        guidance: Guidance scale.
        batch: Images sampled at once.
        resolution: Side of a square of the area to sample; the base's own by default.
        device: Torch device.

    Returns:
        uint8 ``[count, H, W, 3]``.
    """
    for kind, arrays in zip(("images", "masks"), labelled, strict=True):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(folder / kind / f"{number:04d}.png")
    conditions: dict[str, Any] = {"format": "class-prompts", "count": count, "dense": 0.5, "seed": seed, **WORDS_ALONE}
    if sparse:
        words = list(names.values())
        lines = [{"file_name": f"one_{n:04d}.png", "text": words[n % len(words)]} for n in range(count)]
        (folder / "sparse.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        conditions = {"format": "prompts", "path": "sparse.jsonl", "size": list(labelled[0].shape[1:3])}
    recipe = {
        "name": "sense-images", "seed": seed, "labels": {"names": dict(names), "ignore_index": 255},
        "data": {"images": "images", "masks": "masks"}, "conditions": conditions,
        "generator": {
            "use": "text2image", "base": base, "steps": steps, "guidance_scale": guidance, "batch_size": batch,
            "resolution": resolution,
        },
        "output": "sparse" if sparse else "dense",
    }  # fmt: skip
    path = folder / f"{recipe['output']}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    loaded = load_recipe(path)
    run(loaded, device=device)
    return np.stack([s.image for s in SampleStore.open(loaded.output).training_view() if s.image is not None])


def train_arms(
    arms: Sequence[str], labelled: Arrays, real: Arrays, made: Mapping[str, np.ndarray], test: Arrays, folder: Path, *,
    burn_in: int, steps: int, lr: float, **how: Any,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Train the arms of one seed that are not done yet; see `selftraining.train`.

    Args:
        arms: Names in `SENSE_ARMS`.
        labelled: Images and masks.
        real: Unlabelled real images, with masks that the ceiling alone sees.
        made: Generated images by kind.
        test: Images and masks to measure on.
        folder: One folder per arm is made here.
        burn_in: Steps on the labelled images before the arms begin.
        steps: Steps of every arm.
        lr: Learning rate of the burn-in; the arms have half of it.
        how: Passed on.
    """
    begun, images, results = folder / f"burn-in-{burn_in}", {"real": real[0], **made}, {}
    train(ARMS["supervised"], labelled, real[0], test, begun, steps=burn_in, lr=lr, **how)
    for name in arms:
        recipe, sources = SENSE_ARMS[name]
        known = every(labelled, real) if name == CEILING else labelled
        unlabelled = [images[source] for source in sources] or real[0]  # an arm without sources looks at none
        place = folder / f"{burn_in}+{steps}" / name.replace(", ", "-").replace(" ", "-")
        results[name] = train(recipe, known, unlabelled, test, place, steps=steps, lr=lr / 2, start=begun, **how)
        print(f"{folder.parent.name}, {name}: {100 * results[name]['miou']:.1f} %", flush=True)
    return results


def needed(arms: Sequence[str], kind: str) -> bool:
    """Return whether an arm needs images of a kind."""
    return any(kind in SENSE_ARMS[name][1] for name in arms)
