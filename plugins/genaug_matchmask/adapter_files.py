"""The files of a saved LT-Adapter, as far as they can be read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genaug.errors import AdapterError
from genaug.models import ModelCheck
from genaug.store.learned import check_sha256, read_table

WEIGHTS, STARTING, PEFT_CONFIG, CONFIG, CARD = (
    "adapter_model.safetensors",
    "starting_noise.safetensors",
    "adapter_config.json",
    "genaug_config.json",
    "README.md",
)
METHOD, FORMAT = "matchmask", "lt-adapter/1"
#: File -> key of ``genaug_config.json`` with its hash; adapters from before the key was there have none.
SHA256 = {WEIGHTS: "weights_sha256", STARTING: "starting_noise_sha256"}
AGAIN = "Put the file back; or delete this one file and adapt again, which goes on from the checkpoint beside it"
_NEEDED = {"base", "base_fingerprint", "rank", "target_modules", "alpha_pool", "layers", "labels"}


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``genaug_config.json`` of an adapter folder.

    Raises:
        AdapterError: Not there, not readable, of another method or a newer format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise AdapterError(
            "no genaug_config.json" if folder.is_dir() else "no such folder",
            where=str(folder),
            allowed="a folder written by 'genaug adapt'",
        )
    data = read_table(path, hint=AGAIN)
    method, version = data.get("method"), data.get("format")
    if method != METHOD or version != FORMAT:
        raise AdapterError(
            f"an adapter of method {method!r}, format {version!r}",
            where=str(path),
            allowed=f"{METHOD}, {FORMAT}",
            hint="A newer format needs a newer genaug",
        )
    if missing := sorted(_NEEDED - data.keys()):
        raise AdapterError(f"damaged: it lacks {', '.join(missing)}", where=str(path), hint=AGAIN)
    return data


def check_adapter(look: ModelCheck, adapter: str) -> None:
    """Report what is wrong with option ``adapter``, as far as can be told without loading its weights."""
    folder = look.folder("adapter", adapter, (CONFIG, WEIGHTS), allowed="a folder written by 'genaug adapt'")
    if folder is None:
        return
    with look.reporting("adapter"):
        config = read_config(folder)
        for name, key in SHA256.items():
            if key in config:
                check_sha256(folder / name, config[key], hint="Put the file back, or name another adapter")
