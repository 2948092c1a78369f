"""ScribbleGen on rendered scenes: the quickstart's experiment over several seeds, with every encode ratio by itself.

Every seed scribbles over scenes of its own, adapts genaug-tiny's ControlNet to them and makes an image per scribble and
encode ratio; every arm trains a small segmenter for the same number of steps: 1,600, as after the quickstart's 400
whole masks have not taught persons yet (an IoU of 0.001 in the first seed). The best fixed encode ratio is chosen on
300 scenes beside the test scenes. Images and finished arms are kept in ``--work``, so the script can be stopped and
started at will, and segmenters that train for longer (``--steps``) train on the same images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from harness import emit, parser
from scribble_arms import add_arguments, chosen_arms, measure_arms, place_of, rows_of, weights_hash

from genaug.store import SampleStore
from genaug_tiny.experiment import SEGMENTER_STEPS, TEST_SEEDS, labelled_seeds, run_recipe, write_project
from genaug_tiny.scenes import CLASSES, render_scenes
from genaug_tiny.scribbled import BATCH, SCRIBBLE_RECIPE, scribbled
from genaug_tiny.weights import model_folder

LEVELS = SCRIBBLE_RECIPE["generator"]["encode_ratio"]
#: Scenes to choose the encode ratio by: neither labelled nor tested on in any seed.
VALIDATION = range(950_000, 950_300)
WIDTH = 12


def run_seed(options: Any, names: list[str], seed: int) -> dict[str, dict[str, Any]]:
    """Return the arms of one seed."""
    deciding = {
        "recipe": SCRIBBLE_RECIPE, "model": weights_hash(model_folder()), "scenes": options.scenes,
    }  # fmt: skip
    folder, seeds = place_of(options.work, deciding, seed), labelled_seeds(options.scenes, seed)
    images, masks = render_scenes(seeds)
    drawn = scribbled(masks, seed)
    recipe = write_project(folder, seeds, seed=seed, template=SCRIBBLE_RECIPE, label=lambda _: drawn)
    test, validation = (render_scenes(part[: options.test_scenes]) for part in (TEST_SEEDS, VALIDATION))
    return measure_arms(
        folder, names, LEVELS, (images, drawn, masks),
        lambda: SampleStore.open(run_recipe(recipe, device=options.device).output), test, validation,
        words=list(CLASSES.values()), seed=seed, steps=options.steps, batch_size=BATCH, width=WIDTH,
    )  # fmt: skip


def main() -> None:
    """Run the seeds and write one row per arm; the baseline is scribbles only."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=8)
    arguments.add_argument("--scenes", type=int, default=30)
    arguments.add_argument("--test-scenes", type=int, default=len(TEST_SEEDS))
    arguments.add_argument("--steps", type=int, default=4 * SEGMENTER_STEPS, help="of every segmenter")
    arguments.add_argument("--work", type=Path, default=Path("runs/tiny_scribblegen"))
    add_arguments(arguments)
    options = arguments.parse_args()
    names = chosen_arms(arguments, options, LEVELS)
    results = [run_seed(options, names, seed) for seed in (options.only or range(options.seeds))]
    if not options.only:
        emit(rows_of(results), options.json, seeds=results, recipe=yaml.safe_dump(SCRIBBLE_RECIPE))


if __name__ == "__main__":
    main()
