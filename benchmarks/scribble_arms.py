"""What the benchmarks of ScribbleGen's training share: the arms, each trained once, and their table.

Every arm takes the same number of optimizer steps with as many images each, from the same first weights; where there
are synthetic images, half of an arm's images are synthetic on average. Every arm is measured three times: on the test
images, on others of which the best fixed encode ratio is chosen, seed by seed, and on the whole masks of the images
that it was trained on, which tells whether it was trained for long enough (``fitted``).
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, row

from genaug.recipe import digest
from genaug.store import SampleStore
from genaug_tiny.scribbled import EPOCHS, EncodeRatio, train_on_scribbles
from genaug_tiny.segmenter import evaluate_miou

Arrays = tuple[np.ndarray, np.ndarray]

BASELINE, CEILING, BEST = "scribbles only", "whole masks", "+ synthetic, best fixed encode ratio"
FIXED = "+ synthetic, encode ratio "


def arms_of(levels: Sequence[float]) -> dict[str, EncodeRatio | None]:
    """Return the arms: name -> encode ratio of the synthetic images, None where there are none."""
    fixed: dict[str, EncodeRatio | None] = {f"{FIXED}{level:g}": level for level in levels}
    return {BASELINE: None, **fixed, "+ synthetic, adaptive": "adaptive", CEILING: None}


def weights_hash(*models: Path) -> str:
    """Return a hash of all weights below folders, which tells models of one name apart."""
    files = [file for model in models for file in sorted(model.rglob("*.safetensors"))]
    return digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])[:16]


def place_of(work: Path, settings: Mapping[str, Any], seed: int) -> Path:
    """Return a folder for finished parts of one seed, which has the hash of what decides them in its name.

    A later call with other settings begins anew; ``settings.json`` there tells which they were.

    Raises:
        SystemExit: The folder holds parts that were made with other settings.
    """
    plain = json.loads(json.dumps(settings))
    folder = work / f"{digest(plain)[:8]}-seed{seed}"
    known = folder / "settings.json"
    if known.is_file() and json.loads(known.read_text("utf-8")) != plain:
        raise SystemExit(f"{folder} was made with other settings: move it away, or take another --work")
    folder.mkdir(parents=True, exist_ok=True)
    _write(known, plain)
    return folder


def measure_arms(
    folder: Path,
    names: Sequence[str],
    levels: Sequence[float],
    labelled: tuple[np.ndarray, np.ndarray, np.ndarray],
    store: Callable[[], SampleStore],
    test: Arrays,
    validation: Arrays,
    *,
    words: Sequence[str],
    seed: int,
    steps: int,
    batch_size: int,
    width: int,
) -> dict[str, dict[str, Any]]:
    """Train the arms of one seed that are not finished, and return all of them.

    Args:
        folder: Of the seed's images, see `place_of`.
        names: Arms to return, of `arms_of`.
        levels: Encode ratios in the store.
        labelled: Images ``[N, H, W, 3]``, their scribbles and their whole masks ``[N, H, W]``, ids 0 to K-1 or 255.
        store: Makes the synthetic images for the scribbles, or opens them; not called where nobody needs them.
        test: Images and whole masks to measure on.
        validation: Others, to choose by.
        words: Name of each of the K classes.
        seed: See `genaug_tiny.scribbled.train_on_scribbles`, as for the rest.
        steps: See there.
        batch_size: See there.
        width: See there.
    """
    (images, drawn, masks), opened = labelled, cache(store)
    deciding = {"steps": steps, "batch": batch_size, "width": width, "epochs": EPOCHS, "test": len(test[0])}
    place, results = place_of(folder / "arms", deciding, seed), dict[str, dict[str, Any]]()
    for number, (name, ratio) in enumerate(arms_of(levels).items()):
        if name not in names:
            continue
        path = place / f"{number}.json"
        if not path.is_file():
            synthetic: dict[str, Any] = {} if ratio is None else {"store": opened(), "encode_ratio": ratio}
            real = images, masks if name == CEILING else drawn
            started = time.process_time()
            model = train_on_scribbles(
                real, num_classes=len(words), seed=seed, steps=steps, batch_size=batch_size, width=width, **synthetic
            )
            seconds = time.process_time() - started
            miou, iou = evaluate_miou(model, *test, len(words))
            others = {"validation": validation, "fitted": (images, masks)}
            more = {key: evaluate_miou(model, *arrays, len(words))[0] for key, arrays in others.items()}
            # A class that is neither there nor predicted has no figure, which is no NaN in JSON.
            known = {word: None if np.isnan(value) else float(value) for word, value in zip(words, iou, strict=True)}
            _write(path, {"miou": miou, **more, "iou": known, "cpu_seconds": seconds})
        results[name] = json.loads(path.read_text("utf-8"))
        print(f"seed {seed}, {name}: {100 * results[name]['miou']:.1f} %", flush=True)
    return results


def rows_of(results: Sequence[Mapping[str, dict[str, Any]]]) -> list[Row]:
    """Return one row per arm: the mean over the seeds, their spread, and every seed's gain over scribbles only."""
    chosen = [_best(result) for result in results]
    names = list(results[0])
    fixed = [place for place, name in enumerate(names) if name.startswith(FIXED)]
    if fixed:
        names.insert(fixed[-1] + 1, BEST)
    baseline = statistics.mean(r[BASELINE]["miou"] for r in results)
    rows = []
    for name in names:
        parts = [r[best if name == BEST else name] for r, best in zip(results, chosen, strict=True)]
        values = [part["miou"] for part in parts]
        mean, gains = (
            statistics.mean(values),
            [p["miou"] - r[BASELINE]["miou"] for p, r in zip(parts, results, strict=True)],
        )
        more: dict[str, Any] = {"chosen": [best.removeprefix(FIXED) for best in chosen]} if name == BEST else {}
        for key in ("validation", "fitted"):
            more[key] = statistics.mean(part[key] for part in parts)
        made = row(f"mIoU, {name}", values, baseline, "share", larger_is_better=True)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append({**made, "value": mean, "ratio": mean / baseline, "std": spread, "gains": gains, **more})
    return rows


def _best(result: Mapping[str, dict[str, Any]]) -> str:
    """Return the arm with the fixed encode ratio that validates best; any name where there is none."""
    fixed = [name for name in result if name.startswith(FIXED)] or [BASELINE]
    return max(fixed, key=lambda name: result[name]["validation"])


def _write(path: Path, table: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(json.dumps(table), "utf-8")
    temporary.replace(path)


def add_arguments(arguments: Any) -> None:
    """Add what both benchmarks can be asked."""
    arguments.add_argument("--arms", nargs="+", help=f"these arms only, {BASELINE!r} among them")
    arguments.add_argument("--only", type=int, nargs="+", help="run these seeds and stop, e.g. in a second process")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--device", default="cpu", help="of the diffusion model; segmenters train on the CPU")


def chosen_arms(arguments: Any, options: Any, levels: Sequence[float]) -> list[str]:
    """Return the names of the arms that were asked for, and set the number of threads."""
    known = list(arms_of(levels))
    names = options.arms or known
    if BASELINE not in names or not set(names) <= set(known):
        arguments.error(f"--arms: {names}, allowed are {BASELINE!r} and any of {known[1:]}")
    torch.set_num_threads(options.threads)
    return [name for name in known if name in names]
