"""The generator ``scribblegen``: images for scribbles, from a base model, a ControlNet and a null condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genaug.errors import SampleError
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import Registry
from genaug.rng import Rng
from genaug.types import Draw, Image, Mask, Refused, Sample
from genaug_diffusion.base import vae_factor
from genaug_diffusion.generator import DiffusionGenerator
from genaug_diffusion.images import resize_image, resize_mask
from genaug_diffusion.latents import encode_moments, prediction_type
from genaug_diffusion.sizes import generation_size
from genaug_diffusion.text import PromptEncoder
from genaug_scribblegen.adapter_files import FORMAT
from genaug_scribblegen.checkpoint import load_adapter, weights_fingerprint
from genaug_scribblegen.codec import make_codec
from genaug_scribblegen.config import ScribbleGenOptions
from genaug_scribblegen.network import ScribbleNetwork, check_base_takes_controlnet
from genaug_scribblegen.prompt import ScribblePrompt, ScribblePrompter
from genaug_scribblegen.sampling import Schedule, sample


class ScribbleGenGenerator(DiffusionGenerator):
    """New images for scribbles, near to the real image or far from it as the encode ratio says (ScribbleGen).

    Image number k of a scribble has the encode ratio ``levels[k // images_per_scribble]``, which its ``meta`` repeats:
    a store holds one set of images per level.

    Args:
        options: See `ScribbleGenOptions`.
        root: Folder that relative paths in `options` refer to.
        registry: Where the names of shipped base models are looked up.
        device: Torch device for adapting; `prepare` may name another for sampling.
    """

    options: ScribbleGenOptions
    trained_with = ("resolution", "size_mode", "prompt", "class_names")

    def __init__(
        self,
        options: ScribbleGenOptions | None = None,
        *,
        root: Path | None = None,
        registry: Registry | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(options or ScribbleGenOptions(), root=root, registry=registry, device=device)
        self.samples_per_condition = len(self.options.levels) * self.options.images_per_scribble
        self.network: ScribbleNetwork | None = None
        self._loaded_for: LabelSpace | None = None
        #: Latents of the real images of the latest batch: images of one scribble come one after the other.
        self._references: dict[int, tuple[Image, tuple[int, int], Tensor]] = {}

    @classmethod
    def from_config(cls, options: ScribbleGenOptions, context: BuildContext) -> ScribbleGenGenerator:
        """Build from a recipe."""
        return cls(options, root=context.root, registry=context.registry, device=context.device)

    # ------------------------------------------------------------------ models

    def load_base(self, labels: LabelSpace) -> None:
        """Load the base pipeline once, and what turns scribbles of `labels` into conditions.

        Raises:
            ConfigError: The base cannot be loaded, cannot have a ControlNet, or predicts something unknown.
        """
        if self.load_pipe():
            check_base_takes_controlnet(self.pipe, self.options.base)
            options = self.options
            self.schedule = Schedule(
                self.training_scheduler.alphas_cumprod.float(),
                kind=prediction_type(self.training_scheduler),
                steps=options.steps,
                mode=options.steps_mode,
                grid=options.grid,
                leak_at_one=options.leak_at_one,
            )
            self.encoder = PromptEncoder(self.pipe)
            self._references = {}
        self.labels, self.codec = labels, make_codec(self.options.hint, labels)
        self.prompter = ScribblePrompter(self.encoder, labels, self.options)

    def prepare(self, labels: LabelSpace, *, device: str = "cpu") -> None:
        """Load base and adapter; both stay loaded until another device, class table or adapter is asked for.

        Settings that the adapter was trained with and that differ now are warned about.

        Raises:
            ConfigError: No adapter was trained or named.
            AdapterError: The adapter does not fit the base or the class table.
        """
        if device != self.device:
            self.device, self.pipe, self.network = device, None, None
        self.load_base(labels)
        if self.network is not None and self._loaded_for == labels:
            return
        folder = self.adapter_folder
        self.warn_differences(labels, FORMAT.read(folder))
        self.network = load_adapter(self.pipe, folder, self.codec, labels, base=self.options.base)
        self._loaded_for = labels

    # ------------------------------------------------------------------ adapting (Adaptable)

    def adapted(self, folder: str | Path) -> bool:
        """Return True if `folder` holds an adapter trained with these options."""
        from genaug_scribblegen.training import is_adapted

        return is_adapted(self, Path(folder))

    def adapt(
        self, samples: Sequence[Sample], folder: str | Path, *, labels: LabelSpace, rng: Rng
    ) -> Mapping[str, Any]:
        """Train the ControlNet on scribbled samples; see `genaug_scribblegen.training.adapt`."""
        from genaug_scribblegen.training import adapt

        return adapt(self, samples, Path(folder), labels=labels, rng=rng)

    def load_adapted(self, folder: str | Path) -> None:
        """Use the adapter in `folder` from the next `prepare` on."""
        self.network = None
        self._adapter_folder = Path(folder)

    # ------------------------------------------------------------------ sampling

    def describe(self) -> Mapping[str, Any]:
        """Return what decides the pixels, besides the scribble, its image, the seed and the encode ratio."""
        import diffusers

        options = self.options
        return {
            "component": "scribblegen",
            "base": options.base,
            "revision": options.revision,
            "adapter": weights_fingerprint(self.adapter_folder),
            **{
                key: getattr(options, key)
                for key in ("size_mode", "hint", "prompt", "class_names", "unknown_class", "steps", "steps_mode",
                            "grid", "leak_at_one", "guidance_scale")
            },
            "resolution": self.resolution,
            "dtype": self.dtype,
            "diffusers": diffusers.__version__,
            "torch": torch.__version__,
        }  # fmt: skip

    def ratio_of(self, draw: Draw) -> float:
        """Return the encode ratio of a draw."""
        return self.options.levels[draw.k // self.options.images_per_scribble]

    def _nothing_to_do(self, draw: Draw) -> str | None:
        mask = draw.condition.mask
        if mask is None:
            return "the condition has no scribble"
        # Checked here, so that an unknown id is told before anything is sampled.
        prompt = self._prompt(draw)
        if self.options.skip_unlabelled:
            if not np.isin(mask, self.labels.ids).any():
                return "nothing is scribbled"
            labels, _ = self._labels(draw, mask, prompt)
            if (labels == self.labels.ignore_index).all():
                height, width = self._size(draw)
                return f"no stroke is left of the scribble at {width}x{height} pixels"
        return None

    def _size(self, draw: Draw) -> tuple[int, int]:
        return generation_size(draw.condition.size, self.resolution, self.options.size_mode)

    def _prompt(self, draw: Draw) -> ScribblePrompt:
        assert draw.condition.mask is not None  # `_nothing_to_do`
        return self.prompter.prompt(draw.condition.mask, size=self._size(draw), where=f"sample {draw.key}")

    def _labels(self, draw: Draw, mask: Mask, prompt: ScribblePrompt) -> tuple[Mask, int]:
        return self.prompter.supervising(mask, prompt, size=self._size(draw), where=f"sample {draw.key}")

    def _sample(self, draws: Sequence[Draw]) -> list[Sample | Refused]:
        assert self.network is not None  # `prepare` ran
        ratios = [self.ratio_of(draw) for draw in draws]
        images, flagged = self.sample_images(self.network, draws, ratios)
        results: list[Sample | Refused] = []
        for draw, ratio, image, bad in zip(draws, ratios, images, flagged, strict=True):
            if bad or image is None:
                why = "the base's safety checker flagged the image" if bad else "the image is not finite"
                results.append(Refused(why))
                continue
            assert draw.condition.mask is not None  # `_nothing_to_do`
            prompt = self._prompt(draw)
            target, lost = self._labels(draw, draw.condition.mask, prompt)
            lacking = {"unnamed": list(prompt.unnamed), "dropped": list(prompt.dropped), "lost_strokes": lost}
            meta = {"encode_ratio": ratio, "prompt": prompt.text, **lacking}
            results.append(Sample(draw.key, resize_image(image, draw.condition.size), target, meta))
        return results

    @torch.inference_mode()
    def sample_images(
        self, network: ScribbleNetwork, draws: Sequence[Draw], ratios: Sequence[float]
    ) -> tuple[list[Image | None], list[bool]]:
        """Return uint8 images ``[h, w, 3]`` (None where not finite), and the safety checker's flags.

        Args:
            network: ControlNet, null condition and UNet.
            draws: Conditions with scribbles, and with images where their encode ratio needs one; sizes agree.
            ratios: Encode ratio of every draw.

        Raises:
            SampleError: A condition lacks the image that its encode ratio needs.
        """
        pipe, options = self.pipe, self.options
        size = self._size(draws[0])
        masks = [draw.condition.mask for draw in draws if draw.condition.mask is not None]
        prompts = [self._prompt(draw).text for draw in draws]
        text = torch.stack([self.encoder.embed(self.encoder.tokens(prompt)) for prompt in prompts])
        hints = self.codec.encode(torch.stack([resize_mask(mask, size) for mask in masks]).to(pipe.device))
        latents = sample(
            network,
            self.schedule,
            self._starts(draws, ratios, size).to(pipe.device),
            text.to(pipe.device),
            hints,
            ratios,
            weight=options.guidance_scale - 1,
        )
        decoded = pipe.vae.decode((latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype)).sample
        decoded, flagged = pipe.run_safety_checker(decoded, pipe.device, pipe.vae.dtype)
        if flagged is None:
            decoded = pipe.image_processor.postprocess(decoded, output_type="np")
            flagged = [False] * len(draws)
        else:  # flagged ones are black already, in [0, 1], and are refused
            decoded = pipe.image_processor.postprocess(
                decoded, output_type="np", do_denormalize=[not f for f in flagged]
            )
        images = [np.rint(x * 255).astype(np.uint8) if np.isfinite(x).all() else None for x in decoded]
        return images, list(flagged)

    def _starts(self, draws: Sequence[Draw], ratios: Sequence[float], size: tuple[int, int]) -> Tensor:
        """Return what every draw's sampling starts from, float32 ``[B, C, h, w]``, on the CPU."""
        shape = (self.pipe.unet.config.in_channels, *(side // vae_factor(self.pipe) for side in size))
        used: dict[int, tuple[Image, tuple[int, int], Tensor]] = {}
        starts = []
        for draw, ratio in zip(draws, ratios, strict=True):
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(draw.seed))
            reference = self._reference(draw, ratio, size, used) if self.schedule.needs_reference(ratio) else None
            starts.append(self.schedule.start(ratio, noise, reference))
        self._references = used or self._references
        return torch.stack(starts)

    def _reference(self, draw: Draw, ratio: float, size: tuple[int, int], used: dict[int, Any]) -> Tensor:
        """Return the latents of the draw's real image, encoded alone so that they do not depend on the batch."""
        image = draw.condition.image
        if image is None:
            raise SampleError(
                f"no real image, which encode ratio {ratio} starts from",
                where=f"sample {draw.key}",
                allowed="conditions with images",
                hint="Give the folder of the images too, or set generator.encode_ratio: 1.0",
            )
        key = id(image)
        kept = used.get(key) or self._references.get(key)
        # The array is kept beside its latents, so that its id cannot come to mean another one.
        if kept is None or kept[0] is not image or kept[1] != size:
            mean, _ = encode_moments(self.pipe.vae, resize_image(image, size))
            kept = (image, size, mean * self.pipe.vae.config.scaling_factor)
        used[key] = kept
        return kept[2]
