"""What all filters together leave of a store: the view to train with, and ``metadata.jsonl``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from genaug.store.files import (
    METADATA,
    encode_mask,
    json_text,
    make_folder,
    remove_temporary,
    store_error,
    write_if_changed,
)
from genaug.store.journal import Row, write_rows
from genaug.store.store import SampleStore
from genaug.store.verdicts import FilterResults, group_digest
from genaug.types import Mask, Sample

TAG = "view"


@dataclass(slots=True)
class TrainingView(Sequence[Sample]):
    """Samples that every filter keeps; a pixel that any filter ignores is ignored. Reads one sample at a time.

    Args:
        store: Where the files are.
        keys: Keys of the kept samples, in store order.
        changed: key -> records of the masks that filters wrote for it.
    """

    store: SampleStore
    keys: tuple[str, ...]
    changed: dict[str, tuple[dict[str, Any], ...]]

    @classmethod
    def of(cls, store: SampleStore, filters: Sequence[str]) -> TrainingView:
        """Combine the verdicts of `filters`; see `SampleStore.training_view`."""
        results = [FilterResults(store.path, name) for name in filters]
        if not store.complete:
            warnings.warn(
                f"{store.path}: {len(store.index)} of {store.planned} samples are made; run 'genaug run' to finish",
                stacklevel=3,
            )
        keys: list[str] = []
        changed: dict[str, tuple[dict[str, Any], ...]] = {}
        for rows in store.grouped_rows():
            fresh = group_digest(rows) if results else ""
            for key in (row["key"] for row in rows):
                verdicts = [result.verdict(key, group=fresh) for result in results]
                if all(v["keep"] for v in verdicts):
                    keys.append(key)
                    masks = tuple(v["mask"] for v in verdicts if v["mask"] is not None)
                    if masks:
                        changed[key] = masks
        return cls(store, tuple(keys), changed)

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        key = self.keys[index]
        sample = self.store.sample(key)
        if key not in self.changed:
            return sample
        assert sample.mask is not None  # `SampleStore.load` always reads one
        mask = combine(self.store, sample.mask, self.changed[key])
        return Sample(sample.id, sample.image, mask, sample.meta)


def combine(store: SampleStore, mask: Mask, records: Sequence[dict[str, Any]]) -> Mask:
    """Return `mask` with every pixel ignored that one of the filters' masks ignores."""
    ignore = store.labels.ignore_index
    result = mask.copy()
    for record in records:
        result[store.mask(record) == ignore] = ignore
    return result


def write_metadata(store: SampleStore) -> None:
    """Write ``metadata.jsonl``: one row per image with everything known about it.

    Beside a store's own readers, the ``imagefolder`` loader of Hugging Face datasets understands it: ``file_name`` and
    ``mask_file_name`` become images. ``mask_file_name`` is the mask to train with: the original, the one that a filter
    wrote, or, where several filters changed pixels, their combination in ``combined/``. Rows of dropped samples have
    ``kept`` false; ``kept`` is null while a filter of the recipe has not judged.
    """
    for folder in (store.path, store.path / "combined"):
        remove_temporary(folder, TAG)
    results = [FilterResults(store.path, name) for name in store.filters]
    needed: set[str] = set()
    write_rows(store.path / METADATA, _metadata(store, results, needed), tag=TAG)
    folder = store.path / "combined"
    for file in folder.glob("*.png") if folder.is_dir() else ():
        if file.stem not in needed and file.stem in store.index:
            try:
                file.unlink()
            except OSError as error:
                raise store_error("remove", file, error) from error


def _metadata(store: SampleStore, results: Sequence[FilterResults], needed: set[str]) -> Iterator[Row]:
    for row in store.rows():
        if row["image"] is None:
            continue
        key = row["key"]
        verdicts = {result.name: result.index[key] for result in results if key in result.index}
        name, ignored = _training_mask(store, row, verdicts, needed)
        yield {
            "file_name": row["image"]["file"],
            "mask_file_name": name,
            "key": key,
            "id": row["id"],
            "k": row["k"],
            "seed": row["seed"],
            "height": row["size"][0],
            "width": row["size"][1],
            "synthetic": True,
            "kept": None if len(verdicts) < len(results) else all(v["keep"] for v in verdicts.values()),
            "ignored_fraction": ignored,
            "verdicts": [
                {"filter": n, "keep": v["keep"], "reason": v["reason"], "scores": json_text(v["scores"], where=key)}
                for n, v in verdicts.items()
            ],
            # As text: tables whose keys differ from row to row have no column type.
            "meta": json_text(row["meta"], where=key),
            "generator": json_text(row["generator"], where=key),
        }


def _training_mask(store: SampleStore, row: Row, verdicts: dict[str, Row], needed: set[str]) -> tuple[str, float]:
    """Return the place of the mask to train with and the fraction of its pixels that are ignored."""
    changed = [v for v in verdicts.values() if v["mask"] is not None]
    if not changed:
        return row["mask"]["file"], row["ignored"]
    if len(changed) == 1:
        return changed[0]["mask"]["file"], changed[0]["ignored"]
    mask = combine(store, store.mask(row["mask"]), [v["mask"] for v in changed])
    needed.add(row["key"])
    name = f"combined/{row['key']}.png"
    make_folder(store.path / "combined")
    write_if_changed(store.path / name, encode_mask(mask), tag=TAG)
    return name, float(np.mean(mask == store.labels.ignore_index))
