"""How well genaug-tiny's scribble ControlNet follows scribbles.

Every row is the mean IoU between the whole masks of 48 evaluation scenes and what a reference segmenter, which knows
1,500 labelled scenes, sees in images made for their scribbles: with the ControlNet as it is shipped, and adapted to 30
other scenes with the quickstart's settings. `scribble` is the same on the scribbled pixels alone, `chance` the first
with the masks of other scenes, `scribble chance` the second with their scribbles. Below encode ratio 1 images start
from the real ones, so that only the rows of ratio 1 tell what the scribbles do. The baseline is the reference on the
real images.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, emit, parser, row
from PIL import Image
from tiny_quality import LABELS, TEST, reference

from genaug import Rng, Sample
from genaug.recipe import digest
from genaug.registry import default_registry
from genaug.types import Draw
from genaug_scribblegen.adapter_files import NULL
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_scribblegen.place import find_controlnet
from genaug_tiny.scenes import CLASSES, render_scenes
from genaug_tiny.scribbled import SCRIBBLE_RECIPE, scribbled
from genaug_tiny.segmenter import evaluate_miou

#: Scenes that it is adapted to; neither the reference nor the evaluation knows them.
ADAPTED = range(410_000, 410_030)
#: Adapted or not, encode ratio, guidance scale.
SETTINGS = [
    *((adapted, 1.0, guidance) for adapted in (False, True) for guidance in (1.0, 2.0, 4.0)),
    *((True, ratio, 2.0) for ratio in (0.5, 0.75)),
]
SHOWN = 12
FIGURES = ("scribble", "chance", "scribble chance")


def samples_of(seeds: range, seed: int) -> tuple[list[Sample], np.ndarray]:
    """Return scribbled scenes, and their whole masks."""
    images, masks = render_scenes(seeds)
    drawn = scribbled(masks, seed)
    pairs = enumerate(zip(images, drawn, strict=True))
    return [Sample(f"s{i}", image, scribble) for i, (image, scribble) in pairs], masks


def _weights(controlnet: str) -> str:
    """Return a hash of the weights that an option `controlnet` names, or the Hub id."""
    place, local = find_controlnet(controlnet, root=Path(), registry=default_registry())
    if not local:
        return place
    files = [*sorted(Path(place).glob("*.safetensors")), Path(place).parent / NULL]
    return digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()])


def generator_of(controlnet: str, folder: Path, adapted: bool, ratio: float, guidance: float) -> ScribbleGenGenerator:
    """Return a generator that was adapted as in the quickstart, or for one step of no size."""
    recipe = {key: value for key, value in SCRIBBLE_RECIPE["generator"].items() if key != "use"}
    training: dict[str, Any] = {**recipe["training"], "preview_images": 0}
    if not adapted:
        training |= {"steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    changes = {"controlnet": controlnet, "encode_ratio": ratio, "guidance_scale": guidance, "batch_size": 16}
    generator = ScribbleGenGenerator(ScribbleGenOptions(**{**recipe, **changes, "training": training}))
    # Another ControlNet or other settings are another training, which must not meet the checkpoint of this one.
    known = digest([controlnet, _weights(controlnet), recipe, training, list(ADAPTED)])[:8]
    place = folder / f"{'adapted' if adapted else 'shipped'}-{known}"
    place.mkdir(parents=True, exist_ok=True)
    if not generator.adapted(place):
        generator.adapt(samples_of(ADAPTED, 0)[0], place, labels=LABELS, rng=Rng(0))
    generator.load_adapted(place)
    generator.prepare(LABELS)
    return generator


def images_for(generator: ScribbleGenGenerator, samples: list[Sample]) -> np.ndarray:
    """Return one image for every scribble."""
    draws = [Draw(sample, 0, Rng(1).child(i).integer()) for i, sample in enumerate(samples)]
    made = []
    for start in range(0, len(draws), 16):
        made += generator.generate(draws[start : start + 16], ignore_index=LABELS.ignore_index)
    return np.stack([sample.image for sample in made])


def main() -> None:
    """Score every setting with one reference."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--controlnet", default="genaug-tiny", help="what the recipe's option takes")
    arguments.add_argument("--work", type=Path, default=Path("runs/tiny_quality"), help="as for tiny_quality.py")
    arguments.add_argument("--scenes", type=int, default=len(TEST))
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    judge = reference(options.work / "reference")
    samples, masks = samples_of(TEST[: options.scenes], 1)
    real, drawn = np.stack([s.image for s in samples]), np.stack([s.mask for s in samples])

    def scored(name: str, images: np.ndarray, ceiling: float | None = None) -> Row:
        others = zip(FIGURES, (drawn, np.roll(masks, 1, 0), np.roll(drawn, 1, 0)), strict=True)
        more = {key: evaluate_miou(judge, images, target, len(CLASSES))[0] for key, target in others}
        miou, _ = evaluate_miou(judge, images, masks, len(CLASSES))
        return {**row(name, [miou], ceiling, "share", larger_is_better=True), **more}

    rows = [scored("real images", real)]
    shown = [real[:SHOWN], np.stack([LABELS.colorize(mask) for mask in drawn[:SHOWN]])]
    for adapted, ratio, guidance in SETTINGS:
        generator = generator_of(options.controlnet, options.work / "scribbles", adapted, ratio, guidance)
        made = images_for(generator, samples)
        shown.append(made[:SHOWN])
        name = f"{'adapted' if adapted else 'as shipped'}, encode ratio {ratio:g}, guidance {guidance:g}"
        rows.append(scored(name, made, rows[0]["value"]))
        print(name, {key: round(rows[-1][key], 3) for key in ("value", *FIGURES)}, flush=True)
    sheet = np.concatenate([np.concatenate(list(line), 1) for line in shown])
    large = Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST)
    large.save(options.work / "scribbles" / "sheet.png")
    emit(rows, options.json)


if __name__ == "__main__":
    main()
