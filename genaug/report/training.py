"""What a training left in an adapter's folder: its losses as a drawing, its previews."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genaug.errors import StoreError
from genaug.report.classes import evenly
from genaug.report.pictures import Picture, preview

WIDTH, HEIGHT, LEFT, MARGIN = 500, 240, 60, 12
_POINTS = 280


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of a training as an SVG drawing of `WIDTH` x `HEIGHT`.

    Args:
        training: Points ``x,y`` of the running mean.
        held_out: Points of the held-out loss, empty if it was not measured.
        low: Loss at the bottom.
        high: Loss at the top.
        steps: Number of steps.
        last: Running mean at the end.
        window: Steps in the running mean.
    """

    training: str
    held_out: str
    low: float
    high: float
    steps: int
    last: float
    window: int


@dataclass(frozen=True, slots=True)
class Training:
    """One trained component.

    Args:
        name: Its folder inside the store.
        curve: Its losses, None if it recorded none.
        previews: ``(title, picture)``, first to last.
    """

    name: str
    curve: Curve | None = None
    previews: list[tuple[str, Picture]] = field(default_factory=list)


def find_trainings(store: Path, *, previews: int = 3) -> list[Training]:
    """Return what lies in ``adapter/`` and ``adapters/*/`` of a store, leaving out folders with nothing to show.

    Args:
        store: The store's folder.
        previews: At most so many of a folder's ``previews/*.png``, at least 2: the first, the last, others between.

    Raises:
        StoreError: A file cannot be read.
    """
    others = sorted(p for p in (store / "adapters").glob("*") if p.is_dir())
    found = []
    for folder in (store / "adapter", *others):
        record = folder / "training.json"
        sheets = sorted((folder / "previews").glob("*.png"))
        pictures = [(_title(sheets[i]), preview(sheets[i])) for i in _spread(len(sheets), previews)]
        curve = draw(_read(record)) if record.is_file() else None
        if curve is not None or pictures:
            found.append(Training(str(folder.relative_to(store)), curve, pictures))
    return found


def draw(record: dict[str, Any]) -> Curve | None:
    """Draw ``{"losses": [loss, ...], "validation": [[step, loss], ...]}``; None without two finite losses."""
    losses = [float(v) for v in record.get("losses", [])]
    held_out = [(float(step), float(loss)) for step, loss in record.get("validation") or []]
    if len(losses) < 2 or not all(math.isfinite(v) for v in [*losses, *(loss for _, loss in held_out)]):
        return None
    window = max(1, len(losses) // 50)
    smooth = [sum(losses[i - window : i]) / window for i in range(window, len(losses) + 1)]
    points = [(float(i + window), smooth[i]) for i in evenly(len(smooth), _POINTS)]
    values = [loss for _, loss in points + held_out]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def place(point: tuple[float, float]) -> str:
        x = LEFT + (WIDTH - LEFT - MARGIN) * point[0] / len(losses)
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (point[1] - low) / span
        return f"{x:.1f},{y:.1f}"

    return Curve(
        " ".join(map(place, points)), " ".join(map(place, held_out)), low, high, len(losses), smooth[-1], window
    )


def _spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` of the numbers ``0 .. count - 1``, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


def _title(sheet: Path) -> str:
    """Return ``'step 300'`` for ``step_000300.png``."""
    return " ".join(str(int(word)) if word.isdigit() else word for word in sheet.stem.split("_"))


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot be read: {error}", where=str(path), hint="Delete the file to leave it out") from error
    return record if isinstance(record, dict) else {}
