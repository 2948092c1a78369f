"""Loading a base model: a name that a plugin ships, a local folder, or a Hub id (see `genaug_diffusion.place`)."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch

from genaug.errors import AdapterError, ConfigError
from genaug.recipe import digest
from genaug.registry import Registry
from genaug_diffusion.place import base_revision, resolve_base

_ADDED = re.compile(r"\.lora_[AB]\.|\.processor\.|^genaug_lt\.")

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_pipeline(
    base: str,
    *,
    root: Path,
    registry: Registry,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    safety_checker: bool = True,
) -> Any:
    """Load a ``StableDiffusionPipeline``, all weights frozen, in evaluation mode.

    Args:
        base: Name of a shipped base, folder, or Hub id of any Stable Diffusion 1.x / 2.x model.
        root: Folder that relative paths refer to.
        registry: Where shipped bases are looked up.
        revision: Hub branch, tag or commit.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        device: Torch device.
        safety_checker: Keep the base's safety checker, if it has one.

    Raises:
        ConfigError: Not found, not reachable, or not a Stable Diffusion 1.x / 2.x model.
    """
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    source, local = resolve_base(base, root=root, registry=registry)
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "use_safetensors": True, "local_files_only": local}
    if not safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    # diffusers says at warning level that a pipeline has no safety checker; the recipe already decided that.
    diffusers_log = logging.getLogger("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
    level, diffusers_log.level = diffusers_log.level, logging.ERROR
    try:
        pipe = StableDiffusionPipeline.from_pretrained(source, revision=base_revision(base, revision), **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{base!r} could not be loaded: {error}",
            where="generator.base",
            allowed="a Stable Diffusion 1.x or 2.x model with safetensors weights",
            hint="If the id is right, check the network, HF_HUB_OFFLINE and your access to the repository",
        ) from error
    finally:
        diffusers_log.level = level
    if not isinstance(pipe.unet, UNet2DConditionModel):
        raise ConfigError(
            f"{base!r} has a {type(pipe.unet).__name__}", where="generator.base", allowed="a UNet2DConditionModel"
        )
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def unet_fingerprint(unet: Any) -> str:
    """Return a hash of a UNet's parameter names and shapes, to tell at once whether an adapter was made for it."""
    # `base_layer` and the adapter's own parameters come and go with it.
    return digest(
        {n.replace(".base_layer.", "."): list(p.shape) for n, p in unet.named_parameters() if not _ADDED.search(n)}
    )


def check_fingerprint(unet: Any, expected: str, *, base: str, made_for: str, where: str) -> None:
    """Raise `AdapterError`, in one line, if `unet` is not of the architecture an adapter was made for."""
    if unet_fingerprint(unet) != expected:
        raise AdapterError(
            f"the adapter was made for {made_for!r}; {base!r} has another architecture",
            where=where,
            hint=f"Set generator.base to {made_for!r}, or adapt again",
        )


def vae_factor(pipe: Any) -> int:
    """Return how many pixels one latent cell covers along an axis (8 for Stable Diffusion)."""
    return int(2 ** (len(pipe.vae.config.block_out_channels) - 1))
