"""An adapter on disk: a folder whose ``genaug_config.json`` comes last and knows the other files. Light: no torch."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genaug.errors import AdapterError
from genaug.models import ModelCheck
from genaug.store.files import make_folder, sync_folder, system_errors, write_whole
from genaug.store.learned import check_sha256, read_table

log = logging.getLogger("genaug")

#: Keys of every method's ``genaug_config.json``.
COMMON = frozenset({"format", "method", "base", "revision", "base_fingerprint", "labels", "training"})
CONFIG, CARD = "genaug_config.json", "README.md"
#: Names whoever learns in a folder, in the names of unfinished files (`genaug.store.files.write_whole`).
TAG = "learning"
AGAIN = "Put the file back; or delete this one file and adapt again, which goes on from the checkpoint beside it"


@dataclass(frozen=True, slots=True)
class AdapterFormat:
    """How one method lays its adapters out.

    Args:
        method: Name of the method.
        version: Of the layout.
        required: Files without which nothing works.
        hashes: File -> key of ``genaug_config.json`` with its SHA-256; a config may lack keys of optional files.
        keys: What else ``genaug_config.json`` must hold.
        more: What it may hold besides; of keys beyond these a newer genaug must know what they mean.
    """

    method: str
    version: str
    required: tuple[str, ...]
    hashes: Mapping[str, str]
    keys: frozenset[str]
    more: frozenset[str] = frozenset()

    # ------------------------------------------------------------------ reading

    def read(self, folder: Path) -> dict[str, Any]:
        """Return ``genaug_config.json`` of an adapter folder.

        Raises:
            AdapterError: Not there, not readable, of another method or a newer format. Unknown keys are warned about.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise AdapterError(
                f"no {CONFIG}" if folder.is_dir() else "no such folder",
                where=str(folder),
                allowed="a folder written by 'genaug adapt'",
            )
        data = read_table(path, hint=AGAIN)
        method, version = data.get("method"), data.get("format")
        if method != self.method or version != self.version:
            raise AdapterError(
                f"an adapter of method {method!r}, format {version!r}",
                where=str(path),
                allowed=f"{self.method}, {self.version}",
                hint="A newer format needs a newer genaug",
            )
        if missing := sorted(self.keys - data.keys()):
            raise AdapterError(f"damaged: it lacks {', '.join(missing)}", where=str(path), hint=AGAIN)
        if unknown := sorted(data.keys() - self.keys - self.more - set(self.hashes.values()) - COMMON):
            log.warning("%s: written by a newer genaug; this one does not know %s", path, ", ".join(unknown))
        return data

    def record(self, folder: Path) -> dict[str, Any] | None:
        """Return the training record of a finished adapter; None if it is unfinished, or another method's.

        Raises:
            AdapterError: ``genaug_config.json`` is damaged.
        """
        if not all((folder / name).is_file() for name in (CONFIG, *self.required)):
            return None
        data = read_table(folder / CONFIG, hint=AGAIN)
        if not all((folder / name).is_file() for name, key in self.hashes.items() if key in data):
            return None
        record = data.get("training")
        known = (data.get("method"), data.get("format")) == (self.method, self.version)
        return record if known and isinstance(record, dict) else None

    def check_files(self, folder: Path, *, hint: str = AGAIN) -> dict[str, Any]:
        """Return ``genaug_config.json`` if every file whose hash it has is what was written.

        Raises:
            AdapterError: One is missing or damaged.
        """
        config = self.read(folder)
        for name, key in self.hashes.items():
            if key in config:
                if not (folder / name).is_file():
                    raise AdapterError(
                        f"{name} is missing", where=str(folder), hint="Put the file back, or adapt again"
                    )
                check_sha256(folder / name, config[key], hint=hint)
        return config

    def check(self, look: ModelCheck, adapter: str) -> None:
        """Report what is wrong with option ``adapter``, as far as can be told without loading its weights."""
        files = (CONFIG, *self.required)
        folder = look.folder("adapter", adapter, files, allowed="a folder written by 'genaug adapt'")
        if folder is not None:
            with look.reporting("adapter"):
                self.check_files(folder, hint="Put the file back, or name another adapter")

    # ------------------------------------------------------------------ writing

    def hashes_of(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """Return the keys of ``genaug_config.json`` that hold the SHA-256 of `files`."""
        return {
            self.hashes[name]: hashlib.sha256(data).hexdigest() for name, data in files.items() if name in self.hashes
        }

    def write(self, folder: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
        """Write an adapter; ``genaug_config.json`` comes last, so a folder that has it is complete.

        Args:
            folder: Target, created if needed.
            files: Name -> content.
            about: What ``genaug_config.json`` holds after ``format`` and ``method``.

        Raises:
            StoreError: The operating system refused.
        """
        make_folder(folder)
        # Weights that replace others must never be taken for those; the other way round the folder is just unfinished.
        with system_errors("remove", folder / CONFIG):
            (folder / CONFIG).unlink(missing_ok=True)
        sync_folder(folder)
        for name, content in files.items():
            make_folder((folder / name).parent)
            write_whole(folder / name, content, tag=TAG)
        for place in dict.fromkeys((folder / name).parent for name in files):
            sync_folder(place)
        data = {"format": self.version, "method": self.method, **about}
        write_whole(folder / CONFIG, text_file(json.dumps(data, indent=2)), tag=TAG)
        sync_folder(folder)


def text_file(text: str) -> bytes:
    """Return a text as the content of a file that ends with a line break."""
    return (text + "\n").encode()
