"""What all filters together leave of a store: the view to train with, and ``metadata.jsonl``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
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

#: Why a sample that every filter keeps is not trained on: a batch of such samples has no loss, only NaN.
NOTHING_LEFT = "every pixel is ignored, nothing is left to train on"


@dataclass(slots=True)
class TrainingView(Sequence[Sample]):
    """Samples that every filter keeps and leaves a labelled pixel of; a pixel that any filter ignores is ignored.

    Reads one sample at a time. Samples that were made without a mask are here too, unlabelled.

    Args:
        store: Where the files are.
        keys: Keys of the kept samples, in store order.
        changed: key -> records of the masks that filters wrote for it.
        nothing_left: Keys that every filter keeps but that have no labelled pixel left, so that they are left out.
    """

    store: SampleStore
    keys: tuple[str, ...]
    changed: dict[str, tuple[dict[str, Any], ...]]
    nothing_left: tuple[str, ...] = ()

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
        empty: list[str] = []
        changed: dict[str, tuple[dict[str, Any], ...]] = {}
        for rows in store.grouped_rows():
            fresh = group_digest(rows) if results else ""
            for row in rows:
                key = row["key"]
                verdicts = [result.verdict(key, group=fresh) for result in results]
                if not all(v["keep"] for v in verdicts):
                    continue
                if nothing_left(store, row, verdicts):
                    empty.append(key)
                    continue
                keys.append(key)
                masks = tuple(v["mask"] for v in verdicts if v["mask"] is not None)
                if masks:
                    changed[key] = masks
        return cls(store, tuple(keys), changed, tuple(empty))

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


def nothing_left(store: SampleStore, row: Row, verdicts: Iterable[Row]) -> bool:
    """Return whether a sample has no labelled pixel once the pixels that any filter ignores are ignored.

    False for a sample that was made without a mask: it is not learned from by labels. Masks are read only where the
    recorded shares of ignored pixels cannot tell.

    Args:
        store: Where the masks are.
        row: The sample's manifest row.
        verdicts: What the filters said about it.
    """
    if row["mask"] is None:
        return False
    pixels = row["size"][0] * row["size"][1]
    before = round(row["ignored"] * pixels)
    changed = [v for v in verdicts if v["mask"] is not None]
    after = [round(v["ignored"] * pixels) for v in changed]
    if max([before, *after]) == pixels:
        return True
    # Together they ignore most when no two of them ignore the same pixel.
    if before + sum(count - before for count in after) < pixels:
        return False
    left = combine(store, store.mask(row["mask"]), [v["mask"] for v in changed])
    return bool((left == store.labels.ignore_index).all())


def write_metadata(store: SampleStore) -> tuple[str, ...]:
    """Write ``metadata.jsonl``: one row per image with everything known about it.

    Beside a store's own readers, the ``imagefolder`` loader of Hugging Face datasets understands it: ``file_name`` and
    ``mask_file_name`` become images. ``mask_file_name`` is the mask to train with: the original, the one that a filter
    wrote, or, where several filters changed pixels, their combination in ``combined/``; samples that were made without
    a mask lack the key. Rows of samples that are not
    trained on, because a filter drops them or no labelled pixel is left, have ``kept`` false and a ``reason``; ``kept``
    is null while a filter of the recipe has not judged.

    Returns:
        Keys of the samples that every filter keeps but that have no labelled pixel left.
    """
    for folder in (store.path, store.path / "combined"):
        remove_temporary(folder, TAG)
    results = [FilterResults(store.path, name) for name in store.filters]
    needed: set[str] = set()
    empty: list[str] = []
    write_rows(store.path / METADATA, _metadata(store, results, needed, empty), tag=TAG)
    folder = store.path / "combined"
    for file in folder.glob("*.png") if folder.is_dir() else ():
        if file.stem not in needed and file.stem in store.index:
            try:
                file.unlink()
            except OSError as error:
                raise store_error("remove", file, error) from error
    return tuple(empty)


def _metadata(
    store: SampleStore, results: Sequence[FilterResults], needed: set[str], empty: list[str]
) -> Iterator[Row]:
    """Yield the rows; note combined masks that are in use in `needed`, and the keys to return in `empty`."""
    for row in store.rows():
        if row["image"] is None:
            continue
        key = row["key"]
        verdicts = {result.name: result.index[key] for result in results if key in result.index}
        name, ignored = _training_mask(store, row, verdicts, needed)
        judged = len(verdicts) == len(results)
        reasons = [f"{n}: {v['reason']}" for n, v in verdicts.items() if not v["keep"]]
        if not reasons and ignored == 1 and row["mask"] is not None:
            reasons = [NOTHING_LEFT]
            if judged:
                empty.append(key)
        yield {
            "file_name": row["image"]["file"],
            **({} if name is None else {"mask_file_name": name}),
            "key": key,
            "id": row["id"],
            "k": row["k"],
            "seed": row["seed"],
            "height": row["size"][0],
            "width": row["size"][1],
            "synthetic": True,
            "kept": not reasons if judged else None,
            "reason": "; ".join(reasons),
            "ignored_fraction": ignored,
            "verdicts": [
                {"filter": n, "keep": v["keep"], "reason": v["reason"], "scores": json_text(v["scores"], where=key)}
                for n, v in verdicts.items()
            ],
            # As text: tables whose keys differ from row to row have no column type.
            "meta": json_text(row["meta"], where=key),
            "generator": json_text(row["generator"], where=key),
        }


def _training_mask(
    store: SampleStore, row: Row, verdicts: dict[str, Row], needed: set[str]
) -> tuple[str | None, float]:
    """Return the place of the mask to train with, if there is one, and the fraction of its pixels that are ignored."""
    if row["mask"] is None:
        return None, row["ignored"]
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
