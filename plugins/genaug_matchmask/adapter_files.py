"""The files of a saved LT-Adapter. Light: no torch."""

from __future__ import annotations

from genaug.models import ModelCheck

WEIGHTS, PEFT_CONFIG, CONFIG, CARD = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "genaug_config.json",
    "README.md",
)
METHOD, FORMAT = "matchmask", "lt-adapter/1"


def check_adapter(look: ModelCheck, adapter: str) -> None:
    """Report what is wrong with option ``adapter``, as far as can be told without loading its weights."""
    allowed = "a folder written by 'genaug adapt'"
    folder = look.folder("adapter", adapter, (CONFIG, WEIGHTS), allowed=allowed)
    data = None if folder is None else look.table("adapter", folder / CONFIG)
    if data is None:
        return
    found = data.get("method"), data.get("format")
    if found != (METHOD, FORMAT):
        look.problem(
            "adapter", f"{folder} is of method {found[0]!r}, format {found[1]!r}", allowed=f"{METHOD}, {FORMAT}"
        )
