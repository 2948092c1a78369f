"""Pictures of a training: the loss curve and rows of images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from genaug.store.files import make_folder, write_whole
from genaug.types import Image
from genaug_diffusion.adapter_folder import TAG
from genaug_diffusion.images import resize_image
from genaug_diffusion.training import TrainingResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PREVIEWS = "previews"


def observer(folder: Path, preview: Callable[[Path], object] | None = None) -> Callable[[int, TrainingResult], None]:
    """Return what writes ``training.json``, ``losses.png`` and a preview with each checkpoint of a training.

    Args:
        folder: The adapter's.
        preview: Draws the preview picture to a path; None draws none.
    """

    def observe(step: int, result: TrainingResult) -> None:
        curve = {"losses": [round(v, 6) for v in result.losses], "validation": result.validation}
        write_whole(folder / "training.json", json.dumps(curve).encode(), tag=TAG)
        plot_losses(result, folder / "losses.png")
        if preview is not None:
            preview(folder / PREVIEWS / f"step_{step:06d}.png")

    return observe


def plot_losses(result: TrainingResult, path: Path) -> None:
    """Write the loss curve: every step in grey, a running mean, and the held-out loss."""
    from matplotlib.figure import Figure

    losses = np.asarray(result.losses)
    window = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(np.arange(1, len(losses) + 1), losses, color="0.8", linewidth=0.7, label="training, every step")
    axes.plot(np.arange(window, len(losses) + 1), smooth, color="tab:blue", label=f"training, mean of {window}")
    if result.validation:
        steps, values = zip(*result.validation, strict=True)
        axes.plot(steps, values, "o-", color="tab:orange", label="held out")
    axes.set(xlabel="step", ylabel="noise-prediction loss")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib figure as PNG; equal figures give equal bytes."""
    _save(path, lambda buffer: figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None}))


def save_rows(rows: Sequence[Sequence[Image]], path: Path, *, gap: int = 4) -> None:
    """Write rows of uint8 ``[H, W, 3]`` images as one picture; each row takes the size of its first image."""
    strips = []
    for row in rows:
        size = row[0].shape[:2]
        cells: list[np.ndarray] = []
        for image in row:
            cells += [resize_image(image, size), np.full((size[0], gap, 3), 255, np.uint8)]
        strips.append(np.concatenate(cells[:-1], axis=1))
    width = max(strip.shape[1] for strip in strips)
    sheet = [np.pad(s, ((0, gap), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    picture = PILImage.fromarray(np.concatenate(sheet)[:-gap])
    _save(path, lambda buffer: picture.save(buffer, "PNG"))


def _save(path: Path, write: Callable[[io.BytesIO], object]) -> None:
    """Write through a temporary name, so that a reader never sees half a picture."""
    buffer = io.BytesIO()
    write(buffer)
    make_folder(path.parent)
    write_whole(path, buffer.getvalue(), tag=TAG)
