"""Safetensors files of strangers: the header is believed only as far as it agrees with the file, no value is NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from genaug.errors import AdapterError

MAX_HEADER = 16 * 2**20
#: Of a shape; numpy takes no more either.
_MAX_RANK = 64
_PIECE = 2**22
#: Safetensors' name -> numpy type of the bytes, and the exponent bits that are all ones in NaN and infinity.
_TYPES: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0000000000000), "F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80),
    "I64": ("<u8", 0), "I32": ("<u4", 0), "I16": ("<u2", 0), "I8": ("u1", 0), "U8": ("u1", 0), "BOOL": ("u1", 0),
}  # fmt: skip


def check_weights(path: Path, *, where: str) -> dict[str, str]:
    """Read a safetensors file without loading it and return its own metadata.

    Args:
        path: The file.
        where: How messages name it.

    Raises:
        AdapterError: The header is too long, does not agree with the file, or a value is NaN or infinity.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            allowed = f"at most {min(max(size - 8, 0), MAX_HEADER):,}"
            raise AdapterError(f"a header of {length:,} bytes in a file of {size:,}", where=where, allowed=allowed)
        header = _header(file.read(length), where)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterError("its metadata is no table of texts", where=where)
    end = 0
    for name, tensor in sorted(header.items(), key=lambda item: _begin(item[1])):
        end = _check_tensor(path, name, tensor, start=8 + length, begin=end, where=where)
    if 8 + length + end != size:
        raise AdapterError(f"{8 + length + end:,} bytes by its header, {size:,} in truth", where=where)
    return dict(metadata)


def _header(data: bytes, where: str) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"its header cannot be read ({type(error).__name__})", where=where) from None
    if not isinstance(header, dict):
        raise AdapterError("its header is no table", where=where)
    return header


def _begin(tensor: Any) -> int:
    try:
        return int(tensor["data_offsets"][0])
    except (TypeError, KeyError, IndexError, ValueError, OverflowError):
        return -1


def _check_tensor(path: Path, name: str, tensor: Any, *, start: int, begin: int, where: str) -> int:
    """Check one tensor, which must begin where the one before it ended; return where it ends."""
    import numpy as np

    try:
        kind, shape, (first, end) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        item, exponent = _TYPES[kind]
        # Before anything is computed: a product of texts, or of very long numbers, would take all memory or hours.
        if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(map(_is_size, (*shape, first, end))):
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise AdapterError(f"its header describes {name!r} wrongly"[:200], where=where) from None
    count = math.prod(shape)
    if first != begin or end - first != count * np.dtype(item).itemsize or start + end > path.stat().st_size:
        found = f"{name!r}: shape {shape} of {kind} does not fit its bytes"
        raise AdapterError(found[:200], where=where)
    if exponent and count:
        values = np.memmap(path, item, "r", offset=start + first, shape=(count,))
        for at in range(0, count, _PIECE):
            if ((values[at : at + _PIECE] & exponent) == exponent).any():
                raise AdapterError(f"{name!r} holds NaN or infinity"[:200], where=where)
    return int(end)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63  # True is an int, too
