"""Files of a store: written whole or not at all, and read only if their bytes are the recorded ones."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from genaug.errors import GenaugError, StoreError
from genaug.types import Image, Mask, Sample

#: Every unfinished file starts like this; nothing else in a store does.
TEMP = ".tmp-"
DATASET = "dataset.json"
MANIFEST = "manifest.jsonl"
METADATA = "metadata.jsonl"
RESOLVED = "recipe.resolved.yaml"
LOCK = ".lock"
#: What the hash of a prompt begins with; that of a mask is bare.
PROMPT = "prompt:"
#: IPTC term for "made by a trained model"; written into every image (XMP) and into ``dataset.json``.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
_AGAIN = "then run the same command again: it goes on where it stopped"
_CAUSES = {
    errno.ENOSPC: ("the disk is full", f"Free some space, {_AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"Free some space, {_AGAIN}"),
    errno.EFBIG: ("the file is larger than this system or account allows", f"Raise the limit, {_AGAIN}"),
    errno.EROFS: ("the folder is on a read-only file system", "Choose another output folder"),
    errno.EACCES: ("no permission", f"Change the permissions or the output folder, {_AGAIN}"),
    errno.EPERM: ("no permission", f"Change the permissions or the output folder, {_AGAIN}"),
    errno.ENAMETOOLONG: ("the file name is too long for this file system", "Use shorter sample ids"),
}


def store_error(doing: str, path: Path, error: OSError) -> StoreError:
    """Turn an error of the operating system into one that says what to do; keeps its ``errno``."""
    found, hint = _CAUSES.get(error.errno or 0, (error.strerror or str(error), f"Remove the cause, {_AGAIN}"))
    result = StoreError(f"cannot {doing}: {found}", where=str(path), hint=hint)
    result.errno = error.errno
    return result


@contextlib.contextmanager
def system_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn what the operating system refuses to anybody's code inside into `store_error`.

    An `OSError` without an ``errno`` is a library's own message (the Hub's clients raise such) and passes, as do
    errors of genaug.

    Args:
        doing: What is being done, as in ``cannot <doing>: the disk is full``.
        path: Where, if the error does not name a file.
    """
    try:
        yield
    except GenaugError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        named = error.filename
        raise store_error(doing, Path(os.fsdecode(named)) if isinstance(named, str | bytes) else path, error) from error


def json_text(value: Any, *, where: str, indent: int | None = None) -> str:
    """Return the one JSON text of a value (sorted keys); numpy numbers are written as numbers.

    Raises:
        StoreError: Something JSON has no form for, NaN and infinity included.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        return json.dumps(
            value,
            sort_keys=True,
            ensure_ascii=False,
            allow_nan=False,
            indent=indent,
            separators=separators,
            default=_plain,
        )
    except (TypeError, ValueError) as error:
        raise StoreError(f"not JSON: {error}", where=where, allowed="tables, lists, text, finite numbers") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__}")


def mask_hash(mask: Mask | None) -> str | None:
    """Return the SHA-256 of a mask's size and pixels; it does not depend on how a PNG was compressed."""
    if mask is None:
        return None
    return hashlib.sha256(f"{mask.shape[0]}x{mask.shape[1]};".encode() + mask.tobytes()).hexdigest()


def condition_hash(condition: Sample) -> str | None:
    """Return what rows say of a condition: `mask_hash`; of a prompt, ``prompt:`` and the hash of its text and size."""
    if condition.prompt is None:
        return mask_hash(condition.mask)
    height, width = condition.size
    return PROMPT + hashlib.sha256(f"{height}x{width};{condition.prompt.text}".encode()).hexdigest()


def encode_image(image: Image) -> bytes:
    """Encode uint8 ``[H, W, 3]`` as a PNG that says a model made it."""
    info = PngInfo()
    info.add_text("Software", "genaug")
    info.add_itxt("XML:com.adobe.xmp", _XMP)
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def encode_mask(mask: Mask) -> bytes:
    """Encode uint8 ``[H, W]`` as an 8-bit PNG whose grey values are the class ids."""
    buffer = io.BytesIO()
    PILImage.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def decode_png(data: bytes, mode: str, *, where: Path) -> np.ndarray:
    """Decode PNG bytes of Pillow mode ``RGB`` or ``L``.

    Raises:
        StoreError: Not a PNG, damaged, of another mode, or larger than Pillow decodes.
    """
    try:
        with PILImage.open(io.BytesIO(data), formats=("PNG",)) as picture:
            found = picture.mode
            array = np.array(picture)
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning) as error:
        raise StoreError(f"a picture too large for Pillow ({error})", where=str(where)) from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for broken PNGs
        raise StoreError(f"damaged PNG: {error}", where=str(where), hint=_REPAIR) from error
    if found != mode:
        raise StoreError(f"a PNG of mode {found}", where=str(where), allowed=mode, hint=_REPAIR)
    return array


_REPAIR = "Run 'genaug generate' with --repair to make damaged samples again"


def file_record(name: str, data: bytes) -> dict[str, Any]:
    """Return what rows say of a file: its name inside the store, its SHA-256 and its length in bytes."""
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def read_recorded(root: Path, record: Mapping[str, Any]) -> bytes:
    """Read a file that a row describes.

    Raises:
        StoreError: Missing, unreadable, or not the bytes that were written.
    """
    path = root / record["file"]
    data = read_bytes(path)
    if len(data) != record["bytes"]:
        found = f"damaged: {len(data)} bytes, {record['bytes']} were written"
        raise StoreError(found, where=str(path), hint=_REPAIR)
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise StoreError("damaged: its content is not what was written", where=str(path), hint=_REPAIR)
    return data


def read_bytes(path: Path) -> bytes:
    """Read a whole file; `StoreError` if that fails."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StoreError(
            "the file is missing", where=str(path), hint="Run 'genaug generate' to make it again"
        ) from None
    except OSError as error:
        raise store_error("read", path, error) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise store_error("create the folder", path, error) from error


def write_whole(path: Path, data: bytes | Iterable[bytes], *, tag: str) -> None:
    """Write a file under a temporary name in its folder, fsync it and rename it.

    The folder itself is not synced: `sync_folder` does that once for many files.

    Args:
        path: Final name; replaced if it exists.
        data: Content, or its parts.
        tag: Names the writer, so that a writer that starts can remove what its killed predecessor left.

    Raises:
        StoreError: The operating system refused; nothing is left behind.
    """
    # The name is hashed: a sample id near the file system's limit must not fail for our prefix.
    temp = path.with_name(f"{TEMP}{tag}-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}")
    try:
        with temp.open("wb") as file:
            for part in [data] if isinstance(data, bytes) else data:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            raise store_error("write", path, error) from error
        raise


def write_if_changed(path: Path, data: bytes, *, tag: str) -> bool:
    """Write a file unless it holds these bytes already; return whether it was written."""
    if path.is_file() and read_bytes(path) == data:
        return False
    write_whole(path, data, tag=tag)
    sync_folder(path.parent)
    return True


def sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power failure, where the system can do that."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise store_error("sync", path, error) from error


def remove_temporary(folder: Path, tag: str = "") -> None:
    """Remove unfinished files directly in `folder`: those of one writer, or of all when nobody else can write."""
    if not folder.is_dir():
        return
    for path in folder.glob(f"{TEMP}{tag}-*" if tag else f"{TEMP}*"):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error("remove", path, error) from error
