from __future__ import annotations

from pathlib import Path
from typing import Any


class _PathManager:
    def open(self, path: str, mode: str = "r") -> Any:
        return Path(path).open(mode)


PathManager = _PathManager()
