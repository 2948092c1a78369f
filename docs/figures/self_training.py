"""Pictures of what SENSE, UPC and MaskMatch do to an image, drawn with the library's own components.

    python docs/figures/self_training.py --out docs/explanation/methods/figures

A small U-Net is trained for a minute on a few rendered scenes with labels; it is the teacher. One picture per method
then shows what the method makes of its predictions for other rendered scenes. No photograph is involved, as none with
labels and a licence to pass it on was at hand. With photographs of your own, or CamVid:

    python docs/figures/self_training.py --data CAMVID/train --labels camvid11 --size 120 --out PICTURES
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from genaug import Rng
from genaug.batch import Batch, image_tensor, tensor_image
from genaug.labels import LabelSpace
from genaug.predictions import Predictions
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug_maskmatch.config import Sampling
from genaug_maskmatch.labeler import MaskMatchLabeler
from genaug_maskmatch.mixer import PatchMask
from genaug_sense.labeler import SenseLabeler
from genaug_tiny.scenes import render_scenes
from genaug_tiny.segmenter import SmallUNet, train_segmenter
from genaug_upc.functional import entropy_map, patch_bounds, patch_scores
from genaug_upc.mixer import UncertaintyPatchCutMix

#: Okabe and Ito's colours, which people with any kind of colour vision can tell apart; grey stands in for black.
COLOURS = {
    "sky": "#56B4E9", "building": "#CC79A7", "road": "#8C8C8C", "grass": "#F0E442",
    "tree": "#009E73", "car": "#E69F00", "person": "#D55E00", "water": "#0072B2",
}  # fmt: skip
NOT_LABELLED = 255
#: Nothing of the text is smaller than 10 pixels at a page width of 900.
STYLE = {"font.size": 10, "axes.titlesize": 10.5, "axes.labelsize": 9.5, "figure.facecolor": "white"}
#: Inches: a panel's side, and the room round it.
SIDE, BETWEEN, TITLE, NOTE, LEGEND = 2.32, 0.12, 0.32, 0.3, 0.5
#: Names in a row of the legend.
IN_A_ROW = 10
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]  # images [N, H, W, 3] and masks [N, H, W]


@dataclass(frozen=True)
class Study:
    """A trained teacher, and the images that the pictures show.

    Args:
        teacher: Trained on `labelled` alone.
        labelled: Images ``[M, 3, H, W]`` in ``[0, 1]`` with targets.
        unlabelled: Images ``[B, 3, H, W]``; the targets are the truth, which only pictures look at.
        colours: Of the classes, by name and in their order.
        seed: Of patches, donors and masks.
    """

    teacher: SmallUNet
    labelled: Batch
    unlabelled: Batch
    colours: Mapping[str, str]
    seed: int

    @property
    def known(self) -> Tensor:
        """Where the truth of `unlabelled` is known, bool ``[B, H, W]``."""
        return some(self.unlabelled.targets) != NOT_LABELLED

    def predict(self, images: Tensor) -> Predictions:
        """Ask the teacher about images ``[B, 3, h, w]``."""
        with torch.no_grad():
            return Predictions(self.teacher(images), "logits")


def prepare(labelled: Arrays, unlabelled: Arrays, colours: Mapping[str, str], *, steps: int, seed: int) -> Study:
    """Train the teacher on the labelled images."""
    teacher = train_segmenter(*labelled, num_classes=len(colours), steps=steps, seed=seed)
    batches = [Batch(image_tensor(x), torch.from_numpy(y.astype(np.int64))) for x, y in (labelled, unlabelled)]
    return Study(teacher, batches[0], batches[1], colours, seed)


def photographs(source: FolderSource, names: Sequence[str], size: int) -> Arrays:
    """Read samples at `size` pixels a shorter side; masks as class indices."""
    indices = np.full(256, NOT_LABELLED, np.uint8)
    indices[list(source.labels.ids)] = np.arange(len(source.labels.ids))
    images, masks = [], []
    for sample in map(source.load, names):
        image, mask = Image.fromarray(some(sample.image)), Image.fromarray(indices[some(sample.mask)])
        small = (round(side * size / min(image.size)) for side in image.size)
        width, height = small
        images.append(np.asarray(image.resize((width, height), Image.Resampling.BOX)))
        masks.append(np.asarray(mask.resize((width, height), Image.Resampling.NEAREST)))
    return np.stack(images), np.stack(masks)


def spread(names: Sequence[str], count: int) -> list[str]:
    """Return so many of the names, evenly spaced: neighbours in a video look alike."""
    return [names[place] for place in np.linspace(0, len(names) - 1, count).round().astype(int)]


# ---------------------------------------------------------------------- one picture per method


def draw_sense(study: Study, shown: int) -> Figure:
    """Draw what the transport changes in one image of a batch, and in the class shares of the whole batch."""
    labeler = SenseLabeler()
    truth = some(study.unlabelled.targets)
    targets = labeler.label(study.predict(study.unlabelled.images))
    before, after = some(targets.predicted), some(targets.soft).dense().argmax(1)
    kept, flips = targets.weights > 0, before != after
    panels = Panels(study, rows=2, columns=4)
    panels.photo("Unlabelled image", study.unlabelled.images[shown])
    panels.classes("Truth (not used)", truth[shown], "for comparison only")
    panels.classes("Teacher's class", before[shown], right(before == truth, study.known, shown))
    panels.values("Teacher's confidence", some(targets.confidence)[shown], low=0, high=1)
    panels.note("blue: 0, yellow: 1")
    panels.flags("Kept pixels", kept[shown], f"confidence ≥ {labeler.options.threshold:g}: {share(kept[shown])}")
    panels.classes("Class after transport", after[shown], right(after == truth, study.known, shown))
    of_kept = share((flips & kept)[shown], kept[shown])
    panels.flags("Changed by the transport", flips[shown], f"{share(flips[shown])}; of the kept pixels {of_kept}")
    axes = panels.next(f"Class shares in {len(before)} images")
    _class_shares(axes, study.colours, before, truth[study.known], some(targets.soft).dense())
    equal, tick = Line2D([], [], color="black", ls="--", label="equal shares"), Line2D([], [], color="black", lw=2.5)
    tick.set(linestyle="", marker="|", markersize=10, markeredgewidth=2.5, label="truth")
    return panels.finish([tick, equal])


def draw_upc(study: Study, shown: int) -> Figure:
    """Draw which patches of one image are the most uncertain, and the labelled ones that replace them."""
    mixer = UncertaintyPatchCutMix(ks=(5,))
    predictions = study.predict(study.unlabelled.images)
    labels, truth = predictions.values.argmax(1), some(study.unlabelled.targets)
    batch = Batch(study.unlabelled.images, labels)
    uncertainty = entropy_map(predictions)
    plan = mixer.plan(uncertainty, study.labelled, rng=Rng(study.seed).child("upc"))
    mixed = plan.paste(batch, study.labelled)
    outlined, wrong = some(mixed.provenance) == 1, (labels != truth) & study.known
    pasted = outlined[shown]
    donor = int(plan.donors[shown])
    grid = mixer.options.grid
    panels = Panels(study, rows=2, columns=4)
    panels.photo("Unlabelled image", batch.images[shown])
    panels.classes("Teacher's pseudo-label", labels[shown], right(~wrong, study.known, shown))
    inside = share((wrong & outlined)[shown], wrong[shown])
    panels.flags("Where it is wrong", wrong[shown], f"{inside} of it in the outlined patches")
    _outline(panels.last, pasted, grid, "#D55E00")
    panels.values("Entropy, summed by patch", uncertainty[shown], low=0, high=float(np.log(len(study.colours))))
    _outline(panels.last, pasted, grid, "white")
    _patch_sums(panels.last, patch_scores(uncertainty, grid)[shown], study.labelled.size)
    panels.note(f"outlined: the {mixer.options.ks[0]} largest of {grid * grid} sums")
    panels.photo("Labelled partner", study.labelled.images[donor])
    _outline(panels.last, pasted, grid, "white")
    panels.classes("Its label", some(study.labelled.targets)[donor])
    _outline(panels.last, pasted, grid, "black")
    panels.photo("Mixed image", mixed.images[shown])
    _outline(panels.last, pasted, grid, "white")
    panels.classes("Mixed label", some(mixed.targets)[shown], right(outlined | ~wrong, outlined | study.known, shown))
    _outline(panels.last, pasted, grid, "black")
    return panels.finish()


def draw_maskmatch(study: Study, shown: int) -> Figure:
    """Draw the masked images of one image, and how labels of several scales come about."""
    images, truth = study.unlabelled.images, some(study.unlabelled.targets)
    labeler = MaskMatchLabeler()
    scales = labeler.options.scales
    alone = [MaskMatchLabeler(scales=(scale,)).predict(study.predict, images).values for scale in scales]
    mean = labeler.predict(study.predict, images)
    targets = labeler.label(mean)
    at_one, together = alone[scales.index(1.0)].argmax(1), mean.values.argmax(1)
    votes = torch.stack([probs.argmax(1)[shown] for probs in alone])
    answers = 1 + (votes.sort(0).values.diff(dim=0) != 0).sum(0)
    kept = targets.weights > 0
    panels = Panels(study, rows=2, columns=4)
    panels.photo("Weak view", images[shown], "what the teacher sees")
    samplings: tuple[Sampling, ...] = ("random", "block", "grid")
    for sampling in samplings:
        # An eighth of the side, for scenes are small; and the mean colour, as the images are not normalised.
        masker = PatchMask(patch=images.shape[-1] // 8, sampling=sampling, fill=float(images.mean()))
        masked = masker.mix(Batch(images), rng=Rng(study.seed).child("mask")).images[shown]
        hidden = (masked != images[shown]).any(0)
        panels.photo(f"Masked view: {sampling}", masked, f"{share(hidden)} hidden")
    panels.classes("Teacher at scale 1", at_one[shown], right(at_one == truth, study.known, shown))
    names = ", ".join(f"{scale:g}" for scale in sorted(scales))
    panels.classes(f"Mean of scales {names}", together[shown], right(together == truth, study.known, shown))
    panels.values(f"Answers of the {len(scales)} scales", answers, low=1, high=len(scales))
    panels.note(f"all agree (blue): {share(answers == 1)}")
    judged = (kept & study.known)[shown]
    correct = f"{share(kept[shown])}, of which {share((targets.hard == truth)[shown] & judged, judged)} right"
    panels.classes(f"Kept: mean above {labeler.options.threshold:g}", targets.hard[shown], correct)
    return panels.finish([Patch(facecolor="white", edgecolor="black", label="not kept")])


PICTURES = {"sense": draw_sense, "upc": draw_upc, "maskmatch": draw_maskmatch}


# ---------------------------------------------------------------------- drawing


class Panels:
    """A grid of panels, filled row by row, with the classes below.

    Args:
        study: Gives the panels' form, and the classes.
        rows: Rows of panels.
        columns: Panels in a row.
    """

    def __init__(self, study: Study, *, rows: int, columns: int) -> None:
        self.colours = study.colours
        tall = SIDE * study.unlabelled.size[0] / study.unlabelled.size[1]
        cell = TITLE + tall + NOTE
        legend = LEGEND + 0.3 * ((len(study.colours) + 1) // IN_A_ROW)  # there may be two more names
        width, height = columns * (SIDE + BETWEEN), rows * cell + legend
        self.figure = Figure(figsize=(width, height), dpi=140)
        places = [
            ((column * (SIDE + BETWEEN) + BETWEEN / 2) / width, (legend + NOTE + (rows - 1 - row) * cell) / height)
            for row in range(rows)
            for column in range(columns)
        ]
        self._axes = iter([self.figure.add_axes((*place, SIDE / width, tall / height)) for place in places])
        self.last: Axes

    def next(self, title: str) -> Axes:
        """Return the next empty panel."""
        self.last = next(self._axes)
        self.last.set_title(title)
        return self.last

    def note(self, text: str) -> None:
        """Write below the last panel."""
        self.last.set_xlabel(text, color="#333333")

    def photo(self, title: str, image: Tensor, note: str = "") -> None:
        """Show an image ``[3, H, W]`` in ``[0, 1]``."""
        self._show(title, tensor_image(image), note)

    def classes(self, title: str, mask: Tensor, note: str = "") -> None:
        """Show a mask ``[H, W]`` in the classes' colours; unlabelled pixels are white."""
        palette = np.array([mpl.colors.to_rgb(colour) for colour in self.colours.values()])
        known = mask.numpy() != NOT_LABELLED
        self._show(title, np.where(known[..., None], palette[np.where(known, mask.numpy(), 0)], 1.0), note)

    def flags(self, title: str, flags: Tensor, note: str = "") -> None:
        """Show bool ``[H, W]``: black where True."""
        self._show(title, np.repeat(1.0 - flags.numpy()[..., None], 3, axis=2), note)

    def values(self, title: str, values: Tensor, *, low: float, high: float) -> None:
        """Show numbers ``[H, W]`` from dark to light."""
        self._show(title, mpl.colormaps["cividis"](((values - low) / (high - low)).numpy()), "")

    def _show(self, title: str, picture: npt.NDArray[np.generic], note: str) -> None:
        axes = self.next(title)
        axes.imshow(picture, interpolation="nearest")
        axes.set(xticks=[], yticks=[], xlabel=note or " ")

    def finish(self, more: Sequence[Artist] = ()) -> Figure:
        """Add the legend, of the classes and of `more`, and return the figure."""
        handles = [*(Patch(facecolor=colour, label=name) for name, colour in self.colours.items()), *more]
        columns = -(-len(handles) // -(-len(handles) // IN_A_ROW))
        self.figure.legend(
            handles=handles, loc="lower center", ncols=columns, frameon=False, columnspacing=1.3, handlelength=1.4
        )
        return self.figure


def _class_shares(axes: Axes, colours: Mapping[str, str], before: Tensor, truth: Tensor, after: Tensor) -> None:
    """Draw the share of every class in a batch: classes of any shape before, distributions ``[B, K, H, W]`` after."""
    count, rows = len(colours), np.arange(len(colours))
    shares = [torch.bincount(mask.flatten(), minlength=count) / mask.numel() for mask in (before, truth)]
    axes.barh(rows - 0.2, shares[0].numpy(), 0.38, color="white", edgecolor="black", hatch="////", linewidth=0.6)
    axes.barh(rows + 0.2, after.mean((0, 2, 3)).numpy(), 0.38, color=list(colours.values()), edgecolor="black", lw=0.6)
    axes.vlines(shares[1].numpy(), rows - 0.42, rows + 0.42, color="black", linewidth=2.2)
    axes.axvline(1 / count, color="black", linestyle="--", linewidth=1)
    axes.set(yticks=[], xlim=(0, 1.45 * float(torch.stack(shares).max())))
    for row, name in enumerate(colours):
        axes.text(1, row, name, transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("hatched: teacher, filled: after", color="#333333", labelpad=1)
    axes.spines[["top", "right"]].set_visible(False)


def _outline(axes: Axes, chosen: Tensor, grid: int, colour: str) -> None:
    """Draw the patch grid thinly, and a frame round every patch whose pixels are `chosen` (bool ``[H, W]``)."""
    rows, columns = patch_bounds(chosen.shape[0], grid), patch_bounds(chosen.shape[1], grid)
    for place in columns[1:-1]:
        axes.axvline(place - 0.5, color=colour, linewidth=0.4)
    for place in rows[1:-1]:
        axes.axhline(place - 0.5, color=colour, linewidth=0.4)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            if bool(chosen[top, left]):
                # A little inside the patch, so that the frames of neighbours are both seen.
                corner, size = (left + 0.1, top + 0.1), (right - left - 1.2, bottom - top - 1.2)
                axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=2.2))


def _patch_sums(axes: Axes, sums: Tensor, size: tuple[int, int]) -> None:
    """Write every patch's sum ``[N, N]`` in its middle."""
    rows, columns = (patch_bounds(side, len(sums)) for side in size)
    for r, (top, bottom) in enumerate(pairwise(rows)):
        for c, (left, right) in enumerate(pairwise(columns)):
            text = axes.text((left + right - 1) / 2, (top + bottom - 1) / 2, f"{float(sums[r, c]):.0f}")
            text.set(ha="center", va="center", color="white", fontweight="bold", fontsize=9)
            text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def share(flags: Tensor, among: Tensor | None = None) -> str:
    """Return how many of the pixels are True, e.g. ``12 %``; among those of `among` if given."""
    total = flags.numel() if among is None else int(among.sum())
    percent = 100 * int(flags.sum()) / total if total else 0.0
    return f"{percent:.{1 if 0 < percent < 10 or 99 < percent < 100 else 0}f} %"


def right(correct: Tensor, among: Tensor, shown: int) -> str:
    """Return how much of one image and of its whole batch is right, both among those pixels: bool ``[B, H, W]``."""
    correct = correct & among
    return f"{share(correct[shown], among[shown])} right (all images: {share(correct, among)})"


T = TypeVar("T")


def some(value: T | None) -> T:
    """Return `value`, which is None only in batches and targets of other methods."""
    assert value is not None
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the teacher and write all pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--steps", type=int, default=300, help="training steps of the teacher")
    parser.add_argument("--seed", type=int, default=0, help="of the training, patches, donors and masks")
    parser.add_argument("--size", type=int, default=64, help="side of a scene, shorter side of a photograph, in pixels")
    parser.add_argument(
        "--labelled",
        type=int,
        default=20,
        help="scenes with labels: number 0 and on; or photographs of the first four fifths",
    )
    parser.add_argument(
        "--unlabelled", type=int, default=8, help="scenes without: number 600000 and on; or photographs of the rest"
    )
    parser.add_argument("--shown", type=int, default=7, help="which unlabelled scene the pictures show")
    parser.add_argument("--data", type=Path, help="folder with photographs in images/ and class ids in masks/")
    parser.add_argument("--labels", default="camvid11", help="class table of --data, see 'genaug init'")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    colours: Mapping[str, str] = COLOURS
    if options.data is None:
        first = 600_000
        labelled = render_scenes(range(options.labelled), size=options.size)
        unlabelled = render_scenes(range(first, first + options.unlabelled), size=options.size)
    else:
        labels = LabelSpace.from_config(options.labels)
        colours = {name: mpl.colors.to_hex(mpl.colormaps["tab20"](i)) for i, name in enumerate(labels.names.values())}
        source = FolderSource(FolderOptions(images="images", masks="masks"), labels, root=options.data)
        ids, most = source.ids(), len(source.ids()) * 4 // 5
        labelled = photographs(source, spread(ids[:most], options.labelled), options.size)
        unlabelled = photographs(source, spread(ids[most:], options.unlabelled), options.size)
    study = prepare(labelled, unlabelled, colours, steps=options.steps, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        with mpl.rc_context(STYLE):
            draw(study, options.shown).savefig(options.out / f"{name}.png", pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
