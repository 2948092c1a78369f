"""What components learned, on disk: used only if it is what was written, and never thrown away on our advice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from genaug.errors import AdapterError
from genaug.store.files import store_error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces.

    Raises:
        StoreError: The operating system refused.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise store_error("read", path, error) from error


def check_sha256(path: Path, expected: str, *, hint: str) -> None:
    """Raise `AdapterError` with `hint` unless a file holds the bytes whose SHA-256 was recorded."""
    if sha256_of(path) != expected:
        raise AdapterError("damaged: its content is not what was written", where=str(path), hint=hint)


def read_table(path: Path, *, hint: str) -> dict[str, Any]:
    """Return the JSON table in a file.

    Args:
        path: The file.
        hint: What to do about a damaged one; it must lose nothing that is still good.

    Raises:
        FileNotFoundError: There is none.
        StoreError: The operating system refused.
        AdapterError: Not JSON, or not a table.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise store_error("read", path, error) from error
    except ValueError as error:
        raise AdapterError(f"damaged: cannot be read ({error})", where=str(path), hint=hint) from error
    if not isinstance(data, dict):
        raise AdapterError("damaged: cannot be read (no table)", where=str(path), hint=hint)
    return data
