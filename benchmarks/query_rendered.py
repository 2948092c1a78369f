"""Mask2Former on rendered scenes: labelled scenes alone against SENSE for mask classifiers, over several seeds.

Every seed has its own 20 labelled and 400 unlabelled scenes of 128 pixels; all share 200 unseen test scenes. All arms
have the set loss on labelled scenes with Mask2Former's weights. The image gate of SENSE is open: a model of this size,
trained from scratch, is never as sure of its queries as 0.95. Finished arms are kept in ``--work``, and an arm that
was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from harness import emit, parser
from selftraining import rows_of, train

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
    "no transport": merge(SENSE, {"labeler": {"use": "threshold", "threshold": 0.95}}),
}


def scenes(seed: int, labelled: int) -> tuple[Any, Any]:
    """Return labelled images and masks, and unlabelled images, of one seed."""
    unlabelled, _ = render_scenes(UNLABELLED[400 * seed : 400 * (seed + 1)], size=SIZE)
    return render_scenes(labelled_seeds(labelled, seed), size=SIZE), unlabelled


def main() -> None:
    """Train every arm of every seed that is not done yet, then write the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, default=Path("runs/query_rendered"))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--scenes", type=int, default=20)
    arguments.add_argument("--steps", type=int, default=2000)
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
        labelled, unlabelled = scenes(seed, options.scenes)
        for name in options.arms:
            folder = options.work / f"{options.steps}x{options.batch}" / f"seed{seed}" / name.replace(" ", "-")
            result = train(
                ARMS[name], labelled, unlabelled, test, folder, classes=len(CLASSES), model="mask2former",
                steps=options.steps, batch=options.batch, lr=1e-3, seed=seed,
            )  # fmt: skip
            results[name].append(result)
            print(f"seed {seed}, {name}: {100 * result['miou']:.1f} %", flush=True)
    if not options.only:
        emit(rows_of(results), options.json, seeds=results)


if __name__ == "__main__":
    main()
