"""An LT-Adapter on disk: a folder that is also a PEFT adapter, plus what PEFT has no field for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from genaug.errors import AdapterError
from genaug.store.files import make_folder, sync_folder, system_errors, write_whole
from genaug.store.learned import check_sha256, read_table, sha256_of
from genaug_diffusion.base import check_fingerprint, unet_fingerprint
from genaug_diffusion.starting_noise import StartingNoise
from genaug_diffusion.training import TAG
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.adapter_files import (
    AGAIN,
    CARD,
    CONFIG,
    FORMAT,
    METHOD,
    PEFT_CONFIG,
    SHA256,
    STARTING,
    WEIGHTS,
    read_config,
)


def save_adapter(
    adapter: LTAdapter,
    folder: Path,
    *,
    base: str,
    revision: str | None,
    about: Mapping[str, Any],
    starting: StartingNoise | None = None,
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
        starting: What option ``start_spread`` draws the first noise from.

    Raises:
        StoreError: The operating system refused.
    """
    make_folder(folder)
    # One metadata entry only: safetensors does not keep the order of several, and equal adapters must have equal bytes.
    weights = save(adapter.state_dict(), metadata={"genaug_format": FORMAT})
    # Weights that replace others must never be taken for those; the other way round the folder is just unfinished.
    with system_errors("remove", folder / CONFIG):
        (folder / CONFIG).unlink(missing_ok=True)
    sync_folder(folder)
    write_whole(folder / WEIGHTS, weights, tag=TAG)
    hashes = {SHA256[WEIGHTS]: hashlib.sha256(weights).hexdigest()}
    if starting is not None:
        tensors = save(starting.state_dict())
        write_whole(folder / STARTING, tensors, tag=TAG)
        hashes[SHA256[STARTING]] = hashlib.sha256(tensors).hexdigest()
    config = adapter.lora_config
    config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
    _write(folder / PEFT_CONFIG, json.dumps(_plain(config.to_dict()), indent=2, sort_keys=True))
    _write(folder / CARD, _card(base, about))
    data = {
        "format": FORMAT,
        "method": METHOD,
        "base": base,
        "revision": revision,
        "base_fingerprint": unet_fingerprint(adapter.unet),
        "rank": adapter.rank,
        "target_modules": config.target_modules,
        "alpha_pool": adapter.alpha_pool,
        "layers": adapter.layers,
        **hashes,
        **about,
    }
    sync_folder(folder)
    _write(folder / CONFIG, json.dumps(data, indent=2))
    sync_folder(folder)


def training_record(folder: Path) -> dict[str, Any] | None:
    """Return the training record of a finished adapter; None if it is unfinished, or another method's.

    Raises:
        AdapterError: ``genaug_config.json`` is damaged.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return None
    data = read_table(folder / CONFIG, hint=AGAIN)
    if SHA256[STARTING] in data and not (folder / STARTING).is_file():
        return None
    record = data.get("training")
    known = (data.get("method"), data.get("format")) == (METHOD, FORMAT)
    return record if known and isinstance(record, dict) else None


def check_weights(folder: Path) -> None:
    """Make sure that what was learned by a finished adapter is what was written.

    Adapters made before the hash was recorded have none; theirs must at least be whole (the header of a safetensors
    file says how long it is).

    Raises:
        AdapterError: They are not.
    """
    config = read_config(folder)
    for name, key in SHA256.items():
        if key in config:
            check_sha256(folder / name, config[key], hint=AGAIN)
    if SHA256[WEIGHTS] not in config:
        path = folder / WEIGHTS
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            raise AdapterError(f"damaged: cannot be read ({error})", where=str(path), hint=AGAIN) from error


def load_starting(folder: Path) -> StartingNoise:
    """Return what option ``start_spread`` draws the first noise from.

    Raises:
        AdapterError: The adapter has none, or it is damaged.
    """
    path, expected = folder / STARTING, read_config(folder).get(SHA256[STARTING])
    if expected is None:
        raise AdapterError(
            "the adapter has no starting noise, which start_spread needs",
            where=str(folder),
            hint="Adapt again with this version of genaug, or set start_spread to 0",
        )
    check_sha256(path, expected, hint=AGAIN)
    return StartingNoise(**load_file(path))


def weights_fingerprint(folder: Path) -> str:
    """Return a hash of an adapter's weights."""
    return sha256_of(folder / WEIGHTS)[:16]


def load_adapter(unet: Any, folder: Path, *, base: str) -> LTAdapter:
    """Attach the adapter in `folder` to `unet`.

    Raises:
        AdapterError: Made for another base, damaged, or incomplete; the UNet is left without an adapter then.
    """
    config = read_config(folder)
    where = str(folder)
    check_fingerprint(unet, config["base_fingerprint"], base=base, made_for=config["base"], where=where)
    if not (folder / WEIGHTS).is_file():
        raise AdapterError(f"{WEIGHTS} is missing", where=where, hint="Put the file back, or adapt again")
    check_weights(folder)
    try:
        state = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise AdapterError(f"damaged: cannot be read ({error})", where=str(folder / WEIGHTS), hint=AGAIN) from error
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
    write_whole(path, (text + "\n").encode(), tag=TAG)


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
