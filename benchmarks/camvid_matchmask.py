"""MatchMask on CamVid: 1/16 of the labels, five images per mask, every filter, three seeds.

    python benchmarks/camvid_matchmask.py --data CAMVID --base RUNS/base --work RUNS/camvid --json results/camvid.json

``--base`` comes from ``benchmarks/camvid_base.py``; images are made at 128x96 and stored at 120x90. Segmenters are
small U-Nets that work at ``--size``, by default 80x60 because no GPU was at hand, the same number of steps for every
arm; measured on blocks of time that were held out of the training drives. Every finished arm is kept in ``--work``,
so the script can be stopped and started at will.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from camvid_base import words
from camvid_data import CLASSES, IGNORE, Frames, read, split
from harness import emit, parser, row
from PIL import Image

from genaug.engine import run
from genaug.recipe import digest, load_recipe
from genaug.store import SampleStore
from genaug_tiny.segmenter import evaluate_miou, train_segmenter

Arrays = tuple[np.ndarray, np.ndarray]
FILTERS = {"none": [], "confidence": ["confidence"], "relative": ["relative"]}


def recipe_of(folder: Path, labelled: Frames, base: Path, options: Any, seed: int) -> Path:
    """Write the labelled frames and a recipe to `folder`."""
    for kind, arrays in (("images", labelled.images), ("masks", labelled.masks)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for stem, array in zip(labelled.stems, arrays, strict=True):
            Image.fromarray(array).save(folder / kind / f"{stem}.png")
    predictor = {
        "use": "small-unet", "steps": options.steps, "width": options.width, "batch_size": options.batch,
        "size": options.size,
    }  # fmt: skip
    recipe = {
        "name": "camvid-matchmask", "seed": seed,
        "labels": {"names": dict(enumerate(words())), "ignore_index": IGNORE},
        "data": {"images": "images", "masks": "masks"},
        "generator": {
            "use": "matchmask", "base": str(base.resolve()), "images_per_mask": 5, "batch_size": 5, "preset": "fast",
            "size_mode": "keep_aspect", "resolution": 112,
            "guidance_scale": 4.0,  # as for genaug-tiny, which the base comes from
            "training": {
                "steps": options.adapt_steps, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 200,
            },
        },
        "filters": [{"use": name, "predictor": predictor} for name in ("confidence", "relative")],
        "output": "store",
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return folder / "recipe.yaml"


def reduced(arrays: Arrays, size: list[int]) -> Arrays:
    """Return images and masks of (height, width) `size`: area averages and nearest neighbours."""
    images, masks = arrays
    kinds = (images, Image.Resampling.BOX), (masks, Image.Resampling.NEAREST)
    small = [np.stack([np.asarray(Image.fromarray(x).resize(size[::-1], how)) for x in array]) for array, how in kinds]
    return small[0], small[1]


def arm(path: Path, parts: list[Arrays], test: Frames, options: Any, seed: int) -> dict[str, Any]:
    """Train and measure one segmenter, or read what an earlier call measured."""
    if path.is_file():
        return dict(json.loads(path.read_text()))
    images, masks = (np.concatenate(arrays) for arrays in zip(*(reduced(p, options.size) for p in parts), strict=True))
    weights = np.concatenate([np.full(len(x), 1 / len(x)) for x, _ in parts])
    model = train_segmenter(
        images, masks, num_classes=CLASSES, ignore_index=IGNORE, steps=options.steps, batch_size=options.batch,
        width=options.width, seed=seed, sample_weights=weights,
    )  # fmt: skip
    miou, iou = evaluate_miou(model, *reduced((test.images, test.masks), options.size), CLASSES, IGNORE)
    result = {"miou": miou, "iou": dict(zip(words(), map(float, iou), strict=True)), "images": len(images)}
    path.write_text(json.dumps(result))
    return result


def run_seed(options: Any, frames: Frames, seed: int) -> dict[str, dict[str, Any]]:
    """Return the arms of one seed."""
    # Every option that decides the figures is in the name: a later call with others measures anew.
    tag = digest([options.steps, options.batch, options.width, options.adapt_steps, options.size, str(options.base)])[
        :6
    ]
    folder = options.work / f"{tag}-seed{seed}"
    stems, held_out = split(options.data, frames, seed)
    labelled, test = frames.pick(stems), frames.pick(held_out)
    recipe = load_recipe(recipe_of(folder, labelled, options.base, options, seed))
    run(recipe, device=options.device)
    store, real = SampleStore.open(recipe.output), (labelled.images, labelled.masks)
    arms = {"real only": arm(folder / "real.json", [real], test, options, seed)}
    for name, filters in FILTERS.items():
        samples = list(store.training_view(filters))
        made = np.stack([s.image for s in samples if s.image is not None])
        synthetic = (made, np.stack([s.mask for s in samples if s.mask is not None]))
        kept = float((synthetic[1] != IGNORE).mean())
        for label, parts in (("synthetic only", [synthetic]), ("real + synthetic", [real, synthetic])):
            result = arm(folder / f"{label.split()[0]}-{name}.json", parts, test, options, seed)
            arms[f"{label}, filter {name}"] = {**result, "kept_pixels": kept}
    return arms


def main() -> None:
    """Run the seeds and write one row per arm; the baseline is real only."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="CamVid folder")
    arguments.add_argument("--base", type=Path, required=True, help="folder written by camvid_base.py")
    arguments.add_argument("--work", type=Path, required=True, help="folder for stores and finished arms")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=1200, help="segmenter steps, the same for every arm")
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--size", type=int, nargs=2, default=[60, 80], metavar=("H", "W"), help="of the segmenters")
    arguments.add_argument("--width", type=int, default=12)
    arguments.add_argument("--adapt-steps", type=int, default=400)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    arguments.add_argument("--device", default="auto")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    frames = read(options.data)
    if options.only:
        for seed in options.only:
            run_seed(options, frames, seed)
        return
    results = [run_seed(options, frames, seed) for seed in range(options.seeds)]
    real = statistics.mean(r["real only"]["miou"] for r in results)
    rows = []
    for name in results[0]:
        values = [r[name]["miou"] for r in results]
        made = row(f"mIoU, {name}", values, real, "share", larger_is_better=True)
        mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append({**made, "value": mean, "ratio": mean / real, "std": spread})
    emit(rows, options.json, seeds=results)


if __name__ == "__main__":
    main()
