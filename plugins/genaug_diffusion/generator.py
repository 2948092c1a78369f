"""What generators share that sample a frozen base model with something learned from the labelled samples."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from genaug.errors import ConfigError
from genaug.hub.reference import local_path
from genaug.interfaces import Generator
from genaug.labels import LabelSpace
from genaug.registry import Registry, default_registry
from genaug.types import Draw, Refused, Sample
from genaug_diffusion.base import load_pipeline, vae_factor
from genaug_diffusion.schedulers import training_scheduler
from genaug_diffusion.sizes import SizeMode

log = logging.getLogger("genaug")


class DiffusionOptions(Protocol):
    """The options that every such generator has."""

    @property
    def base(self) -> str: ...  # noqa: D102
    @property
    def revision(self) -> str | None: ...  # noqa: D102
    @property
    def adapter(self) -> str | None: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def safety_checker(self) -> bool: ...  # noqa: D102
    @property
    def resolution(self) -> int | None: ...  # noqa: D102
    @property
    def size_mode(self) -> SizeMode: ...  # noqa: D102
    def model_dump(self) -> dict[str, Any]: ...  # noqa: D102


class DiffusionGenerator(Generator):
    """A base pipeline that is loaded once, and the folder of an adapter.

    Args:
        options: Of the method.
        root: Folder that relative paths in `options` refer to.
        registry: Where the names of shipped base models are looked up.
        device: Torch device for adapting; `prepare` may name another for sampling.
    """

    options: DiffusionOptions

    #: Under a launcher every process takes its share of each step of adapting.
    adapts_in_parallel = True
    #: Options that an adapter was trained with; sampling with others is possible, and warned about.
    trained_with: tuple[str, ...] = ()

    def __init__(self, options: DiffusionOptions, *, root: Path | None, registry: Registry | None, device: str) -> None:
        self.options = options
        self.root, self.registry, self.device = root or Path(), registry or default_registry(), device
        self.batch_size = options.batch_size
        self.pipe: Any = None
        self._adapter_folder: Path | None = None

    # ------------------------------------------------------------------ the base

    @property
    def dtype(self) -> str:
        """Dtype of the frozen base: what the options say, or bfloat16 on CUDA and float32 elsewhere."""
        if self.options.dtype != "auto":
            return self.options.dtype
        return "bfloat16" if self.device.startswith("cuda") else "float32"

    def load_pipe(self) -> bool:
        """Load the base pipeline unless it is there; return True if it was loaded now."""
        if self.pipe is not None:
            return False
        self.pipe = load_pipeline(
            self.options.base,
            root=self.root,
            registry=self.registry,
            revision=self.options.revision,
            dtype=self.dtype,
            device=self.device,
            safety_checker=self.options.safety_checker,
        )
        self.resolution: int = self.options.resolution or self.pipe.unet.config.sample_size * vae_factor(self.pipe)
        self.training_scheduler = training_scheduler(self.pipe.scheduler.config)
        return True

    # ------------------------------------------------------------------ the adapter

    @property
    def needs_adapting(self) -> bool:
        """True unless the recipe names an adapter."""
        return self.options.adapter is None

    @property
    def adapter_folder(self) -> Path:
        """Folder of the adapter in use; one on the Hub is fetched when it is first asked for.

        Raises:
            ConfigError: No adapter was trained or named.
            HubError: It cannot be fetched, or is not safe to use.
        """
        if self._adapter_folder is None and self.options.adapter is not None:
            self._adapter_folder = local_path(self.options.adapter, self.root)
        if self._adapter_folder is None:
            raise ConfigError(
                "no adapter", where="generator.adapter", hint="Run 'genaug adapt' first, or name a folder"
            )
        return self._adapter_folder

    def warn_differences(self, labels: LabelSpace, trained: Mapping[str, Any]) -> None:
        """Warn about class names and options that the adapter was not trained with.

        Args:
            labels: Class table of the recipe.
            trained: ``genaug_config.json`` of the adapter.
        """
        strange = sorted(set(labels.names.values()) - set(trained["labels"]["names"].values()))
        folder = self.adapter_folder
        if strange:
            log.warning("%s: the adapter was not trained on these class names: %s", folder, ", ".join(strange))
        now = {**self.options.model_dump(), "resolution": self.resolution}
        for key in self.trained_with:
            if key in trained and trained[key] != now[key]:
                log.warning("%s: trained with %s %r, the recipe says %r", folder, key, trained[key], now[key])

    # ------------------------------------------------------------------ sampling

    def size_of(self, draw: Draw) -> tuple[int, int]:
        """Return one key for all conditions when images are square, the condition's own size otherwise."""
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

    @abstractmethod
    def _nothing_to_do(self, draw: Draw) -> str | None:
        """Return why there is no image to make for a draw, if so."""

    @abstractmethod
    def _sample(self, draws: Sequence[Draw]) -> Sequence[Sample | Refused]:
        """Sample one batch of draws that all have something to do."""
