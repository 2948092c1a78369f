"""The installed albumentations: 2.0.8 (MIT), or AlbumentationsX (AGPL), whose transforms draw by another hook."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from genaug.errors import missing_dependency, warn_caller

# Before the import, which would otherwise ask the package index for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
try:
    import albumentations as A
    from albumentations.core.transforms_interface import BaseTransformInitSchema
    from albumentations.core.type_definitions import Targets
except ImportError as error:
    raise missing_dependency("albumentations", "albumentations", where="genaug_albumentations") from error

__all__ = ["A", "BaseTransformInitSchema", "Hooks", "Targets"]

#: AlbumentationsX since 2.4 forbids the older hook, and gives workers different random numbers by itself.
NEW_HOOK = hasattr(A.BasicTransform, "sample_parameters")


class _Hooks:
    """What a transform decides once a call, by whichever hook the installed albumentations has."""

    def drawn(self, data: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        """Return what ``apply`` and ``apply_to_mask`` get as keywords; called only where the transform is applied.

        Args:
            data: Everything that the pipeline was called with.
            generator: The pipeline's stream, the only source of random numbers.
        """
        raise NotImplementedError


class _NewHooks(_Hooks):
    def sample_parameters(self, params: Any, data: Mapping[str, Any], targets: Any, sampling: Any) -> Any:  # noqa: ARG002
        """Draw, for AlbumentationsX."""
        from albumentations.core.transform_params import SampledParams

        return SampledParams(params=self.drawn(data, sampling.random_generator))


class _OldHooks(_Hooks):
    random_generator: np.random.Generator
    _seeded_by: int | None = None  # number of the process that seeded the stream last

    def get_params_dependent_on_data(self, params: Any, data: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Draw, for albumentations 2."""
        if self._seeded_by != os.getpid():
            self._seeded_by = os.getpid()  # tell it once
            if get_worker_info() is not None:
                warn_caller(
                    "albumentations 2.0.8 gives every worker, in every epoch, the same random numbers. Pass "
                    "worker_init_fn=genaug_albumentations.seed_worker, or wrap the dataset in TransformDataset"
                )
        return self.drawn(data, self.random_generator)

    def set_random_seed(self, seed: int | None) -> None:
        """Seed the stream, as pipelines do when they are made."""
        super().set_random_seed(seed)  # type: ignore[misc]
        self._seeded_by = os.getpid()

    def set_random_state(self, *arguments: Any, **keywords: Any) -> None:
        """Take the stream of the pipeline."""
        super().set_random_state(*arguments, **keywords)  # type: ignore[misc]
        self._seeded_by = os.getpid()


Hooks: Any = _NewHooks if NEW_HOOK else _OldHooks
