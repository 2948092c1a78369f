"""The two files of a segmenter; light, so that finding a damaged one needs no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from genaug.errors import AdapterError
from genaug.store.files import make_folder, sync_folder, system_errors, write_whole
from genaug.store.learned import check_sha256, read_table

CONFIG_NAME = "segmenter.json"
WEIGHTS_NAME = "segmenter.safetensors"
AGAIN = (
    "Put the file back; or, if a run trained it, delete this one file: the same command trains it again, with the same "
    "seed"
)
_TAG = "segmenter"


def write_segmenter(folder: Path, weights: bytes, *, num_classes: int, width: int) -> None:
    """Write weights and, last, what they need; each file whole or not at all.

    Raises:
        StoreError: The operating system refused.
    """
    make_folder(folder)
    # New weights must never be taken for the old ones.
    with system_errors("remove", folder / CONFIG_NAME):
        (folder / CONFIG_NAME).unlink(missing_ok=True)
    sync_folder(folder)
    write_whole(folder / WEIGHTS_NAME, weights, tag=_TAG)
    config = {"num_classes": num_classes, "width": width, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    write_whole(folder / CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode(), tag=_TAG)
    sync_folder(folder)


def complete(folder: Path) -> bool:
    """Return True if both files are there, whatever they hold."""
    return all((folder / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME))


def checked_config(folder: Path) -> dict[str, Any]:
    """Return ``num_classes`` and ``width``, once the weights are known to be the ones that were written.

    Segmenters written before the hash was recorded have none: their weights are taken as they are.

    Raises:
        AdapterError: A file is missing or damaged.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise AdapterError(f"no segmenter: {name} is missing", where=str(folder), hint="Put it back, or train one")
    config = read_table(folder / CONFIG_NAME, hint=AGAIN)
    if not all(isinstance(config.get(key), int) for key in ("num_classes", "width")):
        raise AdapterError("damaged: no number of classes or width", where=str(folder / CONFIG_NAME), hint=AGAIN)
    if "weights_sha256" in config:
        check_sha256(folder / WEIGHTS_NAME, str(config["weights_sha256"]), hint=AGAIN)
    return config
