"""ScribbleGen on CamVid: scribbles alone, with synthetic images by every encode ratio, and whole masks; three seeds.

    python benchmarks/camvid_scribblegen.py --data CAMVID --base RUNS/base --work RUNS/camvid_scribblegen \
        --json benchmarks/results/camvid_scribblegen.json

``--base`` comes from ``benchmarks/camvid_base.py``. The labelled frames are a share of the data's own lists, with the
data's own scribbles (simulated, 4.6 % of the pixels at 120x90); images are made at 128x96. Everything is measured on
whole masks of blocks of time that were held out of the training drives. The best of the fixed encode ratios is chosen,
seed by seed, on the data's validation clip, which nothing is trained on. Adapting starts from genaug-tiny's ControlNet,
whose hints have a colour per class id: classes that both have share their ids here. Whether the images follow their
scribbles is what ``benchmarks/camvid_scribble_quality.py`` tells first, in half the time that one seed takes here.
Images and finished arms are kept in ``--work``, so the script can be stopped and started at will, and other segmenters
(``--steps``, ``--batch``, ``--width``) are trained on the same images; ``sheet.png`` in the first seed's folder shows
encode ratios and guidance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from camvid_base import words
from camvid_data import CLASSES, IGNORE, SIZE, Frames, read, split
from harness import emit, parser
from PIL import Image
from scribble_arms import add_arguments, chosen_arms, measure_arms, place_of, rows_of, weights_hash

from genaug.engine import run
from genaug.recipe import Recipe, load_recipe
from genaug.rng import Rng
from genaug.store import SampleStore
from genaug.types import Draw
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.generator import ScribbleGenGenerator
from genaug_tiny.weights import model_folder

#: CamVid's ids in the order of their ids here: sky, building, road, pavement for genaug-tiny's grass, tree, car and
#: pedestrian come first, as its ControlNet knows them.
ORDER = (0, 1, 3, 4, 5, 8, 9, 2, 6, 7, 10)
GUIDANCE = (1.0, 2.0, 4.0)
SHOWN = 8


def reordered(masks: np.ndarray) -> np.ndarray:
    """Return masks with the ids of `ORDER`."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(ORDER)] = np.arange(CLASSES)
    return table[masks]


def scribbles(data: Path, stems: tuple[str, ...]) -> np.ndarray:
    """Read scribbles at half their size: a pixel has the class of all strokes under it, none if they disagree.

    Nearest neighbours would lose half of the strokes that are one pixel wide.
    """
    result = []
    for stem in stems:
        with Image.open(data / "scribbles" / f"{stem}.png") as file:
            large = np.asarray(file)
        cells = large.reshape(SIZE[1], 2, SIZE[0], 2).swapaxes(1, 2).reshape(SIZE[1], SIZE[0], 4)
        lowest, highest = cells.min(2), np.where(cells == IGNORE, 0, cells).max(2)
        result.append(np.where(lowest == highest, lowest, IGNORE).astype(np.uint8))
    return np.stack(result)


def generator_options(options: Any) -> dict[str, Any]:
    """Return the generator's options, but for encode ratio and guidance."""
    training = {
        "steps": options.adapt_steps, "batch_size": options.adapt_batch, "learning_rate": options.adapt_lr,
        "schedule": "linear", "flip_probability": 0.5, "checkpoint_every": 100,
    }  # fmt: skip
    start: dict[str, Any] = {"controlnet": options.controlnet}
    if options.controlnet == "none":
        start, training["hint_init"] = {}, "scaled"
    return {
        "base": str(options.base.resolve()), **start, "batch_size": 8, "steps": options.sampling_steps,
        "size_mode": "keep_aspect", "resolution": 112, "training": training,
    }  # fmt: skip


def recipe_of(folder: Path, labelled: Frames, drawn: np.ndarray, options: Any, seed: int) -> Recipe:
    """Write the scribbled frames and a recipe to `folder`."""
    for kind, arrays in (("images", labelled.images), ("scribbles", drawn)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for stem, array in zip(labelled.stems, arrays, strict=True):
            Image.fromarray(array).save(folder / kind / f"{stem}.png")
    recipe = {
        "name": "camvid-scribblegen", "seed": seed,
        "labels": {"names": {i: words()[old] for i, old in enumerate(ORDER)}, "ignore_index": IGNORE},
        "data": {"images": "images", "masks": "scribbles"},
        "generator": {
            "use": "scribblegen", **generator_options(options), "encode_ratio": options.ratios,
            "guidance_scale": options.guidance,
        },
        "output": "store",
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return load_recipe(folder / "recipe.yaml")


def models_hash(options: Any) -> str:
    """Return what tells base and first ControlNet from others of the same name."""
    return weights_hash(options.base, *([model_folder()] if options.controlnet == "genaug-tiny" else []))


def run_seed(options: Any, names: list[str], frames: Frames, seed: int) -> dict[str, dict[str, Any]]:
    """Return the arms of one seed."""
    keys = (
        "share",
        "limit",
        "ratios",
        "sampling_steps",
        "guidance",
        "controlnet",
        "adapt_steps",
        "adapt_batch",
        "adapt_lr",
    )
    deciding = {"models": models_hash(options), **{key: getattr(options, key) for key in keys}}
    folder = place_of(options.work, deciding, seed)
    stems, held_out = split(options.data, frames, seed, options.share)
    labelled, test, clip = frames.pick(stems[: options.limit]), frames.pick(held_out), read(options.data, "val")
    drawn = reordered(scribbles(options.data, labelled.stems))
    recipe = recipe_of(folder, labelled, drawn, options, seed)
    picture = folder / "sheet.png"

    def store() -> SampleStore:
        run(recipe, device=options.device)
        if seed == 0 and not picture.is_file():
            sheet(recipe, picture, device=options.device)
        return SampleStore.open(recipe.output)

    measured = [(part.images, reordered(part.masks)) for part in (test, clip)]
    return measure_arms(
        folder, names, options.ratios, (labelled.images, drawn, reordered(labelled.masks)), store, *measured,
        words=[words()[old] for old in ORDER], seed=seed, steps=options.steps, batch_size=options.batch,
        width=options.width,
    )  # fmt: skip


def sheet(recipe: Recipe, path: Path, *, device: str) -> None:
    """Draw real images and scribbles, their images by encode ratio, and those of the highest ratio by guidance."""
    samples = list(recipe.source())[:SHOWN]
    adapting = ("controlnet", "training")  # how it came about, which does not go with a finished adapter
    settings = {key: value for key, value in recipe.config.generator.options.items() if key not in adapting}
    settings |= {"adapter": str(recipe.output / "adapter"), "batch_size": SHOWN}
    generator = ScribbleGenGenerator(ScribbleGenOptions(**settings), device=device)
    generator.prepare(recipe.labels, device=device)
    levels = generator.options.levels

    def rows() -> Iterator[list[np.ndarray]]:
        yield [sample.image for sample in samples]
        yield [recipe.labels.colorize(sample.mask) for sample in samples]
        wanted = [(k, generator.options.guidance_scale) for k in range(len(levels))]
        for k, guidance in [*wanted, *((len(levels) - 1, s) for s in GUIDANCE)]:
            generator.options = generator.options.model_copy(update={"guidance_scale": guidance})
            draws = [Draw(sample, k, Rng(0).child("sheet", sample.id).integer()) for sample in samples]
            yield [made.image for made in generator.generate(draws, ignore_index=IGNORE)]

    picture = Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows()]))
    picture.resize((picture.width * 3 // 2, picture.height * 3 // 2), Image.Resampling.NEAREST).save(path)


def add_settings(arguments: Any) -> None:
    """Add what decides the images."""
    arguments.add_argument("--data", type=Path, required=True, help="CamVid folder")
    arguments.add_argument("--base", type=Path, required=True, help="folder written by camvid_base.py")
    arguments.add_argument("--share", default="1_4", choices=["1_16", "1_8", "1_4", "1_2"], help="of labelled frames")
    arguments.add_argument("--limit", type=int, help="labelled frames at most")
    arguments.add_argument("--sampling-steps", type=int, default=20)
    arguments.add_argument("--controlnet", default="genaug-tiny", help="to start from; none: the base's UNet")
    arguments.add_argument("--adapt-batch", type=int, default=4)
    arguments.add_argument("--adapt-lr", type=float, default=3e-4)


def main() -> None:
    """Run the seeds and write one row per arm; the baseline is scribbles only."""
    arguments = parser(__doc__.splitlines()[0])
    add_settings(arguments)
    add_arguments(arguments)
    arguments.add_argument("--work", type=Path, required=True, help="folder for stores and finished arms")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--ratios", type=float, nargs="+", default=[0.4, 0.6, 0.8, 1.0], help="encode ratios")
    arguments.add_argument("--guidance", type=float, default=2.0)
    arguments.add_argument("--adapt-steps", type=int, default=400)
    arguments.add_argument("--steps", type=int, default=1200, help="segmenter steps, the same for every arm")
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--width", type=int, default=12)
    options = arguments.parse_args()
    names = chosen_arms(arguments, options, options.ratios)
    frames = read(options.data)
    results = [run_seed(options, names, frames, seed) for seed in (options.only or range(options.seeds))]
    if not options.only:
        emit(rows_of(results), options.json, seeds=results)


if __name__ == "__main__":
    main()
