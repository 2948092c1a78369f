"""Self-training on rendered scenes: every control and method, alone and on top of FixMatch, over several seeds.

Every seed has its own 20 labelled and 400 unlabelled scenes; all share the 300 unseen test scenes of the quickstart.
All arms of a seed start from one model, which ``--burn-in`` steps on the labelled scenes made, and take ``--steps``
more at half the learning rate; the ceiling then sees the labels of all 420 scenes.

Finished arms are kept in ``--work``, and an arm that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch
from harness import emit, parser
from selftraining import ABLATIONS, ARMS, CEILING, UPDATED, arm, rows_of, train

from genaug_tiny.experiment import TEST_SEEDS, labelled_seeds
from genaug_tiny.scenes import CLASSES, render_scenes

UNLABELLED = range(600_000, 700_000)


def main() -> None:
    """Train every arm of every seed that is not done yet, then write the table."""
    arms = [*ARMS, *ABLATIONS, *UPDATED, CEILING]
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, default=Path("runs/tiny_selftraining"))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--scenes", type=int, default=20)
    arguments.add_argument("--burn-in", type=int, default=600)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--arms", nargs="+", default=arms, choices=arms)
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    if "supervised" not in options.arms:
        arguments.error("--arms needs supervised, which the others are compared with")
    torch.set_num_threads(options.threads)
    test = render_scenes(TEST_SEEDS)
    results: dict[str, list[dict[str, object]]] = {name: [] for name in options.arms}
    for seed in options.only or range(options.seeds):
        labelled = render_scenes(labelled_seeds(options.scenes, seed))
        others = render_scenes(UNLABELLED[400 * seed : 400 * (seed + 1)])
        place = options.work / f"seed{seed}"
        how = {"classes": len(CLASSES), "model": "unet", "batch": options.batch, "seed": seed}
        begun = place / f"burn-in-{options.burn_in}x{options.batch}"
        train(ARMS["supervised"], labelled, others[0], test, begun, steps=options.burn_in, lr=4e-3, **how)
        for name in options.arms:
            recipe, known = arm(name, labelled, others)
            folder = place / f"{options.burn_in}+{options.steps}x{options.batch}" / name.replace(" ", "-")
            result = train(recipe, known, others[0], test, folder, steps=options.steps, lr=2e-3, start=begun, **how)
            results[name].append(result)
            print(f"seed {seed}, {name}: {100 * result['miou']:.1f} %", flush=True)
    if not options.only:
        emit(rows_of(results), options.json, seeds=results)


if __name__ == "__main__":
    main()
