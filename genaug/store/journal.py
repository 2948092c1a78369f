"""Append-only JSON lines with an index of where each row starts, so that rows never have to stay in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genaug.errors import StoreError
from genaug.store.files import json_text, store_error, sync_folder, write_whole

Row = dict[str, Any]


class Journal:
    """One file of rows. A row counts once its line is complete; a line without its end was cut by a crash.

    Args:
        path: The file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self, *, skip_bad: bool = False) -> Iterator[tuple[int, Row]]:
        """Yield ``(offset, row)`` of every complete line; nothing if the file does not exist.

        Raises:
            StoreError: A complete line is not a row; with `skip_bad` it is left out instead.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise store_error("read", self.path, error) from error
        with file:
            offset = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                row = _row(line)
                if row is not None:
                    yield offset, row
                elif not skip_bad:
                    raise StoreError(
                        "damaged: not a row of JSON",
                        where=f"{self.path}, line {number}",
                        hint="Run the same command with --repair: what the line described is made again",
                    )
                offset += len(line)

    def read(self, offset: int, key: str) -> Row:
        """Read the row that starts at `offset` and must describe `key`."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                row = _row(file.readline())
        except OSError as error:
            raise store_error("read", self.path, error) from error
        if row is None or row["key"] != key:
            raise StoreError(
                f"the row of {key} is not where it was",
                where=str(self.path),
                hint="The store was rewritten: open it again",
            )
        return row

    def cut_tail(self) -> None:
        """Cut a last line that a crash left without its end."""
        try:
            if not self.path.exists():
                return
            with self.path.open("rb+") as file:
                size = file.seek(0, os.SEEK_END)
                end = _last_line_end(file, size)
                if end < size:
                    file.truncate(end)
                    os.fsync(file.fileno())
        except OSError as error:
            raise store_error("write", self.path, error) from error

    def append(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Append rows by one write and fsync it; return where each starts.

        Raises:
            StoreError: The operating system refused; the file is as before.
        """
        lines = [json_text(row, where=f"row of {row['key']}").encode() + b"\n" for row in rows]
        data = memoryview(b"".join(lines))
        try:
            # Unbuffered: closing must not write again what a full disk has refused.
            with self.path.open("ab", buffering=0) as file:
                start = file.seek(0, os.SEEK_END)
                try:
                    while data:
                        data = data[file.write(data) :]
                    os.fsync(file.fileno())
                except BaseException:
                    os.ftruncate(file.fileno(), start)
                    raise
        except OSError as error:
            raise store_error("write", self.path, error) from error
        offsets = []
        for line in lines:
            offsets.append(start)
            start += len(line)
        return offsets


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, tag: str) -> None:
    """Write a whole file of rows, streaming; the old file stays until the new one is complete."""
    write_whole(path, (json_text(row, where=str(path)).encode() + b"\n" for row in rows), tag=tag)
    sync_folder(path.parent)


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("key"), str) else None


def _last_line_end(file: Any, size: int) -> int:
    """Return the position after the last newline, reading backwards in blocks."""
    block = 65536
    end = size
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        end = start
    return 0


class Index(Mapping[str, Row]):
    """Rows of one or more journals by key; of two rows with one key the later counts.

    Iterates in order of first appearance. Holds a number per row, not the row.

    Args:
        journals: Files, in order.
        skip_bad: Leave damaged lines out instead of raising.
    """

    def __init__(self, journals: Iterable[Journal], *, skip_bad: bool = False) -> None:
        self.journals = list(journals)
        self._at: dict[str, tuple[int, int]] = {}
        #: Keys whose row says that there is no image.
        self.refused: set[str] = set()
        for number, journal in enumerate(self.journals):
            for offset, row in journal.scan(skip_bad=skip_bad):
                self._note(row, number, offset)

    def _note(self, row: Mapping[str, Any], number: int, offset: int) -> None:
        self._at[row["key"]] = (number, offset)
        if row.get("image", ...) is None:
            self.refused.add(row["key"])
        else:
            self.refused.discard(row["key"])

    def __getitem__(self, key: str) -> Row:
        number, offset = self._at[key]
        return self.journals[number].read(offset, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: object) -> bool:
        return key in self._at

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to the last journal."""
        last = len(self.journals) - 1
        for row, offset in zip(rows, self.journals[last].append(rows), strict=True):
            self._note(row, last, offset)

    def forget(self, key: str) -> None:
        """Leave a key out of this index; its row stays in the file until a later one takes its place."""
        self._at.pop(key, None)
        self.refused.discard(key)
