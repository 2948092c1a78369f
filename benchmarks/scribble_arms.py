"""What the benchmarks of ScribbleGen's training share: the arms, each trained once, and their table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import Row, row

from genaug_tiny.scribbled import EncodeRatio

BASELINE, CEILING = "scribbles only", "whole masks"


def arms_of(levels: Sequence[float]) -> dict[str, EncodeRatio | None]:
    """Return the arms: name -> encode ratio of the synthetic images, None where there are none."""
    fixed: dict[str, EncodeRatio | None] = {f"+ synthetic, encode ratio {level:g}": level for level in levels}
    return {BASELINE: None, **fixed, "+ synthetic, adaptive": "adaptive", CEILING: None}


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `measure` returns, or what an earlier call wrote to `path`."""
    if not path.is_file():
        result = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text(json.dumps(result), "utf-8")
        temporary.replace(path)
    return dict(json.loads(path.read_text("utf-8")))


def rows_of(results: Sequence[dict[str, dict[str, Any]]]) -> list[Row]:
    """Return one row per arm: the mean over the seeds, their spread, and every seed's gain over scribbles only."""
    baseline = statistics.mean(r[BASELINE]["miou"] for r in results)
    rows = []
    for name in results[0]:
        values = [r[name]["miou"] for r in results]
        mean, gains = statistics.mean(values), [r[name]["miou"] - r[BASELINE]["miou"] for r in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        made = row(f"mIoU, {name}", values, baseline, "share", larger_is_better=True)
        rows.append({**made, "value": mean, "ratio": mean / baseline, "std": spread, "gains": gains})
    return rows
