"""SENSE end to end on rendered scenes: labels, prompts, genaug-tiny's images, self-training; against controls.

    python benchmarks/tiny_sense_images.py --work RUNS/tiny_sense --json benchmarks/results/tiny_sense_images.json

Every seed has its own 20 labelled scenes, 400 real unlabelled ones and 400 generated images of either kind; all share
the 300 unseen test scenes of the quickstart. Finished images and arms are kept in ``--work``, and what was stopped goes
on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from harness import emit, parser
from selftraining import rows_of
from sense_images import SENSE_ARMS, make_images, needed, train_arms

from genaug_tiny.experiment import TEST_SEEDS, labelled_seeds
from genaug_tiny.scenes import CLASSES, render_scenes

UNLABELLED = range(600_000, 700_000)


def main() -> None:
    """Make images and train every arm of every seed that is not done yet, then write the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, default=Path("runs/tiny_sense_images"))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--scenes", type=int, default=20)
    arguments.add_argument("--images", type=int, default=400, help="unlabelled images of each kind")
    arguments.add_argument("--guidance", type=float, default=2.0)
    arguments.add_argument("--sampling-steps", type=int, default=20)
    arguments.add_argument("--burn-in", type=int, default=600)
    arguments.add_argument("--steps", type=int, default=1800)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--arms", nargs="+", default=list(SENSE_ARMS), choices=list(SENSE_ARMS))
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    if "supervised" not in options.arms:
        arguments.error("--arms needs supervised, which the others are compared with")
    torch.set_num_threads(options.threads)
    test = render_scenes(TEST_SEEDS)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in options.arms}
    for seed in options.only or range(options.seeds):
        labelled = render_scenes(labelled_seeds(options.scenes, seed))
        first = 400 * seed
        made = options.work / f"{options.images}-{options.sampling_steps}-{options.guidance}" / f"seed{seed}"
        real, images = render_scenes(UNLABELLED[first : first + min(400, options.images)]), {}
        for kind in ("synthetic", "sparse"):
            if needed(options.arms, kind):
                images[kind] = make_images(
                    made, labelled, CLASSES, base="genaug-tiny", count=options.images, seed=seed,
                    sparse=kind == "sparse", steps=options.sampling_steps, guidance=options.guidance,
                )  # fmt: skip
        done = train_arms(
            options.arms, labelled, real, images, test, made / f"batch-{options.batch}", burn_in=options.burn_in,
            steps=options.steps, lr=4e-3, classes=len(CLASSES), model="unet", batch=options.batch, seed=seed,
        )  # fmt: skip
        for name, result in done.items():
            results[name].append(result)
    if not options.only:
        emit(rows_of(results), options.json, seeds=results)


if __name__ == "__main__":
    main()
