"""The README's picture: what each method starts from and what it gives, one row a method.

    python docs/figures/overview.py --matchmask QS-MATCHMASK --scribblegen QS-SCRIBBLEGEN --out docs/overview.png

Needs the outputs of ``genaug quickstart`` and ``genaug quickstart --method scribblegen``, as `generative` does; the
other methods look at rendered scenes with a small teacher that is trained here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from generative import Picture, coloured, sampled, save
from matplotlib.figure import Figure
from self_training import COLOURS, NOT_LABELLED, STYLE, Study, prepare, some

from genaug import Rng
from genaug.batch import Batch, tensor_image
from genaug.recipe import load_recipe
from genaug.store import SampleStore
from genaug_maskmatch.config import Sampling
from genaug_maskmatch.labeler import MaskMatchLabeler
from genaug_maskmatch.mixer import PatchMask
from genaug_sense.labeler import SenseLabeler
from genaug_tiny.scenes import render_scenes
from genaug_upc.functional import entropy_map
from genaug_upc.mixer import UncertaintyPatchCutMix

RATIOS = (0.5, 0.7, 0.85, 1.0)
#: Inches: a panel's side, the room between two, above a row for names, the arrow, and the text on the left.
SIDE, BETWEEN, NAMES, ARROW, TEXT = 1.25, 0.08, 0.3, 0.45, 1.95


@dataclass(frozen=True)
class Line:
    """One row: a method, what it does in words, what it starts from, and what it gives."""

    method: str
    does: str
    given: tuple[str, Picture]
    gives: Sequence[tuple[str, Picture]]


def matchmask(folder: Path, shown: int) -> Line:
    """Return the synthetic images of one mask."""
    group = list(SampleStore.open(load_recipe(folder / "recipe.yaml").output).groups())[shown]
    images = [(f"new image {k + 1}", some(sample.image)) for k, sample in enumerate(group.samples[:4])]
    return Line("MatchMask", "new images\nfor the masks you have", ("mask", coloured(group.condition)), images)


def scribblegen(folder: Path, shown: int) -> Line:
    """Return images of one scribble, farther and farther from the real one."""
    recipe = load_recipe(folder / "recipe.yaml")
    source = recipe.source()
    sample = source.load(source.ids()[shown])
    images = [(f"encode ratio {ratio:g}", sampled(recipe, [sample], 4.0, ratio)[0]) for ratio in RATIOS]
    given = "image and scribble", coloured(some(sample.mask), some(sample.image))
    return Line("ScribbleGen", "new images\nfor scribbles", given, images)


def sense(study: Study, shown: int) -> Line:
    """Return the teacher's labels before and after the transport."""
    image, truth = study.unlabelled.images[shown], some(study.unlabelled.targets)[shown]
    targets = SenseLabeler().label(study.predict(study.unlabelled.images))
    before, after = some(targets.predicted)[shown], some(targets.soft).dense().argmax(1)[shown]
    kept = after.masked_fill(targets.weights[shown] == 0, NOT_LABELLED)
    gives = [("teacher's label", before), ("after transport", after), ("where it is sure", kept), ("truth", truth)]
    return Line(
        "SENSE",
        "labels for unlabelled images,\nbalanced by optimal transport",
        ("unlabelled image", tensor_image(image)),
        [(name, coloured(mask.numpy())) for name, mask in gives],
    )


def upc(study: Study, shown: int) -> Line:
    """Return where the teacher is unsure, and the image with labelled patches there."""
    mixer = UncertaintyPatchCutMix(ks=(5,))
    predictions = study.predict(study.unlabelled.images)
    uncertainty = entropy_map(predictions)
    batch = Batch(study.unlabelled.images, predictions.values.argmax(1))
    plan = mixer.plan(uncertainty, study.labelled, rng=Rng(study.seed).child("upc"))
    mixed = plan.paste(batch, study.labelled)
    unsure = mpl.colormaps["cividis"]((uncertainty[shown] / uncertainty[shown].max()).numpy())
    gives = [
        ("where it is unsure", unsure),
        ("labelled image", tensor_image(study.labelled.images[int(plan.donors[shown])])),
        ("mixed image", tensor_image(mixed.images[shown])),
        ("mixed label", coloured(some(mixed.targets)[shown].numpy())),
    ]
    return Line(
        "UPC", "labelled patches where\nthe teacher is unsure", ("unlabelled image", _image(study, shown)), gives
    )


def maskmatch(study: Study, shown: int) -> Line:
    """Return masked views and the labels that several scales agree on."""
    images, labeler = study.unlabelled.images, MaskMatchLabeler()
    targets = labeler.label(labeler.predict(study.predict, images))
    kept = targets.hard[shown].masked_fill(targets.weights[shown] == 0, NOT_LABELLED)
    gives: list[tuple[str, Picture]] = []
    samplings: tuple[Sampling, ...] = ("random", "block", "grid")
    for sampling in samplings:
        masker = PatchMask(patch=images.shape[-1] // 8, sampling=sampling, fill=float(images.mean()))
        masked = masker.mix(Batch(images), rng=Rng(study.seed).child("mask")).images[shown]
        gives.append((f"masked: {sampling}", tensor_image(masked)))
    gives.append(("label of all scales", coloured(kept.numpy())))
    return Line("MaskMatch", "the same answer\nfor masked images", ("unlabelled image", _image(study, shown)), gives)


def _image(study: Study, shown: int) -> Picture:
    image: Picture = tensor_image(study.unlabelled.images[shown])
    return image


def draw(lines: Sequence[Line]) -> Figure:
    """Return the rows below each other."""
    cell = NAMES + SIDE + BETWEEN
    width, height = TEXT + ARROW + (1 + len(lines[0].gives)) * (SIDE + BETWEEN), len(lines) * cell
    figure = Figure(figsize=(width, height), dpi=130)

    def panel(x: float, y: float, name: str, picture: Picture) -> None:
        axes = figure.add_axes((x / width, y / height, SIDE / width, SIDE / height))
        axes.imshow(np.asarray(picture), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=8.5, pad=3)

    for number, line in enumerate(lines):
        y = height - (number + 1) * cell + BETWEEN
        middle = (y + SIDE / 2) / height
        figure.text(0.1 / width, middle, line.method, fontsize=12, fontweight="bold", va="bottom")
        figure.text(0.1 / width, middle - 0.02 / height, line.does, fontsize=8.5, va="top", color="#333333")
        panel(TEXT, y, *line.given)
        at = (TEXT + SIDE + ARROW / 2) / width
        figure.text(at, middle, "\N{RIGHTWARDS ARROW}", fontsize=18, ha="center", va="center")
        for place, (name, picture) in enumerate(line.gives):
            panel(TEXT + SIDE + ARROW + place * (SIDE + BETWEEN), y, name, picture)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the teacher and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--matchmask", type=Path, required=True, help="output of genaug quickstart")
    parser.add_argument("--scribblegen", type=Path, required=True, help="output of genaug quickstart for scribblegen")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    parser.add_argument("--steps", type=int, default=300, help="training steps of the teacher")
    parser.add_argument("--shown", type=int, nargs=3, default=[3, 3, 7], help="mask, scribble and unlabelled scene")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    labelled, unlabelled = render_scenes(range(20)), render_scenes(range(600_000, 600_008))
    study = prepare(labelled, unlabelled, COLOURS, steps=options.steps, seed=0)
    mask, scribble, scene = options.shown
    lines = [matchmask(options.matchmask, mask), scribblegen(options.scribblegen, scribble)]
    lines += [sense(study, scene), upc(study, scene), maskmatch(study, scene)]
    with mpl.rc_context(STYLE):
        save(draw(lines), options.out)


if __name__ == "__main__":
    main()
