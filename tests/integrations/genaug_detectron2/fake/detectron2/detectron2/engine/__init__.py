from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase, SimpleTrainer, TrainerBase
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model

__all__ = ["DefaultTrainer", "HookBase", "SimpleTrainer", "TrainerBase", "hooks"]


class DefaultTrainer(TrainerBase):
    """Hooks sit here, but the work is done by `_trainer`, so ``after_backward`` of these hooks is never called."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        model = self.build_model(cfg)
        optimizer = torch.optim.SGD(model.parameters(), cfg.SOLVER.BASE_LR, momentum=0.9, weight_decay=1e-4)
        self._trainer = SimpleTrainer(model, self.build_train_loader(cfg), optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.max_iter, self.cfg = cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    @property
    def model(self) -> Any:
        return self._trainer.model

    @model.setter
    def model(self, value: Any) -> None:
        self._trainer.model = value

    @property
    def data_loader(self) -> Any:
        return self._trainer.data_loader

    def resume_or_load(self, resume: bool = True) -> None:
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1

    def build_hooks(self) -> list[Any]:
        return [
            hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD),
            hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, lambda: self.test(self.cfg, self.model)),
            hooks.PeriodicWriter(self.build_writers(), period=20),
        ]

    def build_writers(self) -> list[Any]:
        return []

    def train(self) -> None:
        Path(self.cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        super().train(self.start_iter, self.max_iter)

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: Any) -> torch.nn.Module:
        return build_model(cfg)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: Any, dataset_name: str) -> Any:
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> Any:
        raise NotImplementedError

    @classmethod
    def test(cls, cfg: Any, model: torch.nn.Module, evaluators: Any = None) -> dict[str, Any]:
        results = {
            name: inference_on_dataset(model, cls.build_test_loader(cfg, name), cls.build_evaluator(cfg, name))
            for name in cfg.DATASETS.TEST
        }
        return next(iter(results.values())) if len(results) == 1 else results
