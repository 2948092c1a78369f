"""The generator ``matchmask``: K images for every mask, from a base model and an LT-Adapter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genaug.errors import ConfigError
from genaug.interfaces import Generator
from genaug.labels import LabelSpace
from genaug.recipe import BuildContext, digest
from genaug.registry import Registry, default_registry
from genaug.rng import Rng
from genaug.types import Draw, Refused, Sample
from genaug_diffusion.base import load_pipeline, vae_factor
from genaug_diffusion.images import generation_size, resize_image
from genaug_diffusion.schedulers import DEFAULT_STEPS, make_scheduler, training_scheduler
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.checkpoint import load_adapter, read_config
from genaug_matchmask.condition import LayoutConditioner
from genaug_matchmask.config import MatchMaskOptions

log = logging.getLogger("genaug")


class MatchMaskGenerator(Generator):
    """New images for existing masks (MatchMask; sampling as its section on generation: PLMS 50, guidance 2).

    Args:
        options: See `MatchMaskOptions`.
        root: Folder that relative paths in `options` refer to.
        registry: Where the names of shipped base models are looked up.
        device: Torch device for adapting; `prepare` may name another for sampling.
    """

    def __init__(
        self,
        options: MatchMaskOptions | None = None,
        *,
        root: Path | None = None,
        registry: Registry | None = None,
        device: str = "cpu",
    ) -> None:
        self.options = options or MatchMaskOptions()
        self.root, self.registry, self.device = root or Path(), registry or default_registry(), device
        self.batch_size = self.options.batch_size
        self.samples_per_condition = self.options.images_per_mask
        self.pipe: Any = None
        self.adapter: LTAdapter | None = None
        self._adapter_folder = None if self.options.adapter is None else self.root / self.options.adapter

    @classmethod
    def from_config(cls, options: MatchMaskOptions, context: BuildContext) -> MatchMaskGenerator:
        """Build from a recipe."""
        return cls(options, root=context.root, registry=context.registry, device=context.device)

    # ------------------------------------------------------------------ models

    @property
    def dtype(self) -> str:
        """Dtype of the frozen base: what the options say, or bfloat16 on CUDA and float32 elsewhere."""
        if self.options.dtype != "auto":
            return self.options.dtype
        return "bfloat16" if self.device.startswith("cuda") else "float32"

    def load_base(self, labels: LabelSpace) -> None:
        """Load the base pipeline and build the conditioner, once."""
        if self.pipe is not None:
            return
        self.pipe = load_pipeline(
            self.options.base,
            root=self.root,
            registry=self.registry,
            revision=self.options.revision,
            dtype=self.dtype,
            device=self.device,
            safety_checker=self.options.safety_checker,
        )
        self.resolution = self.options.resolution or self.pipe.unet.config.sample_size * vae_factor(self.pipe)
        self.training_scheduler = training_scheduler(self.pipe.scheduler.config)
        self.pipe.scheduler = make_scheduler(self.options.preset, self.pipe.scheduler.config)
        self.conditioner = LayoutConditioner(self.pipe, labels, self.options)

    def prepare(self, labels: LabelSpace, *, device: str = "cpu") -> None:
        """Load the base and the adapter.

        Raises:
            ConfigError: No adapter was trained or named.
            AdapterError: The adapter does not fit the base or this recipe's class table.
        """
        self.device = device
        self.load_base(labels)
        if self.adapter is not None:
            return
        if self._adapter_folder is None:
            raise ConfigError(
                "no adapter", where="generator.adapter", hint="Run 'genaug adapt' first, or name a folder"
            )
        self._warn_other_labels(labels, self._adapter_folder)
        self.adapter = load_adapter(self.pipe.unet, self._adapter_folder, base=self.options.base)
        for parameter in self.adapter.parameters():
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(self.pipe.unet.dtype)
        self.pipe.unet.eval()

    def _warn_other_labels(self, labels: LabelSpace, folder: Path) -> None:
        trained = {int(i): n for i, n in read_config(folder)["labels"]["names"].items()}
        strange = sorted(set(labels.names.values()) - set(trained.values()))
        if strange:
            log.warning("%s: the adapter was not trained on these class names: %s", folder, ", ".join(strange))

    # ------------------------------------------------------------------ adapting (Adaptable)

    #: Under a launcher every process takes its share of each step.
    adapts_in_parallel = True

    @property
    def needs_adapting(self) -> bool:
        """True unless the recipe names an adapter."""
        return self.options.adapter is None

    def adapted(self, folder: Path) -> bool:
        """Return True if `folder` holds an adapter trained with these options."""
        from genaug_matchmask.training import is_adapted

        return is_adapted(self, folder)

    def adapt(self, samples: Sequence[Sample], folder: Path, *, labels: LabelSpace, rng: Rng) -> Mapping[str, Any]:
        """Train the adapter on labelled samples; see `genaug_matchmask.training.adapt`."""
        from genaug_matchmask.training import adapt

        return adapt(self, samples, folder, labels=labels, rng=rng)

    def load_adapted(self, folder: Path) -> None:
        """Use the adapter in `folder` from the next `prepare` on."""
        self._adapter_folder = folder

    def probe(
        self, samples: Sequence[Sample], folder: Path, *, labels: LabelSpace, rng: Rng, **settings: Any
    ) -> Mapping[str, Any]:
        """Find the layers that matter (`genaug.interfaces.Probeable`); see `genaug_matchmask.probe_report`."""
        from genaug_matchmask.probe_report import write_probe

        return write_probe(self, samples, folder, labels=labels, rng=rng, **settings)

    # ------------------------------------------------------------------ sampling

    def describe(self) -> Mapping[str, Any]:
        """Return what decides the pixels, besides the mask and the seed."""
        import diffusers

        assert self._adapter_folder is not None  # `prepare` ran
        options = self.options
        return {
            "component": "matchmask",
            "base": options.base,
            "revision": options.revision,
            "adapter": digest(read_config(self._adapter_folder)),
            "preset": options.preset,
            "steps": self.steps,
            "guidance_scale": options.guidance_scale,
            "resolution": self.resolution,
            "dtype": self.dtype,
            "diffusers": diffusers.__version__,
            "torch": torch.__version__,
        }

    @property
    def steps(self) -> int:
        """Sampling steps."""
        return self.options.steps or DEFAULT_STEPS[self.options.preset]

    def size_of(self, draw: Draw) -> tuple[int, int]:
        """Return one key for all masks when images are square, the mask's own size otherwise."""
        return (0, 0) if self.options.size_mode == "square" else draw.condition.size

    def _generate(self, draws: Sequence[Draw]) -> Sequence[Sample | Refused]:
        results: dict[int, Sample | Refused] = {}
        todo: list[int] = []
        for position, draw in enumerate(draws):
            reason = self._nothing_to_do(draw)
            if reason is None:
                todo.append(position)
            else:
                results[position] = Refused(reason)
        if todo:
            results |= dict(zip(todo, self._sample([draws[i] for i in todo]), strict=True))
        return [results[i] for i in range(len(draws))]

    def _nothing_to_do(self, draw: Draw) -> str | None:
        mask = draw.condition.mask
        if mask is None:
            return "the condition has no mask"
        if (mask == self.conditioner.labels.ignore_index).all():
            return "every pixel of the mask is ignored"
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
            if bad:
                results.append(Refused("the base's safety checker flagged the image"))
                continue
            meta = {"prompt_classes": sorted({int(c) for c in prompt.token_class if c >= 0}), "dropped": prompt.dropped}
            target = self.conditioner.supervising(mask, prompt)
            results.append(Sample(draw.key, resize_image(image, draw.condition.size), target, meta))
        return results

    @torch.inference_mode()
    def sample_images(
        self, masks: Sequence[np.ndarray], prompts: Sequence[Any], size: tuple[int, int], seeds: Sequence[int]
    ) -> tuple[list[np.ndarray], list[bool]]:
        """Return uint8 images ``[h, w, 3]`` at generation size, and the safety checker's flags."""
        embed = self.conditioner.embed
        out = self.pipe(
            prompt_embeds=torch.stack([embed(p.input_ids) for p in prompts]),
            negative_prompt_embeds=self.conditioner.empty().expand(len(prompts), -1, -1),
            height=size[0],
            width=size[1],
            num_inference_steps=self.steps,
            guidance_scale=self.options.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            cross_attention_kwargs={"layout": self.conditioner.masks(masks, prompts, size, vae_factor(self.pipe))},
            output_type="np",
        )
        images = [np.rint(image * 255).astype(np.uint8) for image in out.images]
        return images, list(out.nsfw_content_detected or [False] * len(images))
