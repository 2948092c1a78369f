"""Loading a text-to-image pipeline, and what it is called with."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genaug.errors import ConfigError, MissingDependencyError
from genaug.registry import Registry, is_installed
from genaug_diffusion.base import DTYPES
from genaug_diffusion.place import resolve_base
from genaug_text2image.config import Text2ImageOptions

#: What Flux is called with where it was distilled to need few steps and no guidance (FLUX.1-schnell's model card).
DISTILLED = {"num_inference_steps": 4, "guidance_scale": 0.0, "max_sequence_length": 256}


def load_text2image(options: Text2ImageOptions, *, root: Path, registry: Registry, dtype: str, device: str) -> Any:
    """Load the base by ``AutoPipelineForText2Image``, all weights frozen.

    Args:
        options: Name of the base, safety checker, watermark and offloading.
        root: Folder that relative paths refer to.
        registry: Where shipped bases are looked up.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        device: Torch device.

    Raises:
        ConfigError: Not found, not reachable, no text-to-image model, or without a watermark that is asked for.
        MissingDependencyError: The watermark's library is not installed.
    """
    import diffusers

    source, local = resolve_base(options.base, root=root, registry=registry)
    given: dict[str, Any] = {"revision": options.revision, "local_files_only": local}
    try:
        index = diffusers.DiffusionPipeline.load_config(source, **given)
        extra = _extra_parts(options, index)
        with _quiet():
            pipe = diffusers.AutoPipelineForText2Image.from_pretrained(
                source, dtype=DTYPES[dtype], use_safetensors=True, **given, **extra
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{options.base!r} could not be loaded: {error}",
            where="generator.base",
            allowed="a diffusers text-to-image model with safetensors weights",
            hint="If the id is right: accept the model's licence on its page, and check the network and HF_HUB_OFFLINE",
        ) from error
    for part in pipe.components.values():
        if hasattr(part, "requires_grad_"):
            part.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    if options.cpu_offload and device.startswith("cuda"):
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)


def _extra_parts(options: Text2ImageOptions, index: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that only some pipelines take: safety checker and watermark are never left to a default."""
    import diffusers

    extra: dict[str, Any] = {}
    if "safety_checker" in index and not options.safety_checker:
        extra |= {"safety_checker": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, str(index["_class_name"]), None)
    takes = pipeline is not None and "add_watermarker" in inspect.signature(pipeline.__init__).parameters
    if options.watermark and not takes:
        found = f"{options.base!r} is a {index['_class_name']}, which has no watermark"
        raise ConfigError(found, where="generator.watermark", allowed="false")
    if options.watermark and not is_installed("imwatermark"):
        raise MissingDependencyError(
            "the Python package 'imwatermark' is not installed",
            where="generator.watermark",
            hint="pip install invisible-watermark",
        )
    if takes:
        extra["add_watermarker"] = options.watermark
    return extra


def call_options(pipe: Any, options: Text2ImageOptions) -> dict[str, Any]:
    """Return steps, guidance and so on to call a pipeline with: the options', else the pipeline's own.

    Raises:
        ConfigError: The pipeline does not take something that is set.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    wanted = {
        "num_inference_steps": ("steps", options.steps),
        "guidance_scale": ("guidance_scale", options.guidance_scale),
        "max_sequence_length": ("max_sequence_length", options.max_sequence_length),
        "negative_prompt": ("negative_prompt", options.negative_prompt),
    }
    distilled = DISTILLED if _is_distilled(pipe) else {}
    result: dict[str, Any] = {}
    for argument, (key, value) in wanted.items():
        takes = argument in parameters and not (argument == "negative_prompt" and _guided_without_negatives(parameters))
        if value is not None and not takes:
            found = f"{type(pipe).__name__} makes no use of it"
            raise ConfigError(found, where=f"generator.{key}", hint="Leave the option out")
        if takes and argument != "negative_prompt":
            result[argument] = distilled.get(argument, parameters[argument].default) if value is None else value
        elif value is not None:
            result[argument] = value
    return result


def _guided_without_negatives(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a pipeline has a "true" guidance beside a distilled one, which is off: it then reads no negative prompt.

    Off by default it is in Flux (1), on in Qwen-Image (4), where the negative prompt is what switches it on.
    """
    scale = parameters.get("true_cfg_scale")
    return scale is not None and not (isinstance(scale.default, int | float) and scale.default > 1)


def own_resolution(pipe: Any) -> int | None:
    """Return the side of the images that a base was trained at, in pixels; None if it does not say so, as Flux.

    Raises:
        ConfigError: It says so in cells, and not how many pixels a cell has (Kandinsky).
    """
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    config = getattr(network, "config", {})
    cells, scale = config.get("sample_size"), getattr(pipe, "vae_scale_factor", None)
    if not isinstance(cells, int):
        return None
    if scale is None and config.get("in_channels") == 3:  # it works on the pixels themselves (DeepFloyd IF)
        return cells
    if scale is None:
        raise ConfigError(
            f"{type(pipe).__name__} does not say how large its images are",
            where="generator.resolution",
            allowed="the side in pixels of the squares that the base was trained at",
            hint="Its model's page says it",
        )
    return cells * int(scale)


def _is_distilled(pipe: Any) -> bool:
    """Whether this is a Flux without guidance embeddings, as schnell is."""
    return type(pipe).__name__ == "FluxPipeline" and not pipe.transformer.config.guidance_embeds


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what diffusers says of pipelines without a safety checker: the recipe decided that."""
    log = logging.getLogger("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
    level, log.level = log.level, logging.ERROR
    try:
        yield
    finally:
        log.level = level
