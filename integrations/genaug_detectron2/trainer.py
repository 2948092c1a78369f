"""DefaultTrainer with a recipe, and the section of its configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.engine import DefaultTrainer, hooks
from torch import nn

from genaug.errors import warn_caller
from genaug_detectron2.hook import SelfTraining
from genaug_detectron2.mapper import DRAWN, Mapper, SyntheticMapper


def add_genaug_config(cfg: Any) -> None:
    """Add the section ``GENAUG`` to a configuration; touches nothing else. Call it before files are merged.

    * ``RECIPE``: name or file of a recipe; empty trains without one.
    * ``OVERRIDES``: ``dotted.key=value`` changes of the recipe.
    * ``UNLABELED``: names of registered datasets; their labels are not read.
    * ``IMS_PER_BATCH``: unlabelled images of all processes a step; 0 takes ``SOLVER.IMS_PER_BATCH``.
    * ``EVAL_TEACHER``: evaluate the teacher whenever the model is, as ``teacher/...``.
    * ``SYNTHETIC``: name of a dataset that `register_store` made; empty draws nothing.
    * ``PROBABILITY``, ``MATCH``: of a synthetic sample in a real one's place, see `SyntheticMapper`.
    * ``SEED``: of the unlabelled stream and the synthetic draws. The recipe has a seed of its own.
    """
    cfg.GENAUG = CfgNode()
    cfg.GENAUG.RECIPE = ""
    cfg.GENAUG.OVERRIDES = []
    cfg.GENAUG.UNLABELED = ()
    cfg.GENAUG.IMS_PER_BATCH = 0
    cfg.GENAUG.EVAL_TEACHER = True
    cfg.GENAUG.SYNTHETIC = ""
    cfg.GENAUG.PROBABILITY = 0.5
    cfg.GENAUG.MATCH = "any"
    cfg.GENAUG.SEED = 0


class SelfTrainingMixin:
    """Put before ``DefaultTrainer`` among the bases of a trainer; `add_genaug_config` says what it does then.

    ``build_hooks`` gets `SelfTraining` and the teacher's evaluation. ``build_train_loader`` draws synthetic samples; a
    trainer with a ``build_train_loader`` of its own, or of another base, wraps its mapper:
    ``SyntheticMapper.from_config(cfg, mapper)``. Its augmentations go into ``build_unlabeled_mapper``, too.
    """

    cfg: Any
    data_loader: Any
    test: Callable[..., Any]

    def build_hooks(self) -> list[Any]:
        """Return the hooks of the trainer, with those of the recipe in the right places."""
        synthetic = self.cfg.GENAUG.SYNTHETIC
        if synthetic and synthetic not in DRAWN:  # the loader was built before
            found = f"GENAUG.SYNTHETIC is {synthetic!r}, but the loader has no mapper that draws from it"
            warn_caller(f"{found}. In build_train_loader: mapper = SyntheticMapper.from_config(cfg, mapper)")
        ready: list[Any] = super().build_hooks()  # type: ignore[misc]  # of DefaultTrainer
        options = self.cfg.GENAUG
        mapper = self.build_unlabeled_mapper(self.cfg) if options.RECIPE and options.UNLABELED else None
        if mapper is not None and self._prepares_alike(mapper) is False:
            found = "the labelled images have a mapper of their own, the unlabelled ones DatasetMapper(cfg)"
            hint = "Override build_unlabeled_mapper, to return DatasetMapper(cfg) if that is meant"
            warn_caller(f"{found}: they are not augmented alike. {hint}")
        hook = SelfTraining.from_config(self.cfg, mapper)
        if hook is None:
            return ready
        # Before whatever saves and evaluates, so that it sees the teacher after the step.
        late = (hooks.PeriodicCheckpointer, hooks.EvalHook, hooks.PeriodicWriter)
        place = next((n for n, other in enumerate(ready) if isinstance(other, late)), len(ready))
        ready.insert(place, hook)
        if self.cfg.GENAUG.EVAL_TEACHER:
            writer = next((n for n, other in enumerate(ready) if isinstance(other, hooks.PeriodicWriter)), len(ready))
            ready.insert(writer, hook.eval_hook(self.cfg.TEST.EVAL_PERIOD, self._test_teacher))
        return ready

    def _test_teacher(self, teacher: nn.Module) -> Any:
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "teacher")  # evaluators write there
        return self.test(cfg, teacher)

    def _prepares_alike(self, unlabeled: Mapper) -> bool | None:
        """Return whether labelled images have the mapper of the unlabelled ones; None if chosen so, or not known."""
        own = type(self).build_unlabeled_mapper.__func__  # type: ignore[attr-defined]  # of a class method
        labeled = _mapper_of(self.data_loader)
        if own is not SelfTrainingMixin.build_unlabeled_mapper.__func__ or labeled is None:  # type: ignore[attr-defined]
            return None
        return _told(labeled) == _told(unlabeled)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        """Return the loader of the other bases; if it is detectron2's, `SyntheticMapper` wraps its mapper if needed."""
        later = cls.__mro__[cls.__mro__.index(SelfTrainingMixin) + 1 :]
        owner = next(base for base in later if "build_train_loader" in vars(base))
        if owner is not DefaultTrainer or not cfg.GENAUG.SYNTHETIC:
            return super().build_train_loader(cfg)  # type: ignore[misc]
        return build_detection_train_loader(cfg, mapper=SyntheticMapper.from_config(cfg))

    @classmethod
    def build_unlabeled_mapper(cls, cfg: Any) -> Mapper:
        """Return the mapper of unlabelled images, ``DatasetMapper(cfg)``; it finds no ``sem_seg_file_name``.

        Override it where the labelled images have another mapper, so that both are augmented alike.
        """
        mapper: Mapper = DatasetMapper(cfg, is_train=True)
        return mapper


def _mapper_of(loader: Any) -> Mapper | None:
    """Return what a loader maps dataset dictionaries with; None where it is not of detectron2's form, nor ours."""
    found: Any = None
    held = loader
    while held is not None:
        parts = getattr(held, "__dict__", {})
        found = parts.get("_map_func", parts.get("mapper", found))  # the innermost: others put batches together
        held = parts.get("dataset", parts.get("_dataset"))
    while (inner := getattr(found, "__dict__", {}).get("_obj")) is not None or isinstance(found, SyntheticMapper):
        found = found.mapper if inner is None else inner
    mapper: Mapper | None = found
    return mapper


def _told(mapper: Mapper) -> tuple[type, str]:
    """Return what tells mappers apart: class and arguments, as far as these say what they are."""
    return type(mapper), re.sub(r" at 0x\w+", "", repr(getattr(mapper, "__dict__", mapper)))
