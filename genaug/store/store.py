"""Reading a store. Nothing here writes; see `genaug.store.writer` for that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from genaug.errors import StoreError
from genaug.hub.reference import local_path
from genaug.labels import LabelSpace
from genaug.store.files import (
    DATASET,
    MANIFEST,
    PROMPT,
    TEMP,
    decode_png,
    mask_hash,
    read_bytes,
    read_recorded,
    store_error,
)
from genaug.store.journal import Index, Journal, Row
from genaug.types import Group, Image, Mask, Sample

if TYPE_CHECKING:
    from genaug.store.views import TrainingView

FORMAT = "genaug-store"
VERSION = 1


def read_dataset(path: Path) -> dict[str, Any]:
    """Read a store's ``dataset.json``.

    Raises:
        StoreError: Not a store, damaged, or written by a newer genaug.
    """
    file = path / DATASET
    if not file.is_file():
        found = "the folder has no dataset.json" if path.is_dir() else "no such folder"
        raise StoreError(found, where=str(path), allowed="a folder that 'genaug generate' or 'genaug run' filled")
    try:
        data = json.loads(file.read_bytes())
        form, version = data["format"], data["version"]
        missing = sorted({"labels", "samples_hash", "planned", "complete", "filters", "recipe"} - set(data))
        if form == FORMAT and missing:
            raise KeyError(*missing)
    except OSError as error:
        raise store_error("read", file, error) from error
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"damaged: {error!r}",
            where=str(file),
            hint="Run 'genaug generate' with --repair to write it again",
        ) from error
    if form != FORMAT:
        raise StoreError(f"of format {form!r}", where=str(file), allowed=FORMAT)
    if not isinstance(version, int) or version > VERSION:
        raise StoreError(
            f"of store version {version!r}", where=str(file), allowed=f"at most {VERSION}", hint="Upgrade genaug"
        )
    return dict(data)


def journals(path: Path) -> list[Journal]:
    """Return the manifest and whatever shard journals wait to be merged into it, in order."""
    return [Journal(path / MANIFEST), *(Journal(p) for p in sorted(path.glob("manifest-*-of-*.jsonl")))]


def image_name(key: str) -> str:
    """Return the place of an image inside a store."""
    return f"images/{key}.png"


def mask_name(key: str) -> str:
    """Return the place of a mask inside a store."""
    return f"masks/{key}.png"


def condition_name(condition_id: str) -> str:
    """Return the place of a condition's mask inside a store."""
    return f"conditions/{condition_id}.png"


@dataclass(slots=True)
class SampleStore:
    """Generated image-mask pairs, or images made from prompts, in a folder, read one at a time.

    Open with `open`. A store may be read while a run fills it; it then shows what was complete when it was opened.

    Args:
        path: The folder.
        info: Content of ``dataset.json``: class table, resolved recipe, its hash, what was planned.
        index: Manifest rows by key, ``<condition id>_<k>``.

    Example:
        >>> store = SampleStore.open("synthetic")  # doctest: +SKIP
        >>> store[0].image.shape, len(store.training_view())  # doctest: +SKIP
    """

    path: Path
    info: dict[str, Any]
    index: Index

    @classmethod
    def open(cls, path: str | Path) -> SampleStore:
        """Open a store for reading; ``hf-hub:datasets/org/name@revision`` is fetched first.

        Raises:
            StoreError: Not a store, or its ``dataset.json`` or a manifest is damaged.
        """
        path = local_path(path)
        return cls(path, read_dataset(path), Index(journals(path)))

    @property
    def labels(self) -> LabelSpace:
        """Class table of the masks."""
        return LabelSpace.from_config(self.info["labels"])

    @property
    def planned(self) -> int | None:
        """Number of samples the recipe asks for; None before the first was planned."""
        value = self.info.get("planned")
        return None if value is None else int(value)

    @property
    def complete(self) -> bool:
        """True when every planned sample was made, or refused by its generator, and all shards are merged."""
        return bool(self.info["complete"])

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the recipe's filters, in order; others may have judged before and are not asked any more."""
        return tuple(self.info["filters"])

    # ------------------------------------------------------------------ samples

    def keys(self) -> tuple[str, ...]:
        """Return the keys of all samples that have an image, in store order."""
        return tuple(key for key in self.index if key not in self.index.refused)

    def __len__(self) -> int:
        return len(self.index) - len(self.index.refused)

    def __getitem__(self, key: str | int) -> Sample:
        """Read the sample of a key, or the sample number `key` of `keys()`."""
        return self.sample(self.keys()[key] if isinstance(key, int) else key)

    def __iter__(self) -> Iterator[Sample]:
        for key in self.keys():
            yield self.sample(key)

    def rows(self) -> Iterator[Row]:
        """Yield the manifest rows, those of refused draws (``image`` is null) included."""
        for key in self.index:
            yield self.index[key]

    def row(self, key: str) -> Row:
        """Return one manifest row.

        Raises:
            StoreError: No such sample.
        """
        if key not in self.index:
            raise StoreError(f"no sample {key!r}", where=str(self.path), allowed="a key that keys() lists")
        return self.index[key]

    def sample(self, key: str) -> Sample:
        """Read one sample: image ``[H, W, 3]``, original mask ``[H, W]``, the generator's ``meta``; its id is the key.

        Raises:
            StoreError: No such sample, the generator refused it, or a file is missing or damaged.
        """
        return self.load(self.row(key))

    def load(self, row: Row) -> Sample:
        """Read the sample of a manifest row; see `sample`."""
        if row["image"] is None:
            raise StoreError(f"there is no image: {row['refused']}", where=f"{self.path}, sample {row['key']}")
        image: Image = decode_png(read_recorded(self.path, row["image"]), "RGB", where=self.path / row["image"]["file"])
        return Sample(row["key"], image, None if row["mask"] is None else self.mask(row["mask"]), row["meta"])

    def mask(self, record: Mapping[str, Any]) -> Mask:
        """Read a mask that a row describes: uint8 ``[H, W]``."""
        array: Mask = decode_png(read_recorded(self.path, record), "L", where=self.path / record["file"])
        return array

    def training_view(self, filters: Sequence[str] | None = None) -> TrainingView:
        """Return the samples to train with: kept by every filter, untrusted pixels ignored.

        Samples of which no labelled pixel is left are left out; `TrainingView.nothing_left` names them. Samples that
        never had a mask stay, unlabelled.

        Args:
            filters: Names of the filters to obey, for comparing them; all of the recipe's by default.

        Raises:
            StoreError: One of the filters has not judged every sample yet.
        """
        from genaug.store.views import TrainingView

        return TrainingView.of(self, self.filters if filters is None else tuple(filters))

    # ------------------------------------------------------------------ groups

    def groups(self) -> Iterator[Group]:
        """Yield the samples made from each condition together, in store order, one group in memory at a time.

        Conditions without any image are left out. A condition that has no mask (a prompt) appears as a mask of the
        ignore index at its first sample's size.

        Raises:
            StoreError: A file is missing or damaged.
        """
        for rows in self.grouped_rows():
            yield self.group(rows)

    def group(self, rows: Sequence[Row]) -> Group:
        """Read the group that `grouped_rows` described."""
        samples = tuple(self.load(row) for row in rows)
        return Group(rows[0]["id"], self._followed(rows[0]), samples, tuple(row["k"] for row in rows))

    def _followed(self, row: Row) -> Mask:
        mask = self.condition(row)
        return np.full(row["size"], self.labels.ignore_index, np.uint8) if mask is None else mask

    def group_keys(self) -> list[tuple[str, ...]]:
        """Return the keys that have an image, condition by condition, sorted by ``k``."""
        members: dict[str, list[int]] = {}
        for key in self.keys():
            condition_id, _, k = key.rpartition("_")
            members.setdefault(condition_id, []).append(int(k))
        return [tuple(f"{i}_{k}" for k in sorted(ks)) for i, ks in members.items()]

    def rows_of(self, keys: Iterable[str]) -> list[Row]:
        """Return the manifest rows of some keys."""
        return [self.index[key] for key in keys]

    def grouped_rows(self) -> Iterator[list[Row]]:
        """Yield the rows of `group_keys`, group by group."""
        for keys in self.group_keys():
            yield self.rows_of(keys)

    def conditions(self) -> Iterator[tuple[str, Mask]]:
        """Yield ``(condition id, mask [H, W])`` of every group, in store order, without reading images."""
        for rows in self.grouped_rows():
            yield rows[0]["id"], self._followed(rows[0])

    def condition(self, row: Row) -> Mask | None:
        """Read the mask a sample was asked to follow; None when the condition had no mask.

        Raises:
            StoreError: The file is missing, or is not the mask the row was made from.
        """
        if row["condition"] is None or row["condition"].startswith(PROMPT):
            return None
        path = self.path / condition_name(row["id"])
        mask: Mask = decode_png(read_bytes(path), "L", where=path)
        if mask_hash(mask) != row["condition"]:
            raise StoreError(
                "not the mask that the sample was made from",
                where=str(path),
                hint="Run 'genaug generate' to write it again",
            )
        return mask

    # ------------------------------------------------------------------ checks

    def verify(self) -> list[str]:
        """Read every file of the store and return what is wrong, one line each; empty when sound.

        Looks for missing and damaged files, verdicts' masks included, and for images and masks without a row.
        """
        from genaug.store.verdicts import FilterResults

        problems: list[str] = []
        known: set[str] = set()
        conditions: set[str] = set()
        for row in tqdm(self.rows(), "verify", len(self.index), unit="sample", delay=1):
            records = [r for r in (row["image"], row["mask"]) if r is not None]
            known.update(r["file"] for r in records)
            problems += [p for r in records for p in _problems(read_recorded, self.path, r)]
            if row["id"] not in conditions:
                conditions.add(row["id"])
                problems += _problems(self.condition, row)
        for name in self.filters:
            for row in FilterResults(self.path, name).rows():
                if row["mask"] is not None:
                    problems += _problems(read_recorded, self.path, row["mask"])
        for folder in ("images", "masks"):
            for file in sorted((self.path / folder).glob("*")):
                if f"{folder}/{file.name}" not in known and not file.name.startswith(TEMP):
                    problems.append(f"{file}: no row of the manifest describes this file")
        return problems


def _problems(check: Callable[..., Any], *arguments: Any) -> list[str]:
    try:
        check(*arguments)
    except StoreError as error:
        return [str(error)]
    return []
