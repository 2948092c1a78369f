"""Mask2Former on rendered scenes: labelled scenes alone against SENSE for mask classifiers, over several seeds.

Every seed has its own 20 labelled and 400 unlabelled scenes of 128 pixels; all share 200 unseen test scenes. All arms
of a seed start from one model that ``--burn-in`` steps on the labelled scenes made, and take ``--steps`` more at half
the learning rate; the ceiling then sees true labels of the 400. All have the set loss on labelled scenes with
Mask2Former's weights. The image gate of SENSE is open: a model of this size, trained from scratch, is never as sure of
its queries as 0.95. Finished arms are kept in ``--work``, and an arm that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from harness import emit, parser
from selftraining import CEILING, Arrays, every, rows_of, train

from genaug.config import merge
from genaug_tiny.experiment import TEST_SEEDS, labelled_seeds
from genaug_tiny.scenes import CLASSES, render_scenes

SIZE = 128
UNLABELLED = range(600_000, 700_000)
#: 112 squared points are for images of 640 pixels.
POINTS = {"points": 1024}
SUPERVISED: dict[str, Any] = {"extends": "supervised", "supervised": {"loss": "set", "set_loss": POINTS}}
TERM = {
    "name": "transport", "view": "strong", "mixer": {"use": "cutmix"}, "order": "mix-then-label", "loss": "set",
    "normalizer": "kept", "weight": 0.5, "set_loss": POINTS,
}  # fmt: skip
SENSE: dict[str, Any] = {
    "extends": "sense-query",
    "labeler": {"use": "sense-query", "image_gate": None},
    "supervised": {"set_loss": POINTS},
    "terms": [TERM],
}


def changed(*, labeler: dict[str, Any] | None = None, set_loss: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return SENSE with other options of its labeler or of its set loss."""
    term = {**TERM, "set_loss": POINTS | (set_loss or {})}
    return merge(SENSE, {"labeler": SENSE["labeler"] | (labeler or {}), "terms": [term]})


#: The method, the confidence mask as the released code has it, and hard labels without transport.
ARMS: dict[str, dict[str, Any]] = {
    "supervised": SUPERVISED,
    "sense-query": SENSE,
    "sense-query, conf_mask as_released": changed(set_loss={"conf_mask": "as_released"}),
    "sense-query, support fp32": changed(labeler={"support": "fp32"}),
    CEILING: SUPERVISED,
    "no transport": merge(SENSE, {"labeler": {"use": "threshold", "threshold": 0.95}}),
}


def scenes(seed: int, labelled: int) -> tuple[Arrays, Arrays]:
    """Return the labelled scenes of one seed, and the others with the masks that only the ceiling sees."""
    others = render_scenes(UNLABELLED[400 * seed : 400 * (seed + 1)], size=SIZE)
    return render_scenes(labelled_seeds(labelled, seed), size=SIZE), others


def main() -> None:
    """Train every arm of every seed that is not done yet, then write the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, default=Path("runs/query_rendered"))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--scenes", type=int, default=20)
    arguments.add_argument("--burn-in", type=int, default=1000)
    arguments.add_argument("--steps", type=int, default=1000)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    options = arguments.parse_args()
    if "supervised" not in options.arms:
        arguments.error("--arms needs supervised, which the others are compared with")
    torch.set_num_threads(1)
    test = render_scenes(TEST_SEEDS[:200], size=SIZE)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in options.arms}
    for seed in options.only or range(options.seeds):
        labelled, others = scenes(seed, options.scenes)
        place = options.work / f"seed{seed}"
        begun = place / f"burn-in-{options.burn_in}x{options.batch}"
        how = {"classes": len(CLASSES), "model": "mask2former", "batch": options.batch, "seed": seed}
        train(SUPERVISED, labelled, others[0], test, begun, steps=options.burn_in, lr=1e-3, **how)
        for name in options.arms:
            folder = place / f"{options.burn_in}+{options.steps}x{options.batch}" / name.replace(" ", "-")
            known = every(labelled, others) if name == CEILING else labelled
            result = train(
                ARMS[name], known, others[0], test, folder, steps=options.steps, lr=5e-4, start=begun, **how
            )  # fmt: skip
            results[name].append(result)
            print(f"seed {seed}, {name}: {100 * result['miou']:.1f} %", flush=True)
    if not options.only:
        emit(rows_of(results), options.json, seeds=results)


if __name__ == "__main__":
    main()
