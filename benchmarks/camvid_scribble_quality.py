"""Do images made for scribbles of CamVid follow them, and after how many steps of adapting?

    python benchmarks/camvid_scribble_quality.py --data CAMVID --base RUNS/base --work RUNS/camvid_scribble_quality \\
        --json benchmarks/results/camvid_scribble_quality.json

To be run before ``benchmarks/camvid_scribblegen.py``, whose settings of the same names should be what does best here;
reference and adapters are kept, so that another ``--adapt-steps`` costs its own training alone. The scribbled frames
are those of its first seed. Every row is the mean IoU between their whole masks and what a reference segmenter sees in
images made for their scribbles; the reference knows the whole masks of the frames that are neither scribbled nor near a
held-out block of time, so that real images have about the highest value there is (the baseline). ``scribble`` is the
same on the scribbled pixels, which the new images are labelled with: what is missing to 1 is noise in the labels, as
far as the reference tells. ``chance`` and ``scribble chance`` are the two with the masks and scribbles of another
frame, far away in the list; frames of one camera are alike, so chance is not little. Below encode ratio 1 images start
from the real ones: only the rows of ratio 1 tell what the scribbles do. If those are at chance, the images of lower
ratios follow the real image alone. No steps are genaug-tiny's ControlNet as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from camvid_base import words
from camvid_data import CLASSES, IGNORE, Frames, blocks, read, split
from camvid_scribblegen import ORDER, add_settings, generator_options, models_hash, reordered, scribbles
from harness import Row, emit, parser, row
from PIL import Image
from scribble_arms import place_of

from genaug import LabelSpace, Rng, Sample
from genaug.types import Draw
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_tiny.segmenter import SmallUNet, evaluate_miou, load, save, train_segmenter

LABELS = LabelSpace({i: words()[old] for i, old in enumerate(ORDER)}, IGNORE)
SHOWN = 8
#: Encode ratio to compare with, at the first guidance.
BELOW = 0.6


def reference(folder: Path, frames: Frames, taken: set[str], steps: int) -> SmallUNet:
    """Train the reference on every frame that is not taken, once."""
    if not (folder / "segmenter.json").is_file():
        known = frames.pick([stem for stem in frames.stems if stem not in taken])
        masks = reordered(known.masks)
        save(train_segmenter(known.images, masks, num_classes=CLASSES, steps=steps, batch_size=8), folder)
    return load(folder)


def generator_of(options: Any, folder: Path, samples: list[Sample], steps: int) -> ScribbleGenGenerator:
    """Return a generator that was adapted for so many steps to the scribbled frames, or for one step of no size."""
    settings = generator_options(options)
    training = {**settings["training"], "steps": max(1, steps), "preview_images": 0}
    if not steps:
        training |= {"learning_rate": 1e-12, "weight_decay": 0.0}
    generator = ScribbleGenGenerator(ScribbleGenOptions(**{**settings, "training": training}), device=options.device)
    place = folder / f"adapted-{steps}"
    place.mkdir(exist_ok=True)
    if not generator.adapted(place):
        generator.adapt(samples, place, labels=LABELS, rng=Rng(0))
    generator.load_adapted(place)
    generator.prepare(LABELS, device=options.device)
    return generator


def images_for(generator: ScribbleGenGenerator, samples: list[Sample], ratio: float, guidance: float) -> np.ndarray:
    """Return one image for every scribble."""
    generator.options = generator.options.model_copy(update={"encode_ratio": ratio, "guidance_scale": guidance})
    draws = [Draw(sample, 0, Rng(1).child(sample.id).integer()) for sample in samples]
    made = []
    for start in range(0, len(draws), generator.batch_size):
        made += generator.generate(draws[start : start + generator.batch_size], ignore_index=IGNORE)
    return np.stack([sample.image for sample in made])


def main() -> None:
    """Score every number of steps, ratio and guidance with one reference."""
    arguments = parser(__doc__.splitlines()[0])
    add_settings(arguments)
    arguments.add_argument("--work", type=Path, required=True, help="folder for the reference and adapters")
    arguments.add_argument("--adapt-steps", type=int, nargs="+", default=[0, 400])
    arguments.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    arguments.add_argument("--frames", type=int, default=32, help="images to look at")
    arguments.add_argument("--reference-steps", type=int, default=1600)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--device", default="cpu")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    frames = read(options.data)
    (near, _), (stems, held_out) = blocks(frames), split(options.data, frames, 0, options.share)
    labelled = frames.pick(stems[: options.limit])
    scribbled = reordered(scribbles(options.data, labelled.stems))
    samples = [Sample(*parts) for parts in zip(labelled.stems, labelled.images, scribbled, strict=True)]
    keys = ("share", "limit", "controlnet", "sampling_steps", "adapt_batch", "adapt_lr", "reference_steps")
    deciding = {"models": models_hash(options), **{key: getattr(options, key) for key in keys}}
    folder = place_of(options.work, deciding, 0)
    judge = reference(folder / "reference", frames, near | set(held_out) | set(stems), options.reference_steps)
    some = samples[: options.frames]
    real, drawn, masks = labelled.images[: len(some)], scribbled[: len(some)], reordered(labelled.masks)[: len(some)]

    def scored(name: str, images: np.ndarray, ceiling: float | None = None) -> Row:
        far = len(some) // 2
        targets = {
            "": masks,
            "scribble": drawn,
            "chance": np.roll(masks, far, 0),
            "scribble chance": np.roll(drawn, far, 0),
        }
        found = {key: evaluate_miou(judge, images, target, CLASSES)[0] for key, target in targets.items()}
        made = {**row(name, [found.pop("")], ceiling, "share", larger_is_better=True), **found}
        print(name, {key: round(made[key], 3) for key in ("value", *found)}, flush=True)
        return made

    rows = [scored("real images", real)]
    shown = [real[:SHOWN], np.stack([LABELS.colorize(mask) for mask in drawn[:SHOWN]])]
    for steps in options.adapt_steps:
        generator = generator_of(options, folder, samples, steps)
        for ratio, guidance in [*((1.0, guidance) for guidance in options.guidance), (BELOW, options.guidance[0])]:
            made = images_for(generator, some, ratio, guidance)
            shown.append(made[:SHOWN])
            name = f"{steps} steps, encode ratio {ratio:g}, guidance {guidance:g}"
            rows.append(scored(name, made, rows[0]["value"]))
    sheet = np.concatenate([np.concatenate(list(line), 1) for line in shown])
    large = Image.fromarray(sheet).resize((sheet.shape[1] * 3 // 2, sheet.shape[0] * 3 // 2), Image.Resampling.NEAREST)
    large.save(folder / "sheet.png")
    emit(rows, options.json)


if __name__ == "__main__":
    main()
