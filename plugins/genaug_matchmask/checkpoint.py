"""An LT-Adapter on disk: a folder that is also a PEFT adapter, plus what PEFT has no field for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genaug.errors import AdapterError
from genaug_diffusion.base import check_fingerprint, unet_fingerprint
from genaug_matchmask.adapter import LTAdapter

WEIGHTS, PEFT_CONFIG, CONFIG, CARD = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "genaug_config.json",
    "README.md",
)
FORMAT = "lt-adapter/1"


def save_adapter(
    adapter: LTAdapter, folder: Path, *, base: str, revision: str | None, about: Mapping[str, Any]
) -> None:
    """Write the adapter; ``genaug_config.json`` comes last, so a folder that has it is complete.

    ``lora_alpha`` equals the rank and the LoRA keys are PEFT's, so plain PEFT and diffusers load the folder as an
    ordinary LoRA. That fallback has neither layout nor timestep scale: it is not the method.

    Args:
        adapter: What to save.
        folder: Target, created if needed.
        base: Name, path or Hub id of the base model, as the recipe says it.
        revision: Its revision.
        about: Further keys of ``genaug_config.json`` (class table, prompt rule, sampler defaults, training record).
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{WEIGHTS}"
    # One metadata entry only: safetensors does not keep the order of several, and equal adapters must have equal bytes.
    save_file(adapter.state_dict(), temporary, metadata={"genaug_format": FORMAT})
    temporary.replace(folder / WEIGHTS)
    config = adapter.lora_config
    config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
    _write(folder / PEFT_CONFIG, json.dumps(_plain(config.to_dict()), indent=2, sort_keys=True))
    _write(folder / CARD, _card(base, about))
    data = {
        "format": FORMAT,
        "method": "matchmask",
        "base": base,
        "revision": revision,
        "base_fingerprint": unet_fingerprint(adapter.unet),
        "rank": adapter.rank,
        "target_modules": config.target_modules,
        "alpha_pool": adapter.alpha_pool,
        "layers": adapter.layers,
        **about,
    }
    _write(folder / CONFIG, json.dumps(data, indent=2))


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
    try:
        data = json.loads(path.read_text("utf-8"))
        method, version = data["method"], data["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"cannot be read: {error!r}", where=str(path)) from error
    if method != "matchmask" or version != FORMAT:
        raise AdapterError(
            f"an adapter of method {method!r}, format {version!r}",
            where=str(path),
            allowed=f"matchmask, {FORMAT}",
            hint="A newer format needs a newer genaug",
        )
    config: dict[str, Any] = data
    return config


def weights_fingerprint(folder: Path) -> str:
    """Return a hash of an adapter's weights."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:16]


def load_adapter(unet: Any, folder: Path, *, base: str) -> LTAdapter:
    """Attach the adapter in `folder` to `unet`.

    Raises:
        AdapterError: Made for another base, damaged, or incomplete; the UNet is left without an adapter then.
    """
    config = read_config(folder)
    where = str(folder)
    check_fingerprint(unet, config["base_fingerprint"], base=base, made_for=config["base"], where=where)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"{WEIGHTS} cannot be read: {error}", where=where, hint="Adapt again, or download it again"
        ) from error
    adapter = LTAdapter(
        unet, rank=config["rank"], target_modules=config["target_modules"], alpha_pool=config["alpha_pool"]
    )
    try:
        if adapter.layers != config["layers"]:
            raise AdapterError("the adapted layers or their order differ from the UNet's", where=where)
        adapter.load_state_dict(state, where=where)
    except AdapterError:
        adapter.detach()
        raise
    return adapter


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(text + "\n", "utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(getattr(value, "value", value))


def _card(base: str, about: Mapping[str, Any]) -> str:
    labels, training = about["labels"], about["training"]
    names = "\n".join(f"| {i} | {n} |" for i, n in labels["names"].items())
    return f"""---
library_name: peft
base_model: {base}
tags: [genaug, matchmask, lora, semantic-image-synthesis]
---
# MatchMask LT-Adapter for {base}

Makes images for segmentation masks of the classes below, with genaug.
Trained on {training["samples"]} labelled samples for {training["steps"]} steps; `genaug_config.json` has every setting.

Plain PEFT or diffusers load this folder as an ordinary LoRA. That fallback ignores the mask and the timestep scale:
it is **not** the method.

| id | class |
|---|---|
{names}

Ignore index: {labels["ignore_index"]}"""
