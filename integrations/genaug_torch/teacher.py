"""The teacher: a running average of the student."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from genaug.errors import ConfigError, warn_caller
from genaug_torch.state import differences

Tensors = tuple[Tensor, ...] | list[Tensor]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel, DataParallel and ``torch.compile``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


class EmaTeacher:
    """A copy of a model whose weights follow it: ``teacher <- a * teacher + (1 - a) * student``.

    With `ramp`, ``a = min(1 - 1 / (t + 1), decay)`` at update t = 0, 1, ... (UniMatch-V2, SENSE), so the first update
    copies the student. Float buffers (BatchNorm's averages) follow the same rule, integer buffers are copied: averaging
    them, as some released code does, truncates and keeps counters where they are.

    Keep the weights in float32 (and use autocast): an average in half precision loses most of its small steps, of which
    a warning tells.

    Args:
        model: The student; wrapped by DistributedDataParallel or ``torch.compile`` is fine. Not changed.
        decay: In [0, 1]: 0 copies the student at every update, 1 never follows.
        ramp: See above.

    Raises:
        ConfigError: A decay out of range.
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.999, ramp: bool = True) -> None:
        if not 0 <= decay <= 1:
            raise ConfigError(f"{decay}", where="decay", allowed="0 to 1")
        coarse = {p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype.itemsize < 4}
        if coarse and 0 < decay < 1:
            found = f"weights in {', '.join(sorted(map(str, coarse)))}: their average hardly moves"
            warn_caller(f"{found}. Keep them in float32 and train under torch.autocast")
        self.decay, self.ramp, self._count = decay, ramp, 0
        self._average = AveragedModel(unwrap(model), multi_avg_fn=self._follow, use_buffers=True)
        self._average.requires_grad_(False).eval()
        if not ramp:
            self._average.n_averaged.fill_(1)  # at 0, AveragedModel copies whatever the decay is

    @property
    def model(self) -> nn.Module:
        """The teacher, in evaluation mode and without gradients; use it for evaluation and saving."""
        module: nn.Module = self._average.module
        return module

    @torch.no_grad()
    def __call__(self, images: Tensor) -> object:
        """Return what the teacher says about images ``[B, 3, H, W]``."""
        return self.model(images)

    def update(self, model: nn.Module) -> None:
        """Follow `model` by one step; call it after every step of the optimizer."""
        self._count = int(self._average.n_averaged)
        self._average.update_parameters(unwrap(model))

    def _follow(self, teacher: Tensors, student: Tensors, updates: Tensor | int) -> None:  # noqa: ARG002
        # `updates` lies where the weights are: to read it there, the CPU would wait for a GPU in every call.
        if not teacher[0].is_floating_point():
            torch._foreach_copy_(teacher, student)
            return
        decay = min(1 - 1 / (self._count + 1), self.decay) if self.ramp else self.decay
        torch._foreach_lerp_(teacher, student, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights, buffers and the number of updates."""
        state: dict[str, Tensor] = self._average.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            ConfigError: It is of another model; says what differs. The teacher is then as it was before.
        """
        before = copy.deepcopy(self._average.state_dict())
        try:
            self._average.load_state_dict(state)
        except Exception as error:  # torch copies all that fits before it tells what does not
            for name, value in self._average.state_dict().items():
                if isinstance(value, Tensor):
                    value.copy_(before[name])
            raise ConfigError(
                differences(before, state) or str(error),
                where="teacher",
                allowed="weights of this model's names and shapes",
                hint="Build the model as it was when the state was taken, with as many classes",
            ) from error
