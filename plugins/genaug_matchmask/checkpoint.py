"""An LT-Adapter on disk: a folder that is also a PEFT adapter, plus what PEFT has no field for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from genaug.errors import AdapterError
from genaug.store.learned import sha256_of
from genaug_diffusion.adapter_folder import AGAIN, CARD, text_file
from genaug_diffusion.base import check_fingerprint, unet_fingerprint
from genaug_diffusion.starting_noise import StartingNoise
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.adapter_files import FORMAT, PEFT_CONFIG, STARTING, WEIGHTS
from genaug_matchmask.attention import AlphaPool


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
    # One metadata entry only: safetensors does not keep the order of several, and equal adapters must have equal bytes.
    files = {WEIGHTS: save(adapter.state_dict(), metadata={"genaug_format": FORMAT.version})}
    if starting is not None:
        files[STARTING] = save(starting.state_dict())
    config = adapter.lora_config
    config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
    files[PEFT_CONFIG] = text_file(json.dumps(_plain(config.to_dict()), indent=2, sort_keys=True))
    files[CARD] = text_file(_card(base, about))
    data = {
        "base": base,
        "revision": revision,
        "base_fingerprint": unet_fingerprint(adapter.unet),
        "rank": adapter.rank,
        "target_modules": config.target_modules,
        "alpha_pool": adapter.alpha_pool,
        "layers": adapter.layers,
        **FORMAT.hashes_of(files),
        **about,
    }
    FORMAT.write(folder, files, data)


def check_weights(folder: Path) -> None:
    """Make sure that what was learned by a finished adapter is what was written.

    Adapters made before the hash was recorded have none; theirs must at least be whole (the header of a safetensors
    file says how long it is).

    Raises:
        AdapterError: It is not, or is missing.
    """
    config = FORMAT.check_files(folder)
    if FORMAT.hashes[WEIGHTS] not in config:
        path = folder / WEIGHTS
        try:
            with safe_open(path, "pt"):
                pass
        except FileNotFoundError:
            raise AdapterError(
                f"{WEIGHTS} is missing", where=str(folder), hint="Put the file back, or adapt again"
            ) from None
        except SafetensorError as error:
            raise AdapterError(f"damaged: cannot be read ({error})", where=str(path), hint=AGAIN) from error


def load_starting(folder: Path) -> StartingNoise:
    """Return what option ``start_spread`` draws the first noise from.

    Raises:
        AdapterError: The adapter has none, or it is damaged.
    """
    if FORMAT.hashes[STARTING] not in FORMAT.check_files(folder):
        raise AdapterError(
            "the adapter has no starting noise, which start_spread needs",
            where=str(folder),
            hint="Adapt again with this version of genaug, or set start_spread to 0",
        )
    return StartingNoise(**load_file(folder / STARTING))


def weights_fingerprint(folder: Path) -> str:
    """Return a hash of an adapter's weights."""
    return sha256_of(folder / WEIGHTS)[:16]


def load_adapter(unet: Any, folder: Path, *, base: str) -> LTAdapter:
    """Attach the adapter in `folder` to `unet`.

    Raises:
        AdapterError: Made for another base, damaged, or incomplete; the UNet is left without an adapter then.
    """
    config = FORMAT.read(folder)
    where = str(folder)
    check_fingerprint(unet, config["base_fingerprint"], base=base, made_for=config["base"], where=where)
    check_weights(folder)
    try:
        state = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise AdapterError(f"damaged: cannot be read ({error})", where=str(folder / WEIGHTS), hint=AGAIN) from error
    _check_sizes(unet, config, state, where)
    # The names themselves, not the expression that found them: one that a stranger wrote may take for ever to match.
    names = "|".join(map(re.escape, config["layers"]))
    adapter = LTAdapter(unet, rank=config["rank"], target_modules=names, alpha_pool=config["alpha_pool"])
    adapter.lora_config.target_modules = config["target_modules"]
    try:
        if adapter.layers != config["layers"]:
            raise AdapterError("the adapted layers or their order differ from the UNet's", where=where)
        adapter.load_state_dict(state, where=where)
    except AdapterError:
        adapter.detach()
        raise
    return adapter


def _check_sizes(unet: Any, config: Mapping[str, Any], state: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise `AdapterError` unless rank and layers of a config are those of its weights: both decide memory."""
    ranks = {len(value) for name, value in state.items() if ".lora_A." in name and value.ndim == 2}
    if ranks != {config["rank"]}:
        raise AdapterError(f"rank {config['rank']}, the weights have {sorted(ranks)}"[:200], where=where, hint=AGAIN)
    layers, known = config["layers"], {name for name, _ in unet.named_modules()}
    if not isinstance(layers, list) or not all(isinstance(name, str) and name in known for name in layers):
        raise AdapterError("the adapted layers or their order differ from the UNet's", where=where)
    if config["alpha_pool"] not in get_args(AlphaPool) or not isinstance(config["target_modules"], str):
        raise AdapterError("alpha_pool or target_modules has no value that is known", where=where, hint=AGAIN)


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
