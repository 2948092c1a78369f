"""Filling a store: one writer a shard, rows after files, nothing that a kill at any moment could spoil."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genaug.errors import StoreError
from genaug.recipe import Recipe
from genaug.store import lock
from genaug.store.differences import differing_keys
from genaug.store.files import (
    DATASET,
    LOCK,
    MANIFEST,
    PROMPT,
    RESOLVED,
    SOURCE_TYPE,
    TEMP,
    condition_hash,
    encode_image,
    encode_mask,
    file_record,
    json_text,
    make_folder,
    read_recorded,
    remove_temporary,
    store_error,
    sync_folder,
    write_if_changed,
    write_whole,
)
from genaug.store.journal import Index, Journal, Row, write_rows
from genaug.store.shard import Shard
from genaug.store.store import (
    FORMAT,
    VERSION,
    SampleStore,
    condition_name,
    image_name,
    journals,
    mask_name,
    read_dataset,
)
from genaug.store.views import write_metadata
from genaug.types import Draw, Mask, Refused, Sample

log = logging.getLogger("genaug")


class StoreWriter:
    """Writes one shard of a store; made by `open_writer`, which holds the lock.

    Attributes:
        store: The store as this writer knows it; its index grows with every `add`.
        damaged: What `has` found.
    """

    def __init__(self, path: Path, recipe: Recipe, shard: Shard | None, *, repair: bool) -> None:
        self.path, self.recipe, self.shard, self.repair = path, recipe, shard, repair
        self.damaged: list[StoreError] = []
        self.tag = shard.tag if shard else "all"
        for folder in (path, path / "images", path / "masks", path / "conditions"):
            make_folder(folder)
            # Alone, everybody's leftovers go; a shard may only touch its own, others may be at work.
            remove_temporary(folder, shard.tag if shard else "")
        self._own = Journal(path / (f"manifest-{shard.tag}.jsonl" if shard else MANIFEST))
        with self.exclusive(lock.MERGE):
            info = self._agree()
            self._own.cut_tail()
            self.store = SampleStore(path, info, self._load())
            self._describe(info.get("planned"), info.get("samples_per_condition"), complete=info.get("complete", False))

    # ------------------------------------------------------------------ opening

    def _agree(self) -> dict[str, Any]:
        """Return what the store says of itself; raise unless its samples are this recipe's."""
        try:
            info = read_dataset(self.path)
            if info["samples_hash"] == self.recipe.samples_hash():
                return info
            old = info["recipe"]
        except StoreError:
            if not self.repair and (self.path / DATASET).exists():
                raise
            info, old = {}, self._resolved_before()
        if not any(journal.path.exists() for journal in journals(self.path)):
            return {}  # nothing was made by the other recipe: this one may have the folder
        differences = differing_keys(_decisive(old), _decisive(self.recipe.resolved()))
        if not differences and not info:
            return {}  # dataset.json was lost, and the recipe beside it is this one
        raise StoreError(
            "the store was made by another recipe: " + differences
            if differences
            else "the store was made by a version of genaug whose samples differ",
            where=str(self.path),
            hint="Change it back, or set 'output' to another folder; to start over, delete this folder yourself",
        )

    def _resolved_before(self) -> Any:
        try:
            return yaml.safe_load((self.path / RESOLVED).read_text("utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}

    def _load(self) -> Index:
        files = journals(self.path)
        if self.shard is not None:
            if self.repair:
                raise StoreError("a shard cannot repair", where=str(self.path), hint="Use --repair without --shard")
            return Index([j for j in files if j.path != self._own.path] + [self._own])
        index = Index(files, skip_bad=self.repair)
        if len(files) > 1 or self.repair:
            # What shards left is folded in, and damaged lines fall out, before anything is appended.
            self._replace_manifest(index, list(index))
            index = Index([self._own])
        return index

    def _replace_manifest(self, index: Index, keys: Iterable[str]) -> None:
        manifest, *shards = journals(self.path)
        write_rows(manifest.path, (index[key] for key in keys), tag=self.tag)
        for journal in shards:
            _unlink(journal.path)
        sync_folder(self.path)

    def _describe(self, planned: int | None, per_condition: int | None, *, complete: bool) -> None:
        """Write ``dataset.json`` and the resolved recipe if they do not say so already."""
        resolved = self.recipe.resolved()
        info = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.recipe.config.name,
            "synthetic": True,
            "digital_source_type": SOURCE_TYPE,
            "labels": self.recipe.labels.to_dict(),
            "samples_hash": self.recipe.samples_hash(),
            "planned": planned,
            "complete": complete,
            "samples_per_condition": per_condition,
            "filters": [part.label for part in self.recipe.config.filters],
            "recipe": resolved,
        }
        self.store.info = info
        text = json_text(info, where=DATASET, indent=2) + "\n"
        write_if_changed(self.path / DATASET, text.encode(), tag=self.tag)
        root = os.path.relpath(self.recipe.root.resolve(), self.path.resolve())
        text = f"# Every option of the run, defaults included. Relative paths start at {root}\n"
        text += yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
        write_if_changed(self.path / RESOLVED, text.encode(), tag=self.tag)

    def exclusive(self, wanted: lock.Range, *, wait: bool = True) -> AbstractContextManager[None]:
        """Hold a further lock against other shards; alone there is nobody to exclude."""
        return contextlib.nullcontext() if self.shard is None else lock.hold(self.path, wanted, wait=wait)

    # ------------------------------------------------------------------ planning

    def plan(self, planned: int, per_condition: int, *, missing: int) -> None:
        """Record how many samples the recipe asks for, in all and per condition, and how many this writer will add."""
        complete = not missing and self.store.complete and planned == self.store.planned
        self._describe(planned, per_condition, complete=complete)

    def put_condition(self, condition: Sample) -> None:
        """Write the mask of a condition unless it is there.

        Raises:
            StoreError: The operating system refused.
        """
        if condition.mask is not None:
            path = self.path / condition_name(condition.id)
            existed = path.exists()
            if write_if_changed(path, encode_mask(condition.mask), tag=self.tag) and existed:
                log.warning("%s was damaged and has been written again", path)

    def has(self, key: str, seed: int, condition: str | None) -> bool:
        """Return True if a sample is finished; its files are read and compared with its row.

        A damaged sample counts as finished and is noted in `damaged`, unless the store is being repaired.

        Args:
            key: The sample.
            seed: Its seed.
            condition: `condition_hash` of what it must have been made from.

        Raises:
            StoreError: The sample was made from another mask, prompt or seed.
        """
        if key not in self.store.index:
            return False
        row = self.store.index[key]
        if row["condition"] != condition or row["seed"] != seed:
            what = "prompt" if (condition or "").startswith(PROMPT) else "mask"
            raise StoreError(
                f"sample {key} was made from another {what} than {row['id']} has now",
                where=str(self.path),
                hint=f"Put the old {what} back, or set 'output' to another folder",
            )
        records = [record for record in (row["image"], row["mask"]) if record is not None]
        try:
            missing = not all((self.path / record["file"]).exists() for record in records)
            if not missing:
                for record in records:
                    read_recorded(self.path, record)
                return True
        except StoreError as error:
            if not self.repair:
                self.damaged.append(error)
                return True
        self.store.index.forget(key)
        return False

    # ------------------------------------------------------------------ samples

    def add(self, draws: Sequence[Draw], results: Sequence[Sample | Refused], generator: Mapping[str, Any]) -> None:
        """Write samples: all files, then the folders, then all rows by one write.

        Args:
            draws: What was asked for; members that are done already must be left out.
            results: What came back, aligned; a refusal is recorded with its reason.
            generator: Provenance for every row.

        Raises:
            StoreError: The operating system refused, or ``meta`` is not JSON. Nothing half-written stays, finished
                samples stay.
        """
        rows = [self._put(draw, result, generator) for draw, result in zip(draws, results, strict=True)]
        for folder in ("images", "masks"):
            sync_folder(self.path / folder)
        self.store.index.append(rows)

    def _put(self, draw: Draw, result: Sample | Refused, generator: Mapping[str, Any]) -> Row:
        row: Row = {
            "key": draw.key,
            "id": draw.condition.id,
            "k": draw.k,
            "seed": draw.seed,
            "condition": condition_hash(draw.condition),
            "synthetic": True,
            "generator": dict(generator),
        }
        if isinstance(result, Refused):
            return {**row, "image": None, "mask": None, "refused": result.reason}
        assert result.image is not None  # `Generator.generate` checked it
        image = encode_image(result.image)
        mask = None if result.mask is None else encode_mask(result.mask)
        row |= {
            "image": file_record(image_name(draw.key), image),
            "mask": None if mask is None else file_record(mask_name(draw.key), mask),
            "size": list(result.size),
            "ignored": 1.0 if result.mask is None else self._ignored(result.mask),
            "meta": dict(result.meta),
        }
        json_text(row, where=f"meta of sample {draw.key}")  # a row that cannot be written must not leave files
        write_whole(self.path / row["image"]["file"], image, tag=self.tag)
        if mask is not None:
            write_whole(self.path / row["mask"]["file"], mask, tag=self.tag)
        return row

    def _ignored(self, mask: Mask) -> float:
        return float(np.mean(mask == self.recipe.labels.ignore_index))

    def finish(self, keys: Sequence[str]) -> bool:
        """Bring the manifest into the canonical order and merge the shards, if every sample is there.

        Args:
            keys: Every planned sample, in canonical order.

        Returns:
            False if samples are still missing: other shards are at work.

        Raises:
            StoreError: The store holds samples of conditions that the data no longer has.
        """
        with self.exclusive(lock.MERGE):
            files = journals(self.path)
            # Other shards have appended since, or one of them has merged already.
            index = self.store.index if self.shard is None else Index(files)
            planned = set(keys)
            extra = sorted(set(index) - planned)
            if extra:
                raise StoreError(
                    f"{len(extra)} samples are of conditions that the data no longer has, e.g. {extra[0]}",
                    where=str(self.path),
                    hint="Put their masks back, or set 'output' to another folder",
                )
            if len(index) < len(planned):
                return False
            if len(files) > 1 or [row["key"] for _, row in files[0].scan()] != list(keys):
                self._replace_manifest(index, keys)
                index = Index([Journal(self.path / MANIFEST)])
            self.store.index = index
            write_metadata(self.store)
            self._describe(len(planned), self.store.info["samples_per_condition"], complete=True)
        return True


def _decisive(resolved: Any) -> Any:
    """Return the part of a resolved recipe that decides its samples."""
    free = ("filters", "output", "name")
    return {k: v for k, v in resolved.items() if k not in free} if isinstance(resolved, Mapping) else {}


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise store_error("remove", path, error) from error


@contextmanager
def open_writer(recipe: Recipe, *, shard: Shard | None = None, repair: bool = False) -> Iterator[StoreWriter]:
    """Create or reopen the store of a recipe for writing, holding its lock.

    Args:
        recipe: Names the folder and decides the samples.
        shard: Which part this process writes; None for all.
        repair: Forget damaged samples and damaged lines, so that they are made again.

    Raises:
        StoreError: Another process writes there; the folder holds something else or another recipe's samples; a
            manifest is damaged (not with `repair`); or the operating system refused.
    """
    path = recipe.output
    if path.exists() and not path.is_dir():
        raise StoreError("is a file", where=str(path), allowed="a folder", hint="Set 'output' to another place")
    if path.is_dir() and not (path / DATASET).exists() and not (repair and (path / RESOLVED).exists()):
        try:
            strange = sorted(p.name for p in path.iterdir() if not _ours(p))
        except OSError as error:
            raise store_error("read", path, error) from error
        if strange and not (path / DATASET).exists():  # another shard may have begun in this moment
            raise StoreError(
                f"the folder is not empty and no sample store (it holds {strange[0]!r})",
                where=str(path),
                hint="Set 'output' to a new or empty folder",
            )
    make_folder(path)
    with lock.hold(path, lock.shard_range(shard)):
        yield StoreWriter(path, recipe, shard, repair=repair)


def _ours(path: Path) -> bool:
    """What a probe may have written, or a writer left that was killed before ``dataset.json`` was there."""
    return path.name == LOCK or path.name.startswith(TEMP) or path.name in {"images", "masks", "conditions", "probe"}
