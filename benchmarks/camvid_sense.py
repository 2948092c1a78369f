"""SENSE end to end on CamVid: labels, prompts, images of a base trained on CamVid, self-training; against controls.

    python benchmarks/camvid_sense.py --data CAMVID --base RUNS/base --work RUNS/camvid_sense --json results/FILE.json

``--base`` comes from ``benchmarks/camvid_base.py``. It has seen no held-out block of time, but all other training
images with the lists of their classes, those included that count as unlabelled here: arms with its images know more
than those without, and what they gain does not come from the labelled images alone. Images are made at 128x96 and
stored at 120x90.
Real unlabelled images are the training images that are neither labelled nor near the held-out blocks, on which
everything is measured. Finished images and arms are kept in ``--work``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from camvid_base import fingerprint, words
from camvid_data import CLASSES, blocks, read, split
from camvid_matchmask import reduced
from harness import Row, emit, parser
from selftraining import rows_of
from sense_images import SENSE_ARMS, make_images, needed, train_arms


def main() -> None:
    """Make images and train every arm of every split, model and seed that is not done yet, then write the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="CamVid folder")
    arguments.add_argument("--base", type=Path, required=True, help="folder written by camvid_base.py")
    arguments.add_argument("--work", type=Path, required=True, help="folder for images, checkpoints and finished arms")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--shares", nargs="+", default=["1_16"])
    arguments.add_argument("--models", nargs="+", default=["unet"], choices=["unet", "segformer"])
    arguments.add_argument("--images", type=int, default=400, help="generated images of each kind")
    arguments.add_argument("--guidance", type=float, default=2.0)
    arguments.add_argument("--sampling-steps", type=int, default=20)
    arguments.add_argument("--burn-in", type=int, default=1200)
    arguments.add_argument("--steps", type=int, default=1800)
    arguments.add_argument("--batch", type=int, default=4, help="labelled images a step; as many unlabelled ones")
    arguments.add_argument("--size", type=int, nargs=2, default=[72, 96], metavar=("H", "W"))
    arguments.add_argument("--arms", nargs="+", default=list(SENSE_ARMS), choices=list(SENSE_ARMS))
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--device", default="cpu", help="where images are made")
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
        results: dict[str, dict[str, list[dict[str, Any]]]] = {
            model: {name: [] for name in options.arms} for model in options.models
        }
        for seed in options.only or range(options.seeds):
            stems, _ = split(options.data, frames, seed, share)
            others = [s for s in frames.stems if s not in near | held_out | set(stems)]
            some, rest = frames.pick(stems), frames.pick(others)
            base = f"{options.base.name}-{fingerprint(options.base)}"
            setting = f"{base}-{options.images}-{options.sampling_steps}-{options.guidance}"
            made = options.work / setting / share / f"seed{seed}"
            images = {}
            for kind in ("synthetic", "sparse"):
                if needed(options.arms, kind):
                    found = make_images(
                        made, (some.images, some.masks), dict(enumerate(words())), base=str(options.base.resolve()),
                        count=options.images, seed=seed, sparse=kind == "sparse", steps=options.sampling_steps,
                        guidance=options.guidance, batch=10, resolution=112, device=options.device,
                    )  # fmt: skip
                    images[kind] = reduced((found, found[..., 0]), options.size)[0]
            for model, kept in results.items():
                done = train_arms(
                    options.arms, reduced((some.images, some.masks), options.size),
                    reduced((rest.images, rest.masks), options.size), images, measured,
                    made / f"{model}-{options.size[0]}x{options.size[1]}-batch-{options.batch}", classes=CLASSES,
                    burn_in=options.burn_in, steps=options.steps, lr=4e-3 if model == "unet" else 6e-4,
                    model=model, batch=options.batch, seed=seed,
                )  # fmt: skip
                for name, result in done.items():
                    kept[name].append(result)
        for model, kept in results.items():
            if not options.only:
                rows += rows_of(kept, f"mIoU, {share.replace('_', '/')} labels, {model}")
            everything[f"{share} {model}"] = kept
    if not options.only:
        emit(rows, options.json, seeds=everything)


if __name__ == "__main__":
    main()
