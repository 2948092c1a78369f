"""What every benchmark shares: ``--json FILE``, runs side by side, medians, and one row format.

A row is ``{name, value, unit, baseline, ratio, runs, min, max}``; ``ratio`` above 1 means better than the baseline
(faster, smaller, more accurate). Candidates and baselines take turns, so that both meet the same load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent


def parser(text: str) -> argparse.ArgumentParser:
    """Return an argument parser with ``--json``."""
    made = argparse.ArgumentParser(description=text)
    made.add_argument("--json", metavar="FILE", help="write the result here; - for standard output")
    return made


def alternate(functions: Mapping[str, Callable[[], object]], *, runs: int, warmup: int = 1) -> dict[str, list[float]]:
    """Return seconds of every run of every function, taking turns."""
    for _ in range(warmup):
        for function in functions.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return times


def row(
    name: str, values: Sequence[float], baseline: float | None, unit: str, *, larger_is_better: bool = False
) -> Row:
    """Return a row from the values of a candidate and the median of its baseline."""
    value = statistics.median(values)
    ratio = None if baseline is None else (value / baseline if larger_is_better else baseline / value)
    return {
        "name": name, "value": value, "unit": unit, "baseline": baseline, "ratio": ratio, "runs": len(values),
        "min": min(values), "max": max(values),
    }  # fmt: skip


def compare(name: str, times: Mapping[str, Sequence[float]], *, candidate: str, baseline: str) -> Row:
    """Return the row of two functions timed by `alternate`, in seconds."""
    return row(name, times[candidate], statistics.median(times[baseline]), "s")


def emit(rows: Sequence[Row], target: str | None, **more: Any) -> None:
    """Print the rows, and write them with command, commit and machine where ``--json`` says."""
    report = {"command": command(), "commit": commit(), "machine": machine(), **more, "rows": list(rows)}
    if target == "-":
        print(json.dumps(report, indent=1))
        return
    for r in rows:
        ratio = "" if r["ratio"] is None else f"  {r['ratio']:.2f}x of baseline {r['baseline']:.4g}"
        print(f"{r['name']:48} {r['value']:.4g} {r['unit']} [{r['min']:.4g}, {r['max']:.4g}] n={r['runs']}{ratio}")
    if target:
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        temporary.replace(path)


def command() -> str:
    """Return the command line, quoted as for a shell, without the paths of this machine."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return shlex.join(["python", str(name), *arguments])


def commit() -> str:
    """Return the commit, marked if tracked files differ from it."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if dirty else "")


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the figures."""
    import torch

    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        model = next(
            (x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), model
        )
    return {
        "cpu": model, "cores": os.cpu_count(), "torch": torch.__version__, "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip
