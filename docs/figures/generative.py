"""Pictures of what MatchMask and ScribbleGen make, drawn from what ``genaug quickstart`` leaves behind.

    genaug quickstart --output QS-MATCHMASK
    genaug quickstart --method scribblegen --output QS-SCRIBBLEGEN
    python docs/figures/generative.py --matchmask QS-MATCHMASK --scribblegen QS-SCRIBBLEGEN \\
        --out docs/explanation/methods/figures

MatchMask's picture shows images of the store and the pixels that the filter left of their masks. ScribbleGen's samples
anew, with the adapter of the quickstart, for every encode ratio and guidance scale that it shows. All scenes are
rendered by genaug.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from self_training import COLOURS, NOT_LABELLED, STYLE, some

from genaug import Rng, Sample
from genaug.recipe import Recipe, load_recipe
from genaug.store import SampleStore
from genaug.types import Draw
from genaug_scribblegen.generator import ScribbleGenGenerator

RATIOS = (0.4, 0.6, 0.8, 1.0)
GUIDANCE = (1.0, 2.0, 4.0)
#: Inches: a panel's side, the room between two, and above and below all.
SIDE, BETWEEN, TOP, BOTTOM = 1.42, 0.07, 0.3, 0.42
Picture = npt.NDArray[np.generic]
Column = tuple[str, Sequence[Picture]]


def coloured(mask: Picture, under: npt.NDArray[np.uint8] | None = None) -> Picture:
    """Return a mask ``[H, W]`` in colours ``[H, W, 3]``; pixels without a label are white, or show a paler image."""
    palette = np.array([mpl.colors.to_rgb(colour) for colour in COLOURS.values()])
    known = mask != NOT_LABELLED
    ground: Picture = np.ones((*mask.shape, 3)) if under is None else 0.5 + under / 510
    return np.where(known[..., None], palette[np.where(known, mask, 0)], ground)


def matchmask_columns(store: SampleStore, recipe: Recipe, shown: Sequence[int]) -> list[Column]:
    """Return mask, real image, and two synthetic images with what the filter left of their masks."""
    source = recipe.source()
    groups = list(store.groups())
    columns: list[tuple[str, list[Picture]]] = [(name, []) for name in ("mask", "real image")]
    columns += [(name, []) for k in (1, 2) for name in (f"synthetic {k}", f"mask of {k}")]
    view = {sample.id: sample for sample in store.training_view()}
    for place in shown:
        group = groups[place]
        cells = [coloured(group.condition), some(source.load(group.id).image)]
        for sample in group.samples[:2]:
            left = view.get(sample.id)
            cells.append(some(sample.image))
            cells.append(coloured(np.full_like(some(sample.mask), NOT_LABELLED) if left is None else some(left.mask)))
        for (_, pictures), cell in zip(columns, cells, strict=True):
            pictures.append(cell)
    return columns


def scribble_columns(recipe: Recipe, shown: Sequence[int]) -> list[Column]:
    """Return scribble, real image, and an image for every encode ratio; a row for every guidance scale of a scene."""
    source = recipe.source()
    chosen = [source.load(source.ids()[place]) for place in shown]
    rows = [sample for sample in chosen for _ in GUIDANCE]
    columns: list[Column] = [
        ("scribble", [coloured(some(sample.mask), some(sample.image)) for sample in rows]),
        ("real image", [some(sample.image) for sample in rows]),
    ]
    made = {(guidance, ratio): sampled(recipe, chosen, guidance, ratio) for guidance in GUIDANCE for ratio in RATIOS}
    for ratio in RATIOS:
        pictures = [made[guidance, ratio][number] for number in range(len(chosen)) for guidance in GUIDANCE]
        columns.append((f"ratio {ratio:g}", pictures))
    return columns


def sampled(recipe: Recipe, samples: Sequence[Sample], guidance: float, ratio: float) -> list[Picture]:
    """Return an image for each scribble, made with the recipe's adapter."""
    generator: Any = recipe.generator(recipe.context())
    changed = generator.options.model_copy(update={"guidance_scale": guidance, "encode_ratio": ratio})
    generator = ScribbleGenGenerator(changed, root=recipe.root)
    generator.load_adapted(recipe.output / "adapter")
    generator.prepare(recipe.labels)
    draws = [Draw(sample, 0, Rng(3).child(sample.id).integer()) for sample in samples]
    return [some(made.image) for made in generator.generate(draws, ignore_index=recipe.labels.ignore_index)]


def sheet(columns: Sequence[Column], row_names: Sequence[str] = ()) -> Figure:
    """Return the columns side by side under their names, with the classes below."""
    rows, left = len(columns[0][1]), 0.95 if row_names else BETWEEN
    width = left + len(columns) * (SIDE + BETWEEN)
    height = TOP + rows * (SIDE + BETWEEN) + BOTTOM
    figure = Figure(figsize=(width, height), dpi=105)
    for column, (name, pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            x, y = left + column * (SIDE + BETWEEN), BOTTOM + (rows - 1 - row) * (SIDE + BETWEEN)
            axes = figure.add_axes((x / width, y / height, SIDE / width, SIDE / height))
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(name)
            if column == 0 and row_names:
                axes.set_ylabel(row_names[row], rotation=0, ha="right", va="center")
    handles = [Patch(facecolor=colour, label=name) for name, colour in COLOURS.items()]
    handles.append(Patch(facecolor="white", edgecolor="black", label="no label"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, columnspacing=1.1)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture of 256 colours: a third of the size, and no difference to be seen."""
    written = io.BytesIO()
    figure.savefig(written, format="png")
    Image.open(written).convert("RGB").quantize(256).save(path, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--matchmask", type=Path, required=True, help="output of genaug quickstart")
    parser.add_argument("--scribblegen", type=Path, required=True, help="output of genaug quickstart for scribblegen")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--shown", type=int, nargs="+", default=[0, 3, 5, 8], help="which scenes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipes = [load_recipe(folder / "recipe.yaml") for folder in (options.matchmask, options.scribblegen)]
    store = SampleStore.open(recipes[0].output)
    options.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figures = {
            "matchmask": sheet(matchmask_columns(store, recipes[0], options.shown)),
            "scribblegen": sheet(
                scribble_columns(recipes[1], options.shown[:2]),
                [f"guidance {scale:g}" for _ in options.shown[:2] for scale in GUIDANCE],
            ),
        }
    for name, figure in figures.items():
        save(figure, options.out / f"{name}.png")


if __name__ == "__main__":
    main()
