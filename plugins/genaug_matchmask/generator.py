"""The generator ``matchmask``: K images for every mask, from a base model and an LT-Adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genaug.labels import LabelSpace
from genaug.recipe import BuildContext
from genaug.registry import Registry
from genaug.rng import Rng
from genaug.types import Draw, Refused, Sample
from genaug_diffusion.base import vae_factor
from genaug_diffusion.generator import DiffusionGenerator
from genaug_diffusion.guidance import late_guidance
from genaug_diffusion.images import resize_image
from genaug_diffusion.schedulers import DEFAULT_STEPS, make_scheduler
from genaug_diffusion.sizes import generation_size
from genaug_diffusion.starting_noise import StartingNoise, first_signal
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.adapter_files import FORMAT
from genaug_matchmask.checkpoint import load_adapter, load_starting, weights_fingerprint
from genaug_matchmask.condition import LayoutConditioner
from genaug_matchmask.config import MatchMaskOptions


class MatchMaskGenerator(DiffusionGenerator):
    """New images for existing masks (MatchMask; sampling as its section on generation: PLMS 50, guidance 2).

    Args:
        options: See `MatchMaskOptions`.
        root: Folder that relative paths in `options` refer to.
        registry: Where the names of shipped base models are looked up.
        device: Torch device for adapting; `prepare` may name another for sampling.
    """

    options: MatchMaskOptions
    trained_with = ("resolution", "size_mode", "mask_downsample", "overflow", "background")

    def __init__(
        self,
        options: MatchMaskOptions | None = None,
        *,
        root: Path | None = None,
        registry: Registry | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(options or MatchMaskOptions(), root=root, registry=registry, device=device)
        self.samples_per_condition = self.options.images_per_mask
        self.adapter: LTAdapter | None = None
        self.starting: StartingNoise | None = None

    @classmethod
    def from_config(cls, options: MatchMaskOptions, context: BuildContext) -> MatchMaskGenerator:
        """Build from a recipe."""
        return cls(options, root=context.root, registry=context.registry, device=context.device)

    # ------------------------------------------------------------------ models

    def load_base(self, labels: LabelSpace) -> None:
        """Load the base pipeline once, and build the conditioner for `labels`."""
        if self.load_pipe():
            self.pipe.scheduler = make_scheduler(self.options.preset, self.pipe.scheduler.config)
        self.conditioner = LayoutConditioner(self.pipe, labels, self.options)

    def prepare(self, labels: LabelSpace, *, device: str = "cpu") -> None:
        """Load the base and the adapter; both stay loaded until another device or adapter is asked for.

        Settings that the adapter was trained with and that differ now are warned about.

        Raises:
            ConfigError: No adapter was trained or named.
            AdapterError: The adapter does not fit the base.
        """
        if device != self.device:
            self.device, self.pipe, self.adapter = device, None, None
        self.load_base(labels)
        if self.adapter is not None:
            return
        folder = self.adapter_folder
        self.warn_differences(labels, FORMAT.read(folder))
        self.starting = load_starting(folder) if self.options.start_spread else None
        self.adapter = load_adapter(self.pipe.unet, folder, base=self.options.base)
        self.pipe.unet.requires_grad_(False).eval()

    # ------------------------------------------------------------------ adapting (Adaptable)

    def adapted(self, folder: str | Path) -> bool:
        """Return True if `folder` holds an adapter trained with these options."""
        from genaug_matchmask.training import is_adapted

        return is_adapted(self, Path(folder))

    def adapt(
        self, samples: Sequence[Sample], folder: str | Path, *, labels: LabelSpace, rng: Rng
    ) -> Mapping[str, Any]:
        """Train the adapter on labelled samples; see `genaug_matchmask.training.adapt`."""
        from genaug_matchmask.training import adapt

        return adapt(self, samples, Path(folder), labels=labels, rng=rng)

    def load_adapted(self, folder: str | Path) -> None:
        """Use the adapter in `folder` from the next `prepare` on."""
        if self.adapter is not None:
            self.adapter.detach()
            self.adapter = None
        self._adapter_folder = Path(folder)

    def probe(
        self, samples: Sequence[Sample], folder: Path, *, labels: LabelSpace, rng: Rng, **settings: Any
    ) -> Mapping[str, Any]:
        """Find the layers that matter (`genaug.interfaces.Probeable`); see `genaug_matchmask.probe_report`."""
        from genaug_matchmask.probe_report import write_probe

        # Always in float32: bfloat16 weights cannot hold the small changes that a probe measures.
        options = self.options.model_copy(update={"dtype": "float32"})
        exact = MatchMaskGenerator(options, root=self.root, registry=self.registry, device=self.device)
        return write_probe(exact, samples, folder, labels=labels, rng=rng, **settings)

    # ------------------------------------------------------------------ sampling

    def describe(self) -> Mapping[str, Any]:
        """Return what decides the pixels, besides the mask and the seed."""
        import diffusers

        options = self.options
        return {
            "component": "matchmask",
            "base": options.base,
            "revision": options.revision,
            "adapter": weights_fingerprint(self.adapter_folder),
            **{key: getattr(options, key) for key in self.trained_with if key != "resolution"},
            "unknown_class": options.unknown_class,
            "preset": options.preset,
            "steps": self.steps,
            "guidance_scale": options.guidance_scale,
            "guidance_start": options.guidance_start,
            "start_spread": options.start_spread,
            "resolution": self.resolution,
            "dtype": self.dtype,
            "diffusers": diffusers.__version__,
            "torch": torch.__version__,
        }

    @property
    def steps(self) -> int:
        """Sampling steps."""
        return self.options.steps or DEFAULT_STEPS[self.options.preset]

    def _nothing_to_do(self, draw: Draw) -> str | None:
        mask = draw.condition.mask
        if mask is None:
            return "the condition has no mask"
        if (mask == self.conditioner.labels.ignore_index).all():
            return "every pixel of the mask is ignored"
        prompt = self.conditioner.prompt(mask, where=f"sample {draw.key}")
        if (self.conditioner.supervising(mask, prompt) == self.conditioner.labels.ignore_index).all():
            return "no class of the mask could be conditioned"
        if self.options.skip_no_foreground and self.conditioner.no_foreground(mask):
            return "the mask shows nothing but background"
        return None

    def _sample(self, draws: Sequence[Draw]) -> list[Sample | Refused]:
        """Sample one batch; unconditional rows have no layout, so both their attentions would be the same."""
        masks = [d.condition.mask for d in draws if d.condition.mask is not None]
        prompts = [self.conditioner.prompt(m, where=f"sample {d.key}") for m, d in zip(masks, draws, strict=True)]
        size = generation_size(draws[0].condition.size, self.resolution, self.options.size_mode)
        images, flagged = self.sample_images(masks, prompts, size, [d.seed for d in draws])
        results: list[Sample | Refused] = []
        for draw, mask, prompt, image, bad in zip(draws, masks, prompts, images, flagged, strict=True):
            if bad or image is None:
                why = "the base's safety checker flagged the image" if bad else "the image is not finite"
                results.append(Refused(why))
                continue
            meta = {"prompt_classes": sorted({int(c) for c in prompt.token_class if c >= 0}), "dropped": prompt.dropped}
            target = self.conditioner.supervising(mask, prompt)
            results.append(Sample(draw.key, resize_image(image, draw.condition.size), target, meta))
        return results

    @torch.inference_mode()
    def sample_images(
        self, masks: Sequence[np.ndarray], prompts: Sequence[Any], size: tuple[int, int], seeds: Sequence[int]
    ) -> tuple[list[np.ndarray | None], list[bool]]:
        """Return uint8 images ``[h, w, 3]`` (None where not finite), and the safety checker's flags."""
        embed = self.conditioner.embed
        unconditional = self.conditioner.empty().expand(len(prompts), -1, -1)
        out = self.pipe(
            prompt_embeds=torch.stack([embed(p.input_ids) for p in prompts]),
            height=size[0],
            width=size[1],
            num_inference_steps=self.steps,
            **self._noise(size, [torch.Generator().manual_seed(seed) for seed in seeds]),
            cross_attention_kwargs={"layout": self.conditioner.masks(masks, prompts, size, vae_factor(self.pipe))},
            output_type="np",
            **late_guidance(self.options.guidance_scale, self.options.guidance_start, unconditional),
        )
        finite = [bool(np.isfinite(image).all()) for image in out.images]
        images = [np.rint(x * 255).astype(np.uint8) if ok else None for x, ok in zip(out.images, finite, strict=True)]
        return images, list(out.nsfw_content_detected or [False] * len(images))

    def _noise(self, size: tuple[int, int], generators: list[torch.Generator]) -> dict[str, Any]:
        """Return what the pipeline starts from: its own noise, or noise that carries light and colours."""
        spread = self.options.start_spread
        if not spread:
            return {"generator": generators}
        assert self.starting is not None  # `prepare` or `adapt` ran
        factor, signal = vae_factor(self.pipe), first_signal(self.pipe.scheduler, self.steps)
        cells = size[0] // factor, size[1] // factor
        drawn = [self.starting.draw(cells, each, signal=signal, spread=spread) for each in generators]
        return {"latents": torch.stack(drawn).to(self.pipe.device, self.pipe.unet.dtype), "generator": generators}
