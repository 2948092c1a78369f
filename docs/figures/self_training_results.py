"""Picture of which classes' pseudo-labels are kept, and which classes true labels would help, from measured results.

    python docs/figures/self_training_results.py --out docs/explanation/figures

Reads ``tiny_selftraining.json``, ``tiny_selftraining_long.json`` and ``camvid_selftraining.json`` of
``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from self_training import STYLE

from genaug import LabelSpace
from genaug_tiny.scenes import CLASSES

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"
CEILING, METHOD = "ceiling: every label", "fixmatch"
Runs = dict[str, list[dict[str, Any]]]


def by_class(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for every class: share of its pseudo-labels kept, and the IoU points that truth and FixMatch add."""
    iou = {arm: 100 * np.array([run["iou"] for run in runs[arm]]) for arm in ("supervised", CEILING, METHOD)}
    kept = np.array([[np.nan if share is None else share for share in run["kept_by_class"]] for run in runs[METHOD]])
    seen = np.where(np.isnan(kept).all(0), 0.0, 1.0)  # a class that is never predicted has none to keep
    means = np.nansum(kept, 0) / np.maximum((~np.isnan(kept)).sum(0), 1)
    return means * seen, *((iou[arm] - iou["supervised"]).mean(0) for arm in (CEILING, METHOD))


def draw(axes: Axes, title: str, names: Sequence[str], runs: Runs) -> None:
    """Draw one setting: classes from left to right by the share that is kept."""
    kept, truth, method = by_class(runs)
    order = np.argsort(kept, kind="stable")
    places = np.arange(len(names))
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.bar(places - 0.2, truth[order], 0.38, color="#0072B2", label="true labels for all images")
    axes.bar(places + 0.2, method[order], 0.38, color="#E69F00", label="FixMatch")
    labels = [f"{names[number]} {100 * kept[number]:.0f} %" for number in order]
    axes.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_title(title)
    axes.set_ylabel("IoU, points above supervised")
    axes.spines[["top", "right"]].set_visible(False)


def picture(short: Runs, long: Runs, camvid: Runs) -> Figure:
    """Return rendered scenes after 300 and after 1,800 steps, and CamVid."""
    scenes, streets = CLASSES.values(), LabelSpace.from_config("camvid11").names.values()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 4.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        middle.sharey(left)
        draw(left, "Rendered scenes, 300 steps", list(scenes), short)
        draw(middle, "Rendered scenes, 1,800 steps", list(scenes), long)
        draw(right, "CamVid, 1/16 of the labels, 300 steps", list(streets), camvid)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the picture")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    names = ("tiny_selftraining", "tiny_selftraining_long", "camvid_selftraining")
    short, long, camvid = (json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["seeds"] for name in names)
    picture(short, long, camvid["1_16 unet"]).savefig(out / "kept-by-class.png")


if __name__ == "__main__":
    main()
