"""What SENSE keeps for mask classifiers when most classes of the label space are absent, by ``support``.

A small Mask2Former is trained on rendered scenes whose 8 classes lie among the K of a larger label space (the other
classes have outputs, but no pixel). The labeler ``sense-query``, otherwise with its defaults and the image gate open,
then labels 64 unseen scenes in batches of 8: which share of the pixels gets a label, and how many of those labels are
right. To compare with: what a threshold of 0.95 on the largest score alone would keep, and how sure the model is of its
queries, which is what the image gate looks at. The result file also has every class by itself, and ``support=exact``.

The K of a row is made by leaving out outputs of absent classes, from one model with 150.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, emit, parser, row
from query_models import mask2former
from query_rendered import SUPERVISED
from selftraining import train
from torch import Tensor

from genaug.predictions import Predictions
from genaug_sense.labeler import QuerySenseLabeler
from genaug_tiny.scenes import CLASSES, render_scenes
from genaug_torch import OutputReader

#: Small, because the figures are shares of pixels and not accuracies.
SIZE = 64
CLASSES_IN_ALL = 150
#: Where the classes of the scenes lie in the large label space.
PLACES = np.arange(len(CLASSES)) * (CLASSES_IN_ALL // len(CLASSES))
SIZES = (len(CLASSES), 19, 50, CLASSES_IN_ALL)
SUPPORTS = ("present", "fp32", "exact")
TRAINED, TESTED, MEASURED = range(500_000, 500_400), range(900_000, 900_100), range(910_000, 910_064)
BATCH = 8


def teacher(work: Path, steps: int) -> tuple[torch.nn.Module, float]:
    """Return the model trained on relabelled scenes, and its mIoU; trained once, then read."""
    labelled, test = (_relabelled(seeds) for seeds in (TRAINED, TESTED))
    result = train(
        SUPERVISED, labelled, labelled[0][:0], test, work / f"{steps}", classes=CLASSES_IN_ALL, model="mask2former",
        steps=steps, batch=BATCH, lr=1e-3, seed=0,
    )  # fmt: skip
    model = mask2former(CLASSES_IN_ALL)
    model.load_state_dict(torch.load(work / f"{steps}/models.pt", weights_only=True)["student"])
    return model.eval(), float(result["miou"])


def _relabelled(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    images, masks = render_scenes(seeds, size=SIZE)
    return images, PLACES.astype(np.uint8)[masks]


@torch.no_grad()
def answers(model: torch.nn.Module) -> tuple[list[Predictions], Tensor]:
    """Return the model's scores of the measured scenes, batch by batch, and the truth int64 ``[N, H, W]``."""
    images, masks = render_scenes(MEASURED, size=SIZE)
    pixels = torch.from_numpy(images).movedim(-1, 1).float() / 255
    read = OutputReader("queries")
    return [read(model(part), (SIZE, SIZE)) for part in pixels.split(BATCH)], torch.from_numpy(masks).long()


def channels(number: int) -> Tensor:
    """Return the outputs that a label space of `number` classes has: those of the scenes first, then absent ones."""
    absent = np.setdiff1d(np.arange(CLASSES_IN_ALL), PLACES)
    return torch.from_numpy(np.concatenate([PLACES, absent[: number - len(PLACES)]]))


def measure(found: list[Predictions], truth: Tensor, number: int, support: str) -> dict[str, Any]:
    """Return what the labeler keeps, in all and by class; classes are those of the scenes."""
    labeler, chosen = QuerySenseLabeler(support=support, image_gate=None), channels(number)
    hard = torch.cat([labeler(part.map(lambda v: v[:, chosen])).hard for part in found])
    return _described(hard, truth)


def thresholded(found: list[Predictions], truth: Tensor) -> dict[str, Any]:
    """Return the same of a plain threshold on the largest score."""
    parts = [part.values.max(1) for part in found]
    places = torch.full((CLASSES_IN_ALL,), len(PLACES))
    places[torch.from_numpy(PLACES)] = torch.arange(len(PLACES))
    hard = torch.cat([places[p.indices].masked_fill(p.values < 0.95, 255) for p in parts])
    return _described(hard, truth)


def _described(hard: Tensor, truth: Tensor) -> dict[str, Any]:
    kept = hard != 255
    counts = torch.bincount(truth.flatten(), minlength=len(PLACES)).double()
    by_class = torch.bincount(truth[kept], minlength=len(PLACES)).double() / counts
    largest = int(counts.argmax())
    others = truth != largest
    return {
        "kept": float(kept.double().mean()),
        "right": float((hard == truth)[kept].double().mean()) if bool(kept.any()) else None,
        "kept_by_class": by_class.tolist(),
        "shares": (counts / counts.sum()).tolist(),
        "largest": float(by_class[largest]),
        "others": float((kept & others).sum() / others.sum()),
    }


def rows_of(name: str, figures: dict[str, Any]) -> list[Row]:
    """Return the rows of one measurement."""
    made = [row(f"{name}: labelled", [figures["kept"]], None, "share")]
    if figures["right"] is not None:
        made.append(row(f"{name}: of them right", [figures["right"]], None, "share"))
    return made


def main() -> None:
    """Train the teacher if it is not there, then label."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, default=Path("runs/query_support"))
    arguments.add_argument("--steps", type=int, default=600)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    model, miou = teacher(options.work, options.steps)
    found, truth = answers(model)
    figures: dict[str, Any] = {"threshold 0.95 on the score": thresholded(found, truth)}
    for number in SIZES:
        for support in SUPPORTS:
            figures[f"K={number}, {support}"] = measure(found, truth, number, support)
    sure = torch.cat([part.image_confidence for part in found if part.image_confidence is not None]).tolist()
    rows = [row("mIoU of the model", [miou], None, "share"), row("confidence of its queries", sure, None, "share")]
    rows += [r for name, values in figures.items() if "exact" not in name for r in rows_of(name, values)]
    apart = [abs(figures[f"K={n}, fp32"]["kept"] - figures[f"K={n}, exact"]["kept"]) for n in SIZES]
    rows.append(row("labelled, fp32 and exact: largest difference", [max(apart)], None, "share"))
    emit(rows, options.json, classes=list(CLASSES.values()), figures=figures)


if __name__ == "__main__":
    main()
