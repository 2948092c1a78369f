"""Does MatchMask help a segmenter with few labels? On rendered scenes and genaug-tiny, over several seeds.

Every seed has its own labelled scenes; all share the 300 unseen test scenes. Every arm trains the same small U-Net for
the same number of steps, half of each batch real when there is real data, and does so several times: two trainings on
the same images that differ by their random numbers alone are up to four points of mIoU apart, as much as the effect to
be measured. A seed's figure is the mean over its trainings, all arms with the same random numbers. The ceiling is what
perfect images would give, and a little more: the same things in the same places rendered five times with other
ground, specimens and light (`render_scene(look=...)`), and exact masks. Finished seeds are kept in ``--work``.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from harness import emit, parser, row

from genaug.recipe import digest
from genaug.store import SampleStore
from genaug_tiny.experiment import (
    RECIPE,
    SEGMENTER_STEPS,
    TEST_SEEDS,
    Arrays,
    labelled_seeds,
    run_recipe,
    synthetic_arrays,
    train_arm,
    write_project,
)
from genaug_tiny.scenes import render_scene, render_scenes

PREDICTOR = RECIPE["filters"][0]["predictor"]
FILTERS: dict[str, list[dict[str, Any]]] = {
    "no filter": [],
    "confidence": [{"use": "confidence", "predictor": PREDICTOR}],
    "class-loss": [{"use": "class-loss", "predictor": PREDICTOR}],
    "relative": [{"use": "relative", "predictor": PREDICTOR}],
}
#: Filters that are also measured without real images.
WITHOUT_REAL = ("relative",)


def mean_miou(cache: Path, parts: Sequence[Arrays], test: Arrays, *, seeds: Sequence[int]) -> float:
    """Return the mean IoU of segmenters trained on `parts`, one per seed; what `cache` holds is not trained again."""
    content = hashlib.sha256(str(SEGMENTER_STEPS).encode())
    for array in (array for pair in (*parts, test) for array in pair):
        content.update(repr(array.shape).encode() + array.tobytes())
    cache.mkdir(parents=True, exist_ok=True)
    values = []
    for seed in seeds:
        done = cache / f"{content.hexdigest()[:16]}-{seed}.json"
        if not done.is_file():
            done.write_text(json.dumps(train_arm("arm", parts, test, seed=seed).miou))
        values.append(float(json.loads(done.read_text())))
    return statistics.mean(values)


def run_seed(work: Path, seed: int, scenes: int, trainings: int, device: str) -> dict[str, Any]:
    """Return mIoU per arm of one seed: one adaptation and one set of images, judged by every filter."""
    # Every option that decides the figures is in the name: a later call with others measures anew.
    tag = digest([RECIPE, list(FILTERS), SEGMENTER_STEPS, scenes, trainings])[:6]
    done = work / f"{tag}-seed{seed}.json"
    if done.is_file():
        return dict(json.loads(done.read_text()))
    folder, seeds = work / f"{tag}-seed{seed}", labelled_seeds(scenes, seed)
    filters = [f for group in FILTERS.values() for f in group]
    recipe = run_recipe(write_project(folder, seeds, seed=seed, changes={"filters": filters}), device=device)
    real, test = render_scenes(seeds), render_scenes(TEST_SEEDS)
    looks = [render_scene(number, look=k) for number in seeds for k in range(RECIPE["generator"]["images_per_mask"])]
    perfect = np.stack([scene.image for scene in looks]), np.stack([scene.mask for scene in looks])

    def measured(*parts: Arrays) -> float:
        return mean_miou(work / "arms", parts, test, seeds=[1000 * k + seed for k in range(trainings)])

    arms = {"real only": measured(real), "ceiling: real + scenes rendered anew": measured(real, perfect)}
    kept = {}
    for name, group in FILTERS.items():
        synthetic = synthetic_arrays(SampleStore.open(recipe.output), [f["use"] for f in group])
        kept[name] = float((synthetic[1] != 255).mean())
        arms[f"real + synthetic, {name}"] = measured(real, synthetic)
        if name in WITHOUT_REAL:
            arms[f"synthetic only, {name}"] = measured(synthetic)
    result = {"seed": seed, "miou": arms, "kept_pixels": kept}
    done.write_text(json.dumps(result, indent=1))
    return result


def main() -> None:
    """Run the seeds and write one row per arm; the baseline is real only, the ratio of means is above 1 if it helps."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--scenes", type=int, default=20)
    arguments.add_argument("--trainings", type=int, default=3, help="segmenters trained per arm and seed")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--device", default="cpu", help="of the diffusion model; segmenters train on the CPU")
    arguments.add_argument("--work", type=Path, default=Path("runs/tiny_matchmask"))
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.only:
        for seed in options.only:
            run_seed(options.work, seed, options.scenes, options.trainings, options.device)
        return
    results = [
        run_seed(options.work, seed, options.scenes, options.trainings, options.device) for seed in range(options.seeds)
    ]
    real = statistics.mean(r["miou"]["real only"] for r in results)
    rows = []
    for arm in results[0]["miou"]:
        values = [r["miou"][arm] for r in results]
        made = row(f"mIoU, {arm}", values, real, "share", larger_is_better=True)
        gains = [r["miou"][arm] - r["miou"]["real only"] for r in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append({**made, "value": statistics.mean(values), "ratio": statistics.mean(values) / real,
                     "std": spread, "gains": gains})  # fmt: skip
    emit(rows, options.json, seeds=results, recipe=yaml.safe_dump(RECIPE), scenes=options.scenes,
         trainings=options.trainings)  # fmt: skip


if __name__ == "__main__":
    main()
