"""ScribbleGen on rendered scenes: the quickstart's experiment over several seeds, with every encode ratio by itself.

Every seed scribbles over scenes of its own, adapts genaug-tiny's ControlNet to them and makes an image per scribble and
encode ratio; every arm trains a small segmenter for the same number of steps. Finished arms are kept in ``--work``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from harness import emit, parser
from scribble_arms import CEILING, arms_of, kept, rows_of

from genaug.recipe import digest
from genaug.store import SampleStore
from genaug_tiny.experiment import SEGMENTER_STEPS, TEST_SEEDS, labelled_seeds, run_recipe, write_project
from genaug_tiny.scenes import render_scenes
from genaug_tiny.scribbled import SCRIBBLE_RECIPE, scribbled, train_scribble_arm

ARMS = arms_of(SCRIBBLE_RECIPE["generator"]["encode_ratio"])


def run_seed(options: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Return the arms of one seed."""
    # Every option that decides the figures is in the name: a later call with others measures anew.
    tag = digest([SCRIBBLE_RECIPE, options.steps, options.scenes, options.test_scenes])[:6]
    folder, seeds = options.work / f"{tag}-seed{seed}", labelled_seeds(options.scenes, seed)
    images, masks = render_scenes(seeds)
    drawn, test = scribbled(masks, seed), render_scenes(TEST_SEEDS[: options.test_scenes])
    recipe = write_project(folder, seeds, seed=seed, template=SCRIBBLE_RECIPE, label=lambda _: drawn)
    store = SampleStore.open(run_recipe(recipe, device=options.device).output)

    def measured(name: str) -> dict[str, Any]:
        ratio, real = ARMS[name], (images, masks if name == CEILING else drawn)
        synthetic = {} if ratio is None else {"store": store, "encode_ratio": ratio}
        arm = train_scribble_arm(name, real, test, seed=seed, steps=options.steps, **synthetic)
        return {"miou": arm.miou, "iou": dict(arm.iou)}

    return {
        name: kept(folder / "arms" / f"{number}.json", lambda name=name: measured(name))
        for number, name in enumerate(ARMS)
    }


def main() -> None:
    """Run the seeds and write one row per arm; the baseline is scribbles only."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=8)
    arguments.add_argument("--scenes", type=int, default=30)
    arguments.add_argument("--test-scenes", type=int, default=len(TEST_SEEDS))
    arguments.add_argument("--steps", type=int, default=SEGMENTER_STEPS, help="of every segmenter")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--device", default="cpu", help="of the diffusion model; segmenters train on the CPU")
    arguments.add_argument("--work", type=Path, default=Path("runs/tiny_scribblegen"))
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    results = [run_seed(options, seed) for seed in (options.only or range(options.seeds))]
    if not options.only:
        emit(rows_of(results), options.json, seeds=results, recipe=yaml.safe_dump(SCRIBBLE_RECIPE))


if __name__ == "__main__":
    main()
