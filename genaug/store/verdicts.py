"""What each filter said: ``filters/<name>/``, beside the samples, which it never touches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genaug.errors import ConfigError, StoreError
from genaug.recipe import digest
from genaug.store.differences import differing_keys
from genaug.store.files import (
    encode_mask,
    file_record,
    json_text,
    make_folder,
    remove_temporary,
    store_error,
    sync_folder,
    system_errors,
    write_if_changed,
    write_whole,
)
from genaug.store.journal import Index, Journal, Row, write_rows
from genaug.store.store import SampleStore
from genaug.types import Group, Verdict

TAG = "filter"


def filter_folder(path: Path, name: str) -> Path:
    """Return a filter's folder inside a store.

    Raises:
        ConfigError: The name cannot be a folder's.
    """
    if not name or name.startswith(".") or any(bad in name for bad in "/\\\0"):
        raise ConfigError(f"a filter called {name!r}", where="filters", allowed="a name that can be a folder's")
    return path / "filters" / name


class FilterResults:
    """Reads the verdicts of one filter.

    Args:
        path: The store.
        name: The filter's name in the recipe.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.folder = filter_folder(path, name)
        self.index = Index([Journal(self.folder / "verdicts.jsonl")])

    def rows(self) -> Iterator[Row]:
        """Yield ``{key, keep, reason, scores, mask, ignored, group}`` rows."""
        for key in self.index:
            yield self.index[key]

    def verdict(self, key: str, *, group: str) -> Row:
        """Return the verdict on one sample.

        Args:
            key: The sample.
            group: `group_digest` of the samples as they are now.

        Raises:
            StoreError: The filter has not judged it, or judged other files.
        """
        row = self.index.get(key)
        if row is None or row["group"] != group:
            found = "has not judged" if row is None else "judged other files than the present ones of"
            raise StoreError(
                f"the filter {self.name!r} {found} sample {key}",
                where=str(self.folder),
                hint="Run 'genaug filter' to finish",
            )
        return row


def group_digest(rows: Sequence[Row]) -> str:
    """Return what a verdict depends on: the files of all samples of its group."""
    return digest([[row["key"], row["image"]["sha256"], row["mask"] and row["mask"]["sha256"]] for row in rows])


def judged_with(folder: Path, name: str) -> Any:
    """Return the options that the verdicts in a folder were given with, None if there are no verdicts.

    Raises:
        StoreError: There are verdicts, but what they were given with is lost or damaged.
    """
    if not (folder / "verdicts.jsonl").exists():
        return None
    file = folder / "filter.json"
    hint = f"Put the file back, or let {name!r} judge again with --redo-filters; samples and other filters stay"
    try:
        data = json.loads(file.read_bytes())
        judged, recorded = data["filter"], data["hash"]
    except FileNotFoundError:
        found = "the file is missing, so what the filter's verdicts were given with is unknown"
        raise StoreError(found, where=str(file), hint=hint) from None
    except OSError as error:
        raise store_error("read", file, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"damaged: cannot be read ({error!r})", where=str(file), hint=hint) from error
    if digest(judged) != recorded:
        raise StoreError("damaged: its content is not what was written", where=str(file), hint=hint)
    return judged


def check_filter(path: Path, name: str, spec: Mapping[str, Any], *, redo: bool = False) -> None:
    """Make sure that a filter's verdicts so far were given with the options it has now.

    Args:
        path: The store, which need not exist yet.
        name: The filter's name in the recipe.
        spec: Its resolved part of the recipe, ``{use, name?, ...options}``.
        redo: Other options are fine: the verdicts are to be given again.

    Raises:
        StoreError: They were given with others, or with which ones is lost or damaged.
    """
    folder = filter_folder(path, name)
    if redo:
        return
    old = judged_with(folder, name)
    new = {key: value for key, value in spec.items() if key != "name"}
    if old not in (None, new):
        raise StoreError(
            f"the filter {name!r} judged with other options: {differing_keys(old, new)}",
            where=str(folder),
            hint="Use the old options, give the new filter a 'name', or judge again with --redo-filters",
        )


def _same_options(folder: Path, name: str, wanted: Mapping[str, Any]) -> bool:
    """Return True if the verdicts in a folder, if any, were surely given with the options `wanted`."""
    try:
        return judged_with(folder, name) in (None, wanted)
    except StoreError:
        return False


class FilterWriter(FilterResults):
    """Appends one filter's verdicts; the caller holds the store's lock.

    Args:
        store: The store.
        name: The filter's name in the recipe.
        spec: Its resolved part of the recipe, ``{use, name?, ...options}``.
        redo: Forget verdicts that were given with other (or unknown) options instead of refusing.

    Raises:
        StoreError: The filter judged with other options before, or with unknown ones, and not `redo`.
    """

    def __init__(self, store: SampleStore, name: str, spec: Mapping[str, Any], *, redo: bool = False) -> None:
        folder = filter_folder(store.path, name)
        for part in (folder, folder / "masks"):
            make_folder(part)
            remove_temporary(part)
        wanted = {key: value for key, value in spec.items() if key != "name"}
        check_filter(store.path, name, spec, redo=redo)
        journal = Journal(folder / "verdicts.jsonl")
        file = folder / "filter.json"
        if redo and not _same_options(folder, name, wanted):
            # Verdicts go before the options change: a crash in between leaves the old options and no verdicts.
            with system_errors("remove", journal.path):
                journal.path.unlink(missing_ok=True)
            sync_folder(folder)
        text = json_text({"hash": digest(wanted), "filter": wanted}, where=str(file), indent=2) + "\n"
        write_if_changed(file, text.encode(), tag=TAG)
        journal.cut_tail()
        super().__init__(store.path, name)
        self.store = store

    def pending(self, rows: Sequence[Row]) -> bool:
        """Return True unless every sample of a group has a verdict that was given for these very files."""
        wanted = group_digest(rows)
        return any(row["key"] not in self.index or self.index[row["key"]]["group"] != wanted for row in rows)

    def add(self, rows: Sequence[Row], group: Group, verdicts: Sequence[Verdict]) -> None:
        """Write a group's verdicts: masks first, then the rows."""
        ignore = self.store.labels.ignore_index
        wanted = group_digest(rows)
        lines: list[Row] = []
        for row, sample, verdict in zip(rows, group.samples, verdicts, strict=True):
            mask = None
            if verdict.mask is not None and not np.array_equal(verdict.mask, np.asarray(sample.mask)):
                data = encode_mask(verdict.mask)
                mask = file_record(f"filters/{self.name}/masks/{row['key']}.png", data)
                write_whole(self.store.path / mask["file"], data, tag=TAG)
            lines.append(
                {
                    "key": row["key"],
                    "keep": bool(verdict.keep),
                    "reason": verdict.reason,
                    "scores": dict(verdict.scores),
                    "mask": mask,
                    "ignored": row["ignored"] if mask is None else float(np.mean(verdict.mask == ignore)),
                    "group": wanted,
                }
            )
        sync_folder(self.folder / "masks")
        self.index.append(lines)

    def finish(self) -> None:
        """Bring the verdicts into the samples' order, one row each, and remove masks that no row names."""
        keys = self.store.keys()
        order = [row["key"] for _, row in Journal(self.folder / "verdicts.jsonl").scan()]
        if order != list(keys):
            write_rows(self.folder / "verdicts.jsonl", (self.index[key] for key in keys), tag=TAG)
            self.index = Index([Journal(self.folder / "verdicts.jsonl")])
        for key in keys:
            file = self.folder / "masks" / f"{key}.png"
            if self.index[key]["mask"] is None and file.exists():
                try:
                    file.unlink()
                except OSError as error:
                    raise store_error("remove", file, error) from error
