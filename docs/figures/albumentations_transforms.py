"""A picture of what the four transforms for albumentations do, drawn with the transforms themselves.

    python docs/figures/albumentations_transforms.py --out docs/how-to/figures

A small U-Net is trained for a little while on a few rendered scenes; its entropy tells `PatchCutMix` where to paste.
Other rendered scenes stand in for the images of a store.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from self_training import COLOURS, NOT_LABELLED, STYLE, Arrays, Panels, Study, prepare, share, some

from genaug.batch import image_tensor
from genaug.labels import LabelSpace
from genaug.recipe import load_recipe
from genaug.store import open_writer
from genaug.types import Draw, Sample
from genaug_albumentations import CopyPasteFromStore, PatchCutMix, PatchMask, SyntheticSwap, seed_sample
from genaug_albumentations.host import A
from genaug_tiny.scenes import render_scenes
from genaug_upc.functional import entropy_map

#: What `CopyPasteFromStore` pastes in the picture.
PASTED = ["person"]


def fill_store(folder: Path, labels: LabelSpace, scenes: Arrays) -> Path:
    """Write a store of scenes, one for each id, and return its folder."""
    table = {
        "labels": dict(labels.names),
        "data": {"images": "images", "masks": "masks"},
        "generator": {"use": "matchmask", "base": "genaug-tiny"},
    }
    recipe = load_recipe(table, root=folder)
    with open_writer(recipe) as writer:
        writer.plan(len(scenes[0]), 1, missing=len(scenes[0]))
        for number, (image, mask) in enumerate(zip(*scenes, strict=True)):
            writer.add([Draw(Sample(str(number), mask=mask), 0, number)], [Sample(str(number), image, mask)], {})
        writer.finish([f"{number}_0" for number in range(len(scenes[0]))])
    return recipe.output


def results(study: Study, store: Path, labels: LabelSpace, shown: int) -> dict[str, tuple[Any, Any]]:
    """Return image and mask after each transform, by its name."""
    image = (study.unlabelled.images[shown] * 255).round().byte().movedim(0, -1).numpy()
    mask = some(study.unlabelled.targets)[shown].byte().numpy()
    given: dict[str, Any] = {"image": image, "mask": mask}
    donors = [
        ((donor * 255).round().byte().movedim(0, -1).numpy(), target.byte().numpy())
        for donor, target in zip(study.labelled.images, some(study.labelled.targets), strict=True)
    ]
    uncertainty = entropy_map(study.predict(study.unlabelled.images))[shown].numpy()
    table = labels.to_dict()
    transforms: dict[str, tuple[Any, dict[str, Any]]] = {
        "SyntheticSwap": (SyntheticSwap(store, table, draw="random", p=1), {}),
        "CopyPasteFromStore": (CopyPasteFromStore(store, table, PASTED, p=1), {}),
        "PatchCutMix": (
            PatchCutMix(ks=[5], p=1),
            {"uncertainty": uncertainty, "genaug_metadata": {"donors": donors}},
        ),
        "PatchMask": (PatchMask(patch=image.shape[0] // 8, fill=255, p=1), {}),
    }
    found = {"The sample": (image, mask)}
    for name, (transform, more) in transforms.items():
        targets = {"uncertainty": "mask"} if "uncertainty" in more else None
        pipeline = A.Compose([transform], additional_targets=targets)
        seed_sample(pipeline, seed=study.seed, sample_id=shown, epoch=0)
        out = pipeline(**given, **more)
        found[name] = out["image"], out["mask"]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the teacher and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the picture")
    parser.add_argument("--steps", type=int, default=100, help="training steps of the teacher")
    parser.add_argument("--seed", type=int, default=0, help="of the training and of the draws")
    parser.add_argument("--size", type=int, default=64, help="side of a scene in pixels")
    parser.add_argument("--shown", type=int, default=7, help="which unlabelled scene the picture shows")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    labels = LabelSpace(dict(enumerate(COLOURS)), NOT_LABELLED)
    labelled = render_scenes(range(20), size=options.size)
    unlabelled = render_scenes(range(600_000, 600_008), size=options.size)
    study = prepare(labelled, unlabelled, COLOURS, steps=options.steps, seed=options.seed)
    with tempfile.TemporaryDirectory() as folder:
        store = fill_store(Path(folder), labels, render_scenes(range(700_000, 700_012), size=options.size))
        found = results(study, store, labels, options.shown)
    notes = {"SyntheticSwap": "drawn from the store", "CopyPasteFromStore": f"of a drawn sample: {', '.join(PASTED)}"}
    notes["PatchCutMix"] = "where the teacher is least sure"
    image, mask = found["The sample"]
    with mpl.rc_context(STYLE):
        panels = Panels(study, rows=2, columns=len(found))
        for name, (after, _) in found.items():
            changed = torch.from_numpy((after != image).any(2))
            note = f"{share(changed)} hidden" if name == "PatchMask" else notes.get(name, "")
            panels.photo(name, image_tensor(after), note)
        for name, (_, after) in found.items():
            note = "unchanged" if name != "The sample" and np.array_equal(after, mask) else ""
            panels.classes("Its mask", torch.from_numpy(after), note)
        options.out.mkdir(parents=True, exist_ok=True)
        figure = panels.finish()
        figure.savefig(options.out / "albumentations.png", dpi=110, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
