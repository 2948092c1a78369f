"""What tells one predictor from another, so that nothing made by the one passes for the other's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from genaug.interfaces import Predictor


@runtime_checkable
class Fingerprinted(Protocol):
    """A predictor that can say which one it is."""

    def fingerprint(self) -> str:
        """Return a text that differs whenever the predictions may differ."""
        ...


def file_fingerprint(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of some files' names and contents."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def fingerprint(predictor: Predictor) -> str | None:
    """Return a predictor's fingerprint, None if it has none."""
    return predictor.fingerprint() if isinstance(predictor, Fingerprinted) else None
