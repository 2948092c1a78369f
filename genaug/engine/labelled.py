"""The labelled samples that components learn from, and a note in their folders of which these were."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from tqdm import tqdm

from genaug.errors import AdapterError
from genaug.sources.base import Source
from genaug.store.files import json_text, remove_temporary, sync_folder, write_whole
from genaug.store.learned import read_table
from genaug.types import Sample

#: Beside what was learned: number and hash of the labelled samples.
LABELLED = "labelled.json"


class LabelledSamples(Sequence[Sample]):
    """A source as a sequence; every access reads the files again, so nothing stays in memory."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.ids = tuple(source.ids())
        self._about: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self.source.load(sample_id) for sample_id in self.ids[index]]
        return self.source.load(self.ids[index])

    def about(self) -> dict[str, Any]:
        """Return number and hash (ids and pixels) of the samples; reads all of them, once."""
        if self._about is None:
            sha = hashlib.sha256()
            for sample in tqdm(self, desc="labelled samples", unit="sample", delay=1, leave=False):
                sha.update(sample.id.encode() + b"\0")
                for array in (sample.image, sample.mask):
                    if array is not None:
                        sha.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
            self._about = {"samples": len(self), "sha256": sha.hexdigest()}
        return self._about


def note(folder: Path, samples: LabelledSamples, *, tag: str) -> None:
    """Write down, before a component learns in `folder`, what it learns from."""
    remove_temporary(folder, tag)
    write_whole(folder / LABELLED, json_text(samples.about(), where=LABELLED).encode() + b"\n", tag=tag)
    sync_folder(folder)


def renew_note(folder: Path, samples: LabelledSamples, *, tag: str) -> None:
    """Write a lost note again beside what was learned, so that changes of the data are noticed from now on."""
    if folder.is_dir() and not (folder / LABELLED).exists():
        note(folder, samples, tag=tag)


def check_note(folder: Path, samples: LabelledSamples, *, name: str) -> None:
    """Raise if what lies in `folder` was begun with other labelled samples; say nothing where nothing was noted.

    Raises:
        AdapterError: Samples were added, removed or changed since; or the note is damaged.
    """
    keep = "If the labelled samples are the same as then, delete this file: what was learned stays, and is used"
    try:
        noted = read_table(folder / LABELLED, hint=keep)
    except FileNotFoundError:
        return
    now = samples.about()
    if noted.keys() != now.keys():
        raise AdapterError("damaged: not a note of labelled samples", where=str(folder / LABELLED), hint=keep)
    if noted != now:
        raise AdapterError(
            f"{name} learned from {noted['samples']} labelled samples that are not the {now['samples']} of today: "
            "some were added, removed or changed",
            where=str(folder),
            hint="Set 'output' to another folder; or, if nothing was generated yet, delete this one to learn again",
        )
