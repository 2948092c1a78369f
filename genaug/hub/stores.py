"""Sample stores as datasets on the Hub: what is published of one, and what a fetched one must hold."""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genaug.errors import ConfigError, GenaugError, StoreError
from genaug.hub import shards
from genaug.hub.adapters import foreign_labels
from genaug.hub.card import store_card
from genaug.hub.listing import clashes, name_errors
from genaug.hub.parcel import Parcel, Wishes, inside
from genaug.hub.places import clean, machine_paths
from genaug.recipe import digest
from genaug.store.files import DATASET, MANIFEST, METADATA, PROMPT, RESOLVED, json_text
from genaug.store.journal import Journal
from genaug.store.store import SampleStore, condition_name
from genaug.store.verdicts import FilterResults, filter_folder, judged_with

CARD, LABELS = "README.md", "id2label.json"
_PREVIEW = "pictures/preview.png"
_OWNED = ("images/", "masks/", "combined/", "conditions/", "filters/", shards.FOLDER, _PREVIEW)
_SHOWN = 4
_DISTRUST = "Do not use it; ask its author"
#: Pillow's mode -> bits and colour type of a PNG.
_KINDS = {"RGB": [8, 2], "L": [8, 0]}


def store_names(store: SampleStore) -> set[str]:
    """Return the places of all files that a store's own tables speak of.

    Raises:
        StoreError: A table is not of the form that it must have.
    """
    with _form_errors(str(store.path)):
        return set(_names(store))


@contextmanager
def _form_errors(where: str) -> Iterator[None]:
    """Turn what reading a table of another form raises into one line."""
    try:
        yield
    except GenaugError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"damaged: a row has another form ({error!r})"[:200], where=where) from None


def _names(store: SampleStore) -> Iterator[str]:
    yield from (DATASET, MANIFEST, METADATA)
    for row in store.rows():
        yield from (row[part]["file"] for part in ("image", "mask") if row[part] is not None)
        if row["condition"] is not None and not row["condition"].startswith(PROMPT):
            yield condition_name(row["id"])
    for name in store.filters:
        yield from (f"filters/{name}/verdicts.jsonl", f"filters/{name}/filter.json")
        for row in FilterResults(store.path, name).rows():
            if row["mask"] is not None:
                yield row["mask"]["file"]
    for _, row in _metadata(store):
        yield from _pictures(row)


def _pictures(row: Mapping[str, Any]) -> list[str]:
    """Return the places of image and mask of a row of ``metadata.jsonl``; images made from prompts have no mask."""
    return [row["file_name"], *([row["mask_file_name"]] if "mask_file_name" in row else [])]


def _metadata(store: SampleStore) -> Iterator[tuple[int, dict[str, Any]]]:
    # These rows have a key too, which is all that a journal asks for.
    return Journal(store.path / METADATA).scan()


def check_store(folder: Path, *, where: str | None = None) -> SampleStore:
    """Open a store that somebody else made, and read all of it.

    Args:
        folder: The store.
        where: How messages name it.

    Raises:
        StoreError: It is damaged, speaks of files outside of it, or is not what its rows say; one line.
    """
    where = where or str(folder)
    store = SampleStore.open(folder)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if strange := sorted(map(str, store_names(store) - present)):
        found = f"{len(strange)} files that its tables speak of are not in it, e.g. {strange[0]!r}"
        raise StoreError(found[:300], where=where, hint=_DISTRUST)
    if problems := store.verify():
        more = f" ({len(problems)} problems in all)" if len(problems) > 1 else ""
        raise StoreError(problems[0].rstrip(".") + more, where=where)
    with _form_errors(where):
        _check_tables(store, where)
        _check_pictures(store)
    return store


def _check_tables(store: SampleStore, where: str) -> None:
    """Look at what is read only later: the class table, and what the filters judged with."""
    try:
        foreign_labels(store.info["labels"])
    except ConfigError as error:
        raise StoreError(f"{DATASET}: {error}", where=where) from None
    if not isinstance(store.info["recipe"], dict) or not isinstance(store.info["planned"], int | None):
        raise StoreError(f"damaged: {DATASET} has another form", where=where)
    for name in store.filters:
        if not isinstance(judged_with(filter_folder(store.path, name), name), dict):
            raise StoreError(f"damaged: the options of the filter {name!r} are no table"[:200], where=where)


def _check_pictures(store: SampleStore) -> None:
    """Look at the headers of all pictures: a mask is of its image's size, and nothing is too large to be decoded."""
    sizes = {}
    for row in store.rows():
        if row["image"] is not None:
            sizes[row["key"]] = tuple(row["size"])
            _check_png(store.path / row["image"]["file"], "RGB", sizes[row["key"]])
            if row["mask"] is not None:
                _check_png(store.path / row["mask"]["file"], "L", sizes[row["key"]])
        if row["condition"] is not None and not row["condition"].startswith(PROMPT):
            _check_png(store.path / condition_name(row["id"]), "L")
    for name in store.filters:
        for row in FilterResults(store.path, name).rows():
            if row["mask"] is not None:
                _check_png(store.path / row["mask"]["file"], "L", sizes[row["key"]])
    for _, row in _metadata(store):
        if "mask_file_name" in row:  # perhaps of several filters together
            _check_png(store.path / row["mask_file_name"], "L", sizes[row["key"]])


def _check_png(path: Path, mode: str, size: tuple[int, ...] | None = None) -> None:
    """Read a PNG's header only; decoding all of a large store would take hours.

    Args:
        path: The file.
        mode: ``RGB`` or ``L``, 8 bits each.
        size: Height and width that it must have.

    Raises:
        StoreError: It is something else.
    """
    from PIL import Image

    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or not head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        raise StoreError("no PNG", where=str(path), hint=_DISTRUST)
    width, height, *kind = struct.unpack(">IIBB", head[16:])
    if kind != _KINDS[mode]:
        found = f"a PNG of {kind[0]} bits and colour type {kind[1]}"
        raise StoreError(found, where=str(path), allowed=f"mode {mode}, 8 bits", hint=_DISTRUST)
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 2**31)  # what Pillow refuses to decode
    if not 0 < width * height <= limit:
        found, allowed = f"a picture of {width:,} x {height:,} pixels", f"at most {limit:,} together"
        raise StoreError(found, where=str(path), allowed=allowed, hint=_DISTRUST)
    if size not in (None, (height, width)):
        found = f"a picture of {width} x {height} pixels, where its row speaks of another size"
        raise StoreError(found, where=str(path), hint=_DISTRUST)


def unpack_store(folder: Path, *, where: str) -> None:
    """Make a store of what was fetched of a packed one; see `genaug.hub.shards`.

    Raises:
        StoreError, HubError: Its tables or shards are damaged, or name files outside of it; one line.
    """
    names = {name for name in store_names(SampleStore.open(folder)) if name.endswith(".png")}
    for error in chain(name_errors(names, where), clashes(names, where)):
        raise error
    shards.unpack(folder, names, where=where)


def store_parcel(folder: Path, repo: str, wishes: Wishes) -> Parcel:
    """Return what to publish of a store; nothing of it changes.

    Raises:
        StoreError: It is not complete, not judged by all its filters, or damaged.
    """
    store = SampleStore.open(folder)
    if not store.complete:
        found = f"{len(store.index)} of {store.planned} samples are made"
        raise StoreError(found, where=str(folder), hint="Run 'genaug run' to finish, then push")
    view = store.training_view()  # raises unless every filter has judged
    check_store(folder)
    info, notes = _public_info(store)
    pictures = {name: inside(folder, folder / name) for name in sorted(store_names(store)) if name.endswith(".png")}
    rows = [_without_paths(row) for _, row in _metadata(store)]
    preview = {_PREVIEW: _preview(store)} if wishes.pictures and len(store) else {}
    files: dict[str, Path | bytes | shards.Packed] = {**pictures, **_tables(store, info, rows), **preview}
    shown = [METADATA, *(f"{place}/*" for place in sorted({n.rpartition("/")[0] for r in rows for n in _pictures(r)}))]
    if len(pictures) > shards.MAX_PICTURES:
        packed = shards.pack(folder, rows, pictures)
        notes.append(f"{len(pictures):,} pictures are packed in {len(packed)} files; 'genaug pull' unpacks them")
        files = {**{name: content for name, content in files.items() if name not in pictures}, **packed}
        shown = [f"{shards.FOLDER}train-*.parquet"]
    counts = {"images": len(store), "kept": len(view), **_dropped(store)}
    files[CARD] = store_card(
        info, repo=repo, labels=store.labels, wishes=wishes, counts=counts, rows=shown, pictures=list(preview)
    )
    about = {"samples": len(store), "kept": len(view), "filters": list(store.filters)}
    return Parcel("dataset", files, _OWNED, about, notes)


def _public_info(store: SampleStore) -> tuple[dict[str, Any], list[str]]:
    """Return ``dataset.json`` without paths of this machine, and what to tell of them."""
    paths = machine_paths(store.info["recipe"])
    info = {**clean(store.info), "labels": store.info["labels"]}  # names of classes stay, whatever they look like
    info["recipe"]["labels"] = store.info["recipe"].get("labels", store.info["labels"])
    if not paths:
        return info, []
    return info, [f"{len(paths)} paths of this machine are cut down to their last part, e.g. {paths[0]}"]


def _tables(store: SampleStore, info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return what is published beside pictures and card, without paths of this machine."""
    files = {
        DATASET: (json_text(info, where=DATASET, indent=2) + "\n").encode(),
        MANIFEST: _lines(row for _, row in Journal(store.path / MANIFEST).scan()),
        METADATA: _lines(rows),
    }
    for name in store.filters:
        part = store.path / "filters" / name
        files[f"filters/{name}/verdicts.jsonl"] = _lines(row for _, row in Journal(part / "verdicts.jsonl").scan())
        judged = json.loads((part / "filter.json").read_bytes())
        judged["filter"] = clean(judged["filter"])
        # The hash says that the file is whole, so it follows what is written.
        judged["hash"] = digest(judged["filter"])
        files[f"filters/{name}/filter.json"] = (json_text(judged, where=name, indent=2) + "\n").encode()
    head = "# Every option of the run, defaults included. Paths of the machine it ran on are left out.\n"
    files[RESOLVED] = (head + yaml.safe_dump(info["recipe"], sort_keys=False, allow_unicode=True)).encode()
    names = {str(i): name for i, name in store.labels.names.items()}
    files[LABELS] = (json.dumps(names, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def _dropped(store: SampleStore) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name in store.filters:
        counts[name] = sum(not row["keep"] for row in FilterResults(store.path, name).rows())
    return dict(counts)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json_text(clean(row), where=MANIFEST).encode() + b"\n" for row in rows)


def _without_paths(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``metadata.jsonl``, whose tables are texts, without machine paths inside them."""
    tables = {key: json_text(clean(json.loads(row[key])), where=METADATA) for key in ("meta", "generator")}
    verdicts = [
        {**verdict, "scores": json_text(clean(json.loads(verdict["scores"])), where=METADATA)}
        for verdict in row["verdicts"]
    ]
    return {**row, **tables, "verdicts": verdicts}


def _preview(store: SampleStore) -> bytes:
    """Return a strip of images above their masks, if they have some, all of the first one's size."""
    from PIL import Image

    columns = []
    size: tuple[int, int] | None = None
    for key in store.keys()[:_SHOWN]:
        sample = store.sample(key)
        assert sample.image is not None  # `keys` lists no others
        parts = [sample.image] if sample.mask is None else [sample.image, store.labels.colorize(sample.mask)]
        pair = [Image.fromarray(part) for part in parts]
        size = size or pair[0].size
        columns.append(np.concatenate([np.asarray(part.resize(size, Image.Resampling.NEAREST)) for part in pair]))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(columns, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()
