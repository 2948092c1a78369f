"""The generator ``text2image``: images from prompts, without labels (SENSE)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genaug.errors import ConfigError, SampleError
from genaug.interfaces import Generator
from genaug.labels import LabelSpace
from genaug.registry import Registry, default_registry
from genaug.types import Draw, Prompt, Refused, Sample
from genaug_diffusion.images import resize_image
from genaug_text2image.config import Text2ImageOptions
from genaug_text2image.pipeline import call_options, load_text2image, own_resolution
from genaug_text2image.sizes import sampling_size
from genaug_text2image.tokens import Reader, cuts, readers, warnings_of

if TYPE_CHECKING:
    from genaug.recipe import BuildContext

log = logging.getLogger("genaug")


class Text2Image(Generator):
    """Images for prompts, by a text-to-image pipeline of diffusers; tested are Stable Diffusion, SDXL and Flux.

    An image is sampled near the size that its prompt asks for (`sampling_size`) and resized to it, bicubic. Its noise
    is drawn from its own seed on the CPU, so it does not depend on the batch. It has no mask: a self-training step
    labels it (``genaug_torch.UnlabeledStreams``).

    Args:
        options: See `Text2ImageOptions`.
        root: Folder that relative paths in `options` refer to.
        registry: Where the names of shipped base models are looked up.
    """

    def __init__(
        self, options: Text2ImageOptions | None = None, *, root: Path | None = None, registry: Registry | None = None
    ) -> None:
        self.options = options or Text2ImageOptions()
        self.root, self.registry = root or Path(), registry or default_registry()
        self.batch_size, self.samples_per_condition = self.options.batch_size, self.options.images_per_prompt
        self.pipe: Any = None
        self.device = "cpu"
        self._readers: list[Reader] = []
        self._call: dict[str, Any] = {}
        self._resolution: int | None = None
        self._cuts: dict[str, dict[str, dict[str, int]]] = {}

    @classmethod
    def from_config(cls, options: Text2ImageOptions, context: BuildContext) -> Text2Image:
        """Build from a recipe."""
        return cls(options, root=context.root, registry=context.registry)

    # ------------------------------------------------------------------ the base

    @property
    def dtype(self) -> str:
        """Dtype of the base: what the options say, or bfloat16 on CUDA and float32 elsewhere."""
        if self.options.dtype != "auto":
            return self.options.dtype
        return "bfloat16" if self.device.startswith("cuda") else "float32"

    def prepare(self, labels: LabelSpace, *, device: str = "cpu") -> None:  # noqa: ARG002  (images get no labels)
        """Load the base unless it is loaded for this device.

        Raises:
            ConfigError: It cannot be loaded, or does not take an option that is set.
        """
        if self.pipe is not None and device == self.device:
            return
        self.device = device
        self.pipe = load_text2image(
            self.options, root=self.root, registry=self.registry, dtype=self.dtype, device=device
        )
        self._call = call_options(self.pipe, self.options)
        self._resolution = self.options.resolution or own_resolution(self.pipe)
        self._readers = readers(self.pipe, self._call.get("max_sequence_length"))

    def describe(self) -> Mapping[str, Any]:
        """Return what decides the pixels, besides the prompt and the seed."""
        import diffusers

        options = self.options
        return {
            "component": "text2image",
            "base": options.base,
            "revision": options.revision,
            "pipeline": type(self.pipe).__name__,
            "scheduler": type(self.pipe.scheduler).__name__,
            **self._call,
            "resolution": self._resolution,
            **{key: getattr(options, key) for key in ("max_pixels", "multiple", "watermark")},
            "safety_checker": getattr(self.pipe, "safety_checker", None) is not None,
            "dtype": self.dtype,
            "diffusers": diffusers.__version__,
            "torch": torch.__version__,
        }

    # ------------------------------------------------------------------ sampling

    def size_of(self, draw: Draw) -> tuple[int, int]:
        """Return the size that the prompt asks for.

        Raises:
            ConfigError: The condition is no prompt.
        """
        return _prompt(draw).size

    def _generate(self, draws: Sequence[Draw]) -> list[Sample | Refused]:
        asked = draws[0].condition.size
        options = self.options
        size = sampling_size(
            asked, multiple=options.multiple, resolution=self._resolution, max_pixels=options.max_pixels
        )
        self._look_at_lengths(draws)
        images, flagged = self._sample([_prompt(d).text for d in draws], size, [d.seed for d in draws])
        results: list[Sample | Refused] = []
        for draw, image, bad in zip(draws, images, flagged, strict=True):
            if bad or not np.isfinite(image).all():
                why = "the base's safety checker flagged the image" if bad else "the image is not finite"
                log.warning("%s is dropped: %s", draw.key, why)
                results.append(Refused(why))
                continue
            meta = {
                "prompt": _prompt(draw).text,
                "condition": dict(draw.condition.meta),
                "sampled_at": list(size),
                "cut": self._cuts[draw.condition.id],
            }
            pixels = np.rint(image * 255).astype(np.uint8)
            results.append(Sample(draw.key, resize_image(pixels, asked), meta=meta))
        return results

    @torch.inference_mode()
    def _sample(
        self, prompts: list[str], size: tuple[int, int], seeds: Sequence[int]
    ) -> tuple[np.ndarray, Sequence[bool]]:
        """Return images float ``[B, h, w, 3]`` in [0, 1] and the safety checker's flags.

        Raises:
            SampleError: The pipeline made images of another size, which it does without a word.
        """
        call = dict(self._call)
        if "negative_prompt" in call:
            call["negative_prompt"] = [call["negative_prompt"]] * len(prompts)
        out = self.pipe(
            prompt=prompts,
            height=size[0],
            width=size[1],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            **call,
        )
        images = np.asarray(out.images)
        if images.shape[1:3] != size:
            raise SampleError(
                f"{type(self.pipe).__name__} was asked for {size} and made {images.shape[1:3]} (height, width)",
                where="generator.multiple",
                hint=f"Set it to a multiple of what the base works in; it is {self.options.multiple}",
            )
        flags = (getattr(out, name, None) for name in ("nsfw_content_detected", "nsfw_detected"))  # the latter: IF
        return images, next((flagged for flagged in flags if flagged is not None), [False] * len(prompts))

    def _look_at_lengths(self, draws: Sequence[Draw]) -> None:
        """Warn once of each prompt that a text encoder cuts."""
        new = {}
        for draw in draws:
            if draw.condition.id not in self._cuts:
                found = cuts(self._readers, _prompt(draw).text)
                self._cuts[draw.condition.id] = found
                if found:
                    new[draw.condition.id] = found
        for sentence in warnings_of(self._readers, new):
            log.warning("%s", sentence)


def _prompt(draw: Draw) -> Prompt:
    if draw.condition.prompt is None:
        raise ConfigError(
            f"{draw.condition.id!r} is no prompt",
            where="conditions",
            allowed="a source of prompts: class-prompts, prompts or captions",
            hint="Add the key 'conditions', e.g. {format: class-prompts}",
        )
    return draw.condition.prompt
