"""Stores as registered datasets, and a look at the masks of datasets that are registered."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from PIL import Image

from genaug.engine.progress import bar
from genaug.errors import ConfigError, DataError, StoreError
from genaug.labels import LabelSpace
from genaug.store import SampleStore
from genaug.store.files import encode_mask, make_folder, read_bytes, remove_temporary, write_if_changed
from genaug.store.views import TrainingView
from genaug_torch.store_dataset import index_table, to_indices

DatasetDict = dict[str, Any]

#: PIL modes of files in which readers may find other values than the pixels': what ``DatasetMapper``, which reads every
#: mask as 8-bit grey, makes of them.
LOST = {
    **dict.fromkeys(("P", "PA"), "has a palette, of which DatasetMapper reads brightnesses"),
    **dict.fromkeys(("I", "I;16"), "has values above 255, which DatasetMapper reads as 255"),
    "1": "is a 1-bit file, of which DatasetMapper reads 0 and 255",
}
#: Problems that an error lists before it only counts them.
LISTED = 20
#: Names whoever writes masks of class indices, in the names of unfinished files (`genaug.store.files.write_whole`).
TAG = "detectron2"


def register_store(name: str, store: SampleStore | str | Path, *, masks: str | Path | None = None) -> None:
    """Register the samples of a store to train with as a detectron2 dataset for semantic segmentation.

    Images, and masks that can be used as they are, stay where they are. Masks of a class table that is not 0 to K-1,
    and masks of which several filters ignore pixels, are written as class indices when the dataset is first read;
    a second call of the catalog's function gives the same list in the same order.

    Args:
        name: Of the dataset in ``DatasetCatalog`` and ``MetadataCatalog``.
        store: A `genaug.SampleStore`, or its folder.
        masks: Folder for the masks that have to be written; by default ``<store>-detectron2`` beside the store.

    Raises:
        ConfigError: The name is taken.
        StoreError: Not a store, or nothing in it to train with.
    """
    opened = store if isinstance(store, SampleStore) else SampleStore.open(store)
    if name in DatasetCatalog.list():
        raise ConfigError(f"a dataset is called {name!r} already", where="register_store", hint="Choose another name")
    view = opened.training_view()
    rows = [row for row in map(opened.row, view.keys) if row["mask"] is not None]
    if not rows:
        hint = "Look at what the filters dropped: 'genaug report STORE'" if len(opened) else "Run 'genaug run' first"
        found = f"no sample with a mask to train with: {len(opened)} were made, {len(view)} of them can be trained with"
        raise StoreError(found, where=str(opened.path), hint=hint)
    written = opened.path.with_name(f"{opened.path.name}-detectron2") if masks is None else Path(masks)
    labels = opened.labels
    DatasetCatalog.register(name, partial(_dicts, view, tuple(row["key"] for row in rows), written))
    MetadataCatalog.get(name).set(
        stuff_classes=list(labels.names.values()),
        stuff_colors=[list(labels.color(class_id)) for class_id in labels.ids],
        stuff_dataset_id_to_contiguous_id={class_id: index for index, class_id in enumerate(labels.ids)},
        ignore_label=_ignored(labels),
        evaluator_type="sem_seg",
    )


def _dicts(view: TrainingView, keys: tuple[str, ...], folder: Path) -> list[DatasetDict]:
    store, labels = view.store, view.store.labels
    table = index_table(labels, _ignored(labels))
    plain = labels.ids == tuple(range(len(labels.ids))) and labels.ignore_index == _ignored(labels)
    positions = {key: number for number, key in enumerate(view.keys)}
    found, wrote = [], False
    for key in bar(keys, "dataset", total=len(keys)):
        row = store.row(key)
        records = view.changed.get(key) or (row["mask"],)
        if plain and len(records) == 1:
            mask = store.path / records[0]["file"]
        else:
            sample = view[positions[key]]
            assert sample.mask is not None  # `register_store` took samples with masks
            make_folder(folder)
            mask = folder / f"{key}.png"
            wrote |= _write(mask, encode_mask(to_indices(sample.mask, table, key)))
        found.append(
            {
                "file_name": str(store.path / row["image"]["file"]),
                "sem_seg_file_name": str(mask),
                "height": row["size"][0],
                "width": row["size"][1],
                "image_id": key,
                "condition_id": row["id"],
            }
        )
    if (
        wrote
    ):  # every mask is there: whatever unfinished file is left, of a killed process or a slower one, is not needed
        remove_temporary(folder, TAG)
    return found


def _write(mask: Path, data: bytes) -> bool:
    """Write a mask unless it is there; other processes of the training may be writing the same one."""
    try:
        return write_if_changed(mask, data, tag=f"{TAG}-{platform.node()}-{os.getpid()}")
    except StoreError:
        if mask.is_file() and read_bytes(mask) == data:  # a process that was ready first removed our unfinished file
            return False
        raise


def _ignored(labels: LabelSpace) -> int:
    """Return the ignore index of masks of class indices."""
    return labels.ignore_index if labels.ignore_index >= len(labels.ids) else 255


def check_dataset(name: str, *, num_classes: int | None = None, ignore_index: int | None = None) -> None:
    """Read every mask of a registered dataset and refuse what detectron2 would turn into other classes.

    ``DatasetMapper`` reads masks as 8-bit grey: of a palette PNG it gets brightnesses, not indices, of a 1-bit file 0
    and 255, of 16 bits nothing above 255, and it says nothing.

    Args:
        name: Of the dataset.
        num_classes: K; by default the number of ``stuff_classes`` in the metadata.
        ignore_index: By default the metadata's ``ignore_label``, else 255.

    Raises:
        DataError: Masks with a palette or colours, of 1 bit, of another size than their dictionary says, or with values
            above 255 or that are neither a class nor the ignore index; names the files.
        ConfigError: The number of classes is not known.
    """
    metadata = MetadataCatalog.get(name)
    count = len(metadata.get("stuff_classes") or ()) if num_classes is None else num_classes
    if not count:
        raise ConfigError("is missing", where="num_classes", hint=f"The metadata of {name!r} has no stuff_classes")
    ignored = metadata.get("ignore_label", 255) if ignore_index is None else ignore_index
    dicts = DatasetCatalog.get(name)
    problems = [problem for d in bar(dicts, "masks", total=len(dicts)) if (problem := _problem(d, count, ignored))]
    if problems:
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise DataError(
            f"{len(problems)} of {len(dicts)} masks cannot be used",
            problems=[*problems[:LISTED], *more],
            where=f"dataset {name!r}",
            hint="Write masks as 8-bit grey PNG files of class indices",
        )


def _problem(entry: Mapping[str, Any], num_classes: int, ignore_index: int) -> str | None:
    file = entry.get("sem_seg_file_name")
    if file is None:
        return f"{entry.get('file_name')}: no sem_seg_file_name"
    with PathManager.open(file, "rb") as opened, Image.open(opened) as image:
        mode, mask = image.mode, np.asarray(image)
    if mode not in {"L", "I", "I;16"}:
        return f"{file}: {LOST.get(mode, f'is of mode {mode}')}"
    if mask.max() > 255:
        return f"{file}: {LOST[mode]}"
    size = entry.get("height", mask.shape[0]), entry.get("width", mask.shape[1])
    if mask.shape != size:
        return f"{file}: {mask.shape[0]} x {mask.shape[1]} pixels instead of {size[0]} x {size[1]}"
    strange = sorted(set(np.unique(mask).tolist()) - set(range(num_classes)) - {ignore_index})
    return f"{file}: values {strange[:8]} are no class of 0 to {num_classes - 1}" if strange else None
