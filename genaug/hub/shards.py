"""Large stores on the Hub: their pictures in a few parquet files, since the Hub limits the number of files.

It takes 25,000 files in a commit and 10,000 in a folder, and recommends at most 100,000 in a repository. Two kinds of
shards hold pictures: ``shards/train-*`` has a row per sample, image and mask inside, for the viewer and for streaming;
``shards/files-*`` has what is not trained on. `unpack` makes the store's own files of them again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from genaug.errors import StoreError, missing_dependency
from genaug.registry import is_installed
from genaug.store.files import read_bytes
from genaug.store.journal import Row

FOLDER = "shards/"
#: More pictures than these are packed; fewer stay files, which are easier to look at.
MAX_PICTURES = 10_000
#: Pictures in one shard: the loss if a transfer breaks off, and the space that a push needs meanwhile.
SHARD_BYTES = 256 * 2**20
#: Rows that are read together, by the viewer too.
GROUP = 100

_PLACES = {"file_name": "image", "mask_file_name": "mask"}
_PICTURES = ("image", "mask", "file")


@dataclass(frozen=True, slots=True)
class Packed:
    """A shard, made of the store's files when it is needed; the same bytes for the same files and version of pyarrow.

    Args:
        folder: The store.
        rows: Plain columns of every row, and its pictures: column -> place in the store.
        schema: Of pyarrow; the same for all shards of a kind.
        size: Bytes of the pictures.
    """

    folder: Path
    rows: Sequence[tuple[Row, Mapping[str, str]]]
    schema: Any
    size: int

    def write(self, path: Path) -> None:
        """Write the shard."""
        import pyarrow
        from pyarrow import parquet

        # Pictures are compressed already; `unpack` trusts nothing that could be larger than it looks.
        how: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        with parquet.ParquetWriter(path, self.schema, **how) as writer:
            for start in range(0, len(self.rows), GROUP):
                rows = [{**row, **self._pictures(places)} for row, places in self.rows[start : start + GROUP]]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=self.schema))

    def _pictures(self, places: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        return {column: {"bytes": read_bytes(self.folder / name), "path": name} for column, name in places.items()}


def pack(folder: Path, rows: Iterable[Row], names: Collection[str]) -> dict[str, Packed]:
    """Divide a store's pictures into shards, by place in the repository.

    Args:
        folder: The store.
        rows: Of ``metadata.jsonl``.
        names: Places of all pictures.

    Raises:
        MissingDependencyError: No pyarrow.
    """
    require_pyarrow(f"a store of {len(names):,} pictures")
    import pyarrow

    shown = []
    for row in rows:
        places = {column: row[key] for key, column in _PLACES.items() if key in row}
        shown.append(({key: value for key, value in row.items() if key not in _PLACES}, places))
    rest = sorted(set(names).difference(*(places.values() for _, places in shown)))
    picture = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    columns = [column for column in _PLACES.values() if any(column in places for _, places in shown)]
    # Of all rows together: a column that is empty in one shard and text in another would be two types.
    schema = pyarrow.Table.from_pylist([row for row, _ in shown]).schema
    features = {"info": {"features": {column: {"_type": "Image"} for column in columns}}}
    schema = pyarrow.schema(
        [*(pyarrow.field(column, picture) for column in columns), *schema],
        metadata={"huggingface": json.dumps(features)},
    )
    return {
        **_shards(folder, "train", shown, schema),
        **_shards(folder, "files", [({}, {"file": name}) for name in rest], pyarrow.schema({"file": picture})),
    }


def _shards(folder: Path, kind: str, rows: Sequence[tuple[Row, Mapping[str, str]]], schema: Any) -> dict[str, Packed]:
    parts: list[list[tuple[Row, Mapping[str, str]]]] = []
    sizes: list[int] = []
    for row in rows:
        size = sum((folder / name).stat().st_size for name in row[1].values())
        if not parts or sizes[-1] + size > SHARD_BYTES:
            parts.append([])
            sizes.append(0)
        parts[-1].append(row)
        sizes[-1] += size
    return {
        f"{FOLDER}{kind}-{number:05}.parquet": Packed(folder, part, schema, size)
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True))
    }


def unpack(folder: Path, names: Collection[str], *, where: str) -> None:
    """Make files of all pictures in a fetched store's shards, then remove the shards.

    Args:
        folder: The store.
        names: Places that its tables speak of, known to lie inside `folder`; there may be no other picture.
        where: How messages name it.

    Raises:
        StoreError: A shard is damaged, or is not what genaug packs.
    """
    shards = sorted((folder / FOLDER).glob("*.parquet"))
    for path in tqdm(shards, "unpack", unit="shard", delay=1):
        with _shard_errors(f"{where}, {FOLDER}{path.name}"):
            for name, data in _pictures(path):
                if name not in names:
                    raise StoreError(f"it holds {name!r}, which no table of the store speaks of"[:200])
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
    shutil.rmtree(folder / FOLDER)


@contextmanager
def _shard_errors(where: str) -> Iterator[None]:
    """Turn what is wrong with a shard into one line."""
    import pyarrow

    try:
        yield
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the shard
            raise
        raise StoreError(f"damaged: {error}"[:200], where=where) from None
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"damaged: {' '.join(str(error).split())}"[:200], where=where) from None


def _pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield place and bytes of all pictures in a shard, a few rows in memory at a time."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        about = file.metadata
        chunks = [about.row_group(g).column(c) for g in range(about.num_row_groups) for c in range(about.num_columns)]
        if any(c.compression != "UNCOMPRESSED" or not {"PLAIN", "RLE"}.issuperset(c.encodings) for c in chunks):
            raise StoreError("it is packed otherwise than genaug does")  # and may be far larger than it looks
        columns = [name for name in _PICTURES if name in file.schema_arrow.names]
        for batch in file.iter_batches(GROUP, columns=columns):
            for column in batch.columns:
                yield from ((cell["path"], cell["bytes"]) for cell in column.to_pylist() if cell is not None)


def require_pyarrow(where: str) -> None:
    """Refuse to go on without the library that reads and writes shards.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if not is_installed("pyarrow"):
        raise missing_dependency("pyarrow", "data", where=where)
