"""Self-training on CamVid: every control and method, alone and on top of FixMatch, few labels, three seeds.

    python benchmarks/camvid_selftraining.py --data CAMVID --work RUNS/camvid_selftraining --json results/FILE.json

The unlabelled images are the training images that are neither labelled nor in the held-out blocks of time (nor in the
three seconds before them), on which everything is measured. All arms of a seed start from one model, which
``--burn-in`` steps on the labelled images made, and take ``--steps`` more at half the learning rate; the ceiling then
sees the labels of every image. Finished arms are kept in ``--work``, and an arm that was stopped goes on from its last
checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from camvid_data import CLASSES, blocks, read, split
from camvid_matchmask import reduced
from harness import Row, emit, parser
from selftraining import ARMS, CEILING, UPDATED, arm, rows_of, train


def main() -> None:
    """Train every arm of every split, model and seed that is not done yet, then write the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="CamVid folder")
    arguments.add_argument("--work", type=Path, required=True, help="folder for checkpoints and finished arms")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--shares", nargs="+", default=["1_16", "1_8"])
    arguments.add_argument("--models", nargs="+", default=["unet", "segformer"], choices=["unet", "segformer"])
    arguments.add_argument("--burn-in", type=int, default=1200)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--batch", type=int, default=4, help="labelled images a step; as many unlabelled ones")
    arguments.add_argument("--size", type=int, nargs=2, default=[72, 96], metavar=("H", "W"))
    arguments.add_argument("--arms", nargs="+", default=[*ARMS, *UPDATED, CEILING], choices=[*ARMS, *UPDATED, CEILING])
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    if "supervised" not in options.arms:
        arguments.error("--arms needs supervised, which the others are compared with")
    torch.set_num_threads(options.threads)
    frames = read(options.data)
    near, held_out = blocks(frames)
    test = frames.pick(sorted(held_out))
    measured = reduced((test.images, test.masks), options.size)
    rows: list[Row] = []
    everything: dict[str, Any] = {}
    for share in options.shares:
        for model in options.models:
            once = (share, model) == (options.shares[0], "unet")  # enough to see what the averages do
            arms = [name for name in options.arms if once or name not in UPDATED]
            results: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
            for seed in options.only or range(options.seeds):
                stems, _ = split(options.data, frames, seed, share)
                others = [s for s in frames.stems if s not in near | held_out | set(stems)]
                some, rest = frames.pick(stems), frames.pick(others)
                labelled = reduced((some.images, some.masks), options.size)
                unknown = reduced((rest.images, rest.masks), options.size)
                place = options.work / f"{options.size[0]}x{options.size[1]}" / share / model / f"seed{seed}"
                lr = 4e-3 if model == "unet" else 6e-4
                how = {"classes": CLASSES, "model": model, "batch": options.batch, "seed": seed}
                begun = place / f"burn-in-{options.burn_in}x{options.batch}"
                train(ARMS["supervised"], labelled, unknown[0], measured, begun, steps=options.burn_in, lr=lr, **how)
                for name in arms:
                    recipe, known = arm(name, labelled, unknown)
                    folder = place / f"{options.burn_in}+{options.steps}x{options.batch}" / name.replace(" ", "-")
                    result = train(
                        recipe, known, unknown[0], measured, folder, steps=options.steps, lr=lr / 2, start=begun, **how
                    )
                    results[name].append(result)
                    print(f"{share}, {model}, seed {seed}, {name}: {100 * result['miou']:.1f} %", flush=True)
            rows += rows_of(results, f"mIoU, {share.replace('_', '/')} labels, {model}")
            everything[f"{share} {model}"] = results
    if not options.only:
        emit(rows, options.json, seeds=everything)


if __name__ == "__main__":
    main()
