"""Models that the user names: a folder, or an id of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genaug.errors import ConfigError


def load(kind: Any, name: str, *, where: str, **options: Any) -> Any:
    """Return ``kind.from_pretrained(name)``.

    Raises:
        ConfigError: There is no such model.
    """
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), "")
        hint = "Download it first, or name its folder; HF_HUB_OFFLINE=1 keeps transformers from looking on the Hub"
        raise ConfigError(f"{name!r} cannot be loaded: {first}", where=where, hint=hint) from error


def place(root: Path, name: str) -> str:
    """Return a model's folder, relative to `root`, if there is one, else the name itself: an id of the Hub."""
    folder = root / Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def images_for(processor: Any, images: Any) -> Any:
    """Return what an image processor makes of uint8 images ``[H, W, 3]``, whatever sizes they have."""
    return processor(images=list(images), return_tensors="pt", input_data_format="channels_last")


def image_processor(name: str, *, where: str) -> Any:
    """Return the image processor of a model, the one that needs Pillow and no torchvision."""
    from transformers import AutoImageProcessor

    return load(AutoImageProcessor, name, where=where, backend="pil")
