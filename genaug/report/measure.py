"""One pass over a set: a few samples at a time, in as many processes as there are cores; only numbers stay."""

from __future__ import annotations

import pickle
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from multiprocessing import get_context, resource_tracker
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genaug.engine.progress import counter
from genaug.errors import SampleError
from genaug.report.figures import Figures, Measured, Sizes
from genaug.report.sample_sets import SampleSet, StoreSet
from genaug.types import Sample

_TOGETHER = 8  # samples whose sizes are asked for at once
#: Below so many samples the start of further processes would take longer than the work.
_FEW = 48


class Reader:
    """Reads two sets, a few samples at a time, in worker processes or in this one; to be used in a ``with``.

    Args:
        sets: name -> set.
        workers: Processes; 1 for none but this one. Sets that do not pickle are read in this one.
    """

    def __init__(self, sets: Mapping[str, SampleSet], workers: int) -> None:
        self.sets = sets
        few = all(len(samples.keys) < _FEW for samples in sets.values())
        self._workers = 1 if few or not _pickles(sets) else workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._workers > 1:
            # Processes are spawned: forked ones would inherit the locks of whatever threads run here.
            spawn = get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, spawn, initializer=_start, initargs=(self.sets,))
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            with _interrupts_wait():  # a second one would leave it half shut down, and waiting for ever
                self._pool.shutdown(cancel_futures=True)

    def sizes(self, name: str) -> Sizes:
        """Return how many images of each ``(height, width)`` a set has."""
        result: Sizes = Counter()
        parallel = not isinstance(self.sets[name], StoreSet)  # a manifest names them
        for sizes in self._each(name, {}, parallel=parallel, what=f"sizes of {name}"):
            result.update(sizes)
        return result

    def measure(self, name: str, sections: Mapping[str, Figures]) -> dict[str, Measured]:
        """Measure a set for all sections; the result does not depend on the number of processes.

        Args:
            name: The set.
            sections: name -> section. Those that are not `Figures.parallel`, or do not pickle, are asked in this
                process, in a second pass.

        Raises:
            SampleError: A section returned something else than one record per sample.
        """
        samples = self.sets[name]
        parts: dict[str, list[dict[str, NDArray[Any]]]] = {section: [] for section in sections}
        apart = {s: section.parallel and (self._pool is None or _pickles(section)) for s, section in sections.items()}
        for parallel in (True, False):
            chosen = {s: section for s, section in sections.items() if apart[s] == parallel}
            if not chosen:
                continue
            for columns in self._each(name, chosen, parallel=parallel, what=f"measure {name}"):
                for section, part in columns.items():
                    parts[section].append(part)
        groups = samples.groups()
        return {section: Measured(samples.keys, groups, _joined(found)) for section, found in parts.items()}

    def _each(self, name: str, sections: Mapping[str, Figures], *, parallel: bool, what: str) -> Iterator[Any]:
        """Yield what `_measure` says of every few samples, in order; without sections their sizes."""
        keys = self.sets[name].keys
        together = max([section.together for section in sections.values()], default=_TOGETHER)
        chunks = [keys[i : i + together] for i in range(0, len(keys), together)]
        found: Iterator[Any]
        if parallel and self._pool is not None:
            with _interrupts_wait():  # the first call starts the processes
                found = self._pool.map(_work, repeat(name), repeat(sections), chunks)
        else:
            found = (_measure(self.sets[name], sections, chunk) for chunk in chunks)
        with counter(what, total=len(keys), done=0) as progress:
            for chunk in chunks:
                yield next(found)
                progress.update(len(chunk))


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # a source or section of somebody else's, with whatever it holds
        return False
    return True


_sets: Mapping[str, SampleSet]


def _start(sets: Mapping[str, SampleSet]) -> None:
    global _sets
    _sets = sets
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one ends them


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back; processes started meanwhile inherit that and do not die of it before `_start`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it later would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(name: str, sections: Mapping[str, Figures], keys: Sequence[str]) -> Any:
    return _measure(_sets[name], sections, keys)


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
