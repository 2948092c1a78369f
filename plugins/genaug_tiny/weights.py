"""Where the shipped weights of genaug-tiny are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def model_folder() -> Path:
    """The folder with genaug-tiny in diffusers format, ready for `from_pretrained(..., local_files_only=True)`.

    Raises:
        FileNotFoundError: if this installation was built without the weights.
    """
    folder = Path(str(files("genaug_tiny") / "model"))
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"genaug-tiny's weights are missing: no model_index.json in {folder}. "
            "Reinstall genaug, or train them with benchmarks/train_tiny.py."
        )
    return folder
