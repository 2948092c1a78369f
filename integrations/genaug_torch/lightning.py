"""A Lightning callback that keeps a `SemiSupervisedStep`: its teacher follows, and is in every checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback
from torch import nn

from genaug.errors import ConfigError
from genaug_torch.step import SemiSupervisedStep


class SelfTraining(Callback):  # type: ignore[misc]
    """Makes the step when fitting begins, as the module's attribute ``self_training``, which ``training_step`` calls.

    Automatic optimization; the teacher follows after every step of the optimizer, also with accumulated gradients.
    A checkpoint holds the teacher and the step's counters, and a run that goes on takes them up. Under
    DistributedDataParallel losses count all processes; use SyncBatchNorm, as buffers are not shared.

    Args:
        step: Makes the step, e.g. ``partial(SemiSupervisedStep, recipe="upc", kind="logits", num_classes=21)``.
        student: Attribute of the module that is the model to train.

    Raises:
        ConfigError: When fitting begins: the module has no such attribute, or another step has left the state.
    """

    def __init__(self, step: Callable[..., SemiSupervisedStep], *, student: str = "model") -> None:
        self._make, self._student = step, student
        self._state: dict[str, Any] | None = None
        self._steps = 0
        self.step: SemiSupervisedStep | None = None

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Make the step; the model is on its device, and a checkpoint's weights are in it."""
        model = getattr(module, self._student, None)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"the module has no model {self._student!r}", where="SelfTraining", allowed="its name")
        # Lightning wraps its own module, so the model cannot tell who shares the batch.
        group = dist.group.WORLD if trainer.world_size > 1 else None
        self.step = module.self_training = self._make(model, group=group)
        if self._state is not None:
            self.step.load_state_dict(self._state)

    def on_train_start(self, trainer: Any, module: Any) -> None:  # noqa: ARG002
        """Remember where the optimizer is."""
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Let the teacher follow if the optimizer has stepped."""
        if self.step is not None and trainer.global_step != self._steps:
            self._steps = trainer.global_step
            self.step.update()

    def state_dict(self) -> dict[str, Any]:
        """Return what `SemiSupervisedStep.state_dict` does, for the checkpoint."""
        return {} if self.step is None else self.step.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until fitting begins."""
        self._state = state_dict or None
