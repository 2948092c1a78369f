"""One pass over a set: a few samples at a time, in as many processes as there are cores; only numbers stay."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genaug.engine.progress import counter
from genaug.errors import SampleError
from genaug.report.figures import Figures, Measured, Sizes
from genaug.report.sample_sets import SampleSet, StoreSet
from genaug.types import Sample

#: Samples measured together: what one process holds in memory.
TOGETHER = 8
#: Below so many samples the start of further processes would take longer than the work.
_FEW = 48

Columns = dict[str, dict[str, NDArray[Any]]]


def sizes_of(samples: SampleSet, *, workers: int, what: str) -> Sizes:
    """Return how many images of each ``(height, width)`` a set has."""
    result: Sizes = Counter()
    workers = 1 if isinstance(samples, StoreSet) else workers  # a manifest names them
    for sizes in _each(samples, {}, workers=workers, what=f"sizes of {what}"):
        result.update(sizes)
    return result


def measure(samples: SampleSet, sections: Mapping[str, Figures], *, workers: int, what: str) -> dict[str, Measured]:
    """Measure a set for all sections; the result does not depend on the number of processes.

    Args:
        samples: The set.
        sections: name -> section. Those that are not `Figures.parallel` are asked in this process, in a second pass.
        workers: Processes.
        what: What the progress bar calls the set.

    Raises:
        SampleError: A section returned something else than one record per sample.
    """
    groups = samples.groups()
    parts: dict[str, list[dict[str, NDArray[Any]]]] = {name: [] for name in sections}
    for parallel in (True, False):
        chosen = {name: section for name, section in sections.items() if section.parallel == parallel}
        if not chosen:
            continue
        for columns in _each(samples, chosen, workers=workers if parallel else 1, what=f"measure {what}"):
            for name, part in columns.items():
                parts[name].append(part)
    return {name: Measured(samples.keys, groups, _joined(found)) for name, found in parts.items()}


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def _each(samples: SampleSet, sections: Mapping[str, Figures], *, workers: int, what: str) -> Iterator[Any]:
    """Yield what `_measure` says of every few samples, in order; without sections their sizes."""
    keys = samples.keys
    chunks = [keys[i : i + TOGETHER] for i in range(0, len(keys), TOGETHER)]
    with counter(what, total=len(keys), done=0) as progress, ExitStack() as stack:
        found: Iterator[Any] = (_measure(samples, sections, chunk) for chunk in chunks)
        if workers > 1 and len(keys) >= _FEW and _pickles((samples, sections)):
            # Processes are spawned: forked ones would inherit the locks of whatever threads run here.
            pool = ProcessPoolExecutor(
                min(workers, len(chunks)), get_context("spawn"), initializer=_start, initargs=(samples, sections)
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            found = pool.map(_work, chunks)
        for chunk, result in zip(chunks, found, strict=True):
            progress.update(len(chunk))
            yield result


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # a source of somebody else's, with whatever it holds
        return False
    return True


_given: tuple[SampleSet, Mapping[str, Figures]]


def _start(samples: SampleSet, sections: Mapping[str, Figures]) -> None:
    global _given
    _given = samples, sections


def _work(keys: Sequence[str]) -> Any:
    return _measure(*_given, keys)


def _measure(samples: SampleSet, sections: Mapping[str, Figures], keys: Sequence[str]) -> Any:
    if not sections:
        return [samples.size(key) for key in keys]
    loaded = [samples.load(key) for key in keys]
    for sample in loaded:
        if sample.image is None:
            raise SampleError("there is no image", where=f"sample {sample.id}", allowed="images, with or without masks")
    return {name: _columns(name, section, loaded) for name, section in sections.items()}


def _columns(name: str, section: Figures, samples: Sequence[Sample]) -> dict[str, NDArray[Any]]:
    records = list(section.measure(samples))
    if len(records) != len(samples) or any(set(r) != set(records[0]) for r in records):
        raise SampleError(
            f"{len(records)} records for {len(samples)} samples, or of unequal keys",
            where=f"figures {name}",
            allowed="one record per sample, all with the same keys",
        )
    return {key: np.stack([np.asarray(record[key]) for record in records]) for key in records[0]}
