"""Pipelines in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genaug.errors import ConfigError
from genaug_albumentations.host import A


def load_pipeline(path: str | Path) -> Any:
    """Read a pipeline that ``A.save`` wrote, genaug's transforms included.

    ``A.load`` does the same after ``import genaug_albumentations``; before, it knows no such classes and raises a bare
    ``KeyError``. Stores are opened where the file says, relative to the working directory.

    Args:
        path: ``.json``, ``.yaml`` or ``.yml``.

    Raises:
        ConfigError: It names a class that no imported module defines, or has arguments that the installed
            albumentations does not know: 2.0.8 cannot read files of AlbumentationsX.
        StoreError: A store is not there.
    """
    path = Path(path)
    kinds = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
    if path.suffix.lower() not in kinds:
        raise ConfigError(f"the suffix {path.suffix!r}", where=str(path), allowed=", ".join(kinds))
    try:
        return A.load(path, data_format=kinds[path.suffix.lower()])
    except KeyError as error:
        hint = "Import the module that defines it first"
        raise ConfigError(f"no transform is called {error}", where=str(path), hint=hint) from error
    except TypeError as error:
        hint = f"It was written by another albumentations than the installed {A.__version__}"
        raise ConfigError(str(error), where=str(path), hint=hint) from error
