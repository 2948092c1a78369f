"""A trained ScribbleGen on disk: a ControlNet that diffusers loads without genaug, and what it has no place for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from genaug.errors import AdapterError
from genaug.labels import LabelSpace
from genaug.recipe import digest
from genaug_diffusion.adapter_folder import AGAIN, CARD, text_file
from genaug_diffusion.base import check_fingerprint, unet_fingerprint
from genaug_scribblegen.adapter_files import CONTROLNET, CONTROLNET_CONFIG, FORMAT, NULL, WEIGHTS
from genaug_scribblegen.codec import HintCodec
from genaug_scribblegen.network import ScribbleNetwork
from genaug_scribblegen.null_condition import KEY, NullCondition


def save_adapter(
    network: ScribbleNetwork, folder: Path, *, base: str, revision: str | None, about: Mapping[str, Any]
) -> None:
    """Write what was learned; ``genaug_config.json`` comes last, so a folder that has it is complete.

    Args:
        network: Its ControlNet and null condition are saved, in float32.
        folder: Target, created if needed.
        base: Name, path or Hub id of the base model, as the recipe says it.
        revision: Its revision.
        about: Further keys of ``genaug_config.json`` (class table, hint, prompt rule, sampler, training record).

    Raises:
        StoreError: The operating system refused.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in network.controlnet.state_dict().items()}
    files = {
        WEIGHTS: save(state, metadata={"format": "pt"}),
        CONTROLNET_CONFIG: text_file(_config(network.controlnet)),
        NULL: save({KEY: network.null.value.detach().cpu().contiguous()}, metadata={"genaug_format": FORMAT.version}),
        CARD: text_file(_card(base, about)),
    }
    data = {
        "base": base,
        "revision": revision,
        "base_fingerprint": unet_fingerprint(network.unet),
        **FORMAT.hashes_of(files),
        **about,
    }
    FORMAT.write(folder, files, data)


def weights_fingerprint(folder: Path) -> str:
    """Return a hash of everything learned in a folder."""
    config = FORMAT.read(folder)
    return digest([config[key] for key in FORMAT.hashes.values()])


def load_adapter(pipe: Any, folder: Path, codec: HintCodec, labels: LabelSpace, *, base: str) -> ScribbleNetwork:
    """Return the network of an adapter folder, frozen, in dtype and on device of the base.

    Raises:
        AdapterError: Made for another base, other hints or other channels; damaged, or incomplete.
    """
    from diffusers import ControlNetModel

    config, where = FORMAT.check_files(folder), str(folder)
    check_fingerprint(pipe.unet, config["base_fingerprint"], base=base, made_for=config["base"], where=where)
    _check_hint(config["hint"], codec, labels, where=where)
    try:
        controlnet = ControlNetModel.from_pretrained(
            folder / CONTROLNET, torch_dtype=pipe.unet.dtype, use_safetensors=True, local_files_only=True
        )
        value = load((folder / NULL).read_bytes())[KEY]
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]  # torch has a line for every tensor that does not fit
        raise AdapterError(f"damaged: cannot be read ({why})", where=where, hint=AGAIN) from error
    if controlnet.config.conditioning_channels != codec.channels or len(value) != codec.channels:
        raise AdapterError(
            f"hints of {controlnet.config.conditioning_channels} channels, a null condition of {len(value)}",
            where=where,
            allowed=f"{codec.channels} channels for the class table of the recipe",
            hint="Use the class table that it was trained with, or adapt again",
        )
    null = NullCondition(len(value), (value.shape[1], value.shape[2]), learned=False)
    with torch.no_grad():
        null.value.copy_(value)
    network = ScribbleNetwork(pipe.unet, controlnet, null).requires_grad_(False).eval()
    controlnet.to(pipe.unet.device)
    null.to(pipe.unet.device)
    return network


def _check_hint(trained: Mapping[str, Any], codec: HintCodec, labels: LabelSpace, *, where: str) -> None:
    """Raise `AdapterError` if `codec` makes hints that mean something else than those of the training."""
    if trained["kind"] != codec.kind:
        raise AdapterError(
            f"the adapter was trained with hint {trained['kind']}, the recipe says {codec.kind}",
            where=where,
            hint=f"Set generator.hint to {trained['kind']}, or adapt again",
        )
    now = codec.describe()
    # Colours belong to ids, so a table with fewer or more of them may be used; channels are counted.
    keys = ("unlabelled",) if codec.kind == "rgb" else ("channels", "ids")
    for key in keys:
        if trained[key] != now[key]:
            raise AdapterError(
                f"hints with {key} {trained[key]}, the class table of the recipe has {now[key]} "
                f"({len(labels.names)} classes)",
                where=where,
                hint="Use the class table that it was trained with, or adapt again",
            )


def _config(controlnet: Any) -> str:
    """Return what diffusers' `save_pretrained` writes, without the folder that a model was loaded from."""
    config = json.loads(controlnet.to_json_string())
    config.pop("_name_or_path", None)
    return json.dumps(config, indent=2, sort_keys=True)


def _card(base: str, about: Mapping[str, Any]) -> str:
    labels, hint, training = about["labels"], about["hint"], about["training"]
    what = "a colour per class id" if hint["kind"] == "rgb" else "a channel per class, ascending by id"
    colors = {i: ", ".join(map(str, color)) for i, color in hint.get("colors", {}).items()}  # older ones have none
    named = {**labels["names"], **({str(labels["ignore_index"]): "(unlabelled)"} if colors else {})}
    rows = ["| id | class | hint: red, green, blue |", "|---|---|---|"] if colors else ["| id | class |", "|---|---|"]
    rows += [f"| {i} | {name} |" + (f" {colors[i]} |" if colors else "") for i, name in named.items()]
    table = "\n".join(rows)
    return f"""---
library_name: diffusers
base_model: {base}
tags: [genaug, scribblegen, controlnet, semantic-image-synthesis]
---
# ScribbleGen ControlNet for {base}

Makes training images for scribbles of the classes below, with genaug.
Trained on {training["samples"]} scribbled images for {training["steps"]} steps; `genaug_config.json` has every setting.

`controlnet/` is a plain `ControlNetModel`; its hint has {hint["channels"]} channels: {what}, and unlabelled pixels
(id {labels["ignore_index"]}) like one more class. diffusers' own pipelines guide on the text; guidance on the scribble
also needs `null_condition.safetensors`, the hint of no scribble.

{table}"""
