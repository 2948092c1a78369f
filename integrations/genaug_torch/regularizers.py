"""Losses of the user's own on what the student says of labelled images, for pixels that have no label above all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions
from genaug_torch.losses import Group, inverse, processes, total


@dataclass(frozen=True, slots=True)
class LabeledOutput:
    """What a regularizer sees of one step: labelled images, and what the student says of them.

    Args:
        images: float32 ``[B, 3, H, W]`` in ``[0, 1]``, the normalisation undone.
        predictions: The student's, float32 ``[B, K, H, W]`` (float64 stays), with gradients.
        labels: int64 ``[B, H, W]`` class indices, or `ignore_index`.
        valid: bool ``[B, H, W]``, False where an image is padding.
        ignore_index: Label of pixels that have none.
        output: What the student returned, for losses that look at its features.
    """

    images: Tensor
    predictions: Predictions
    labels: Tensor
    valid: Tensor
    ignore_index: int
    output: object


class Regularizer(Protocol):
    """A loss beside the labelled one: RLoss, tree energy and their like.

    It returns a tensor of one number, of any device and float type, the mean over the images of the batch: then
    processes with batches of different sizes have the gradients of one process. It runs in float32, outside autocast.
    """

    def __call__(self, seen: LabeledOutput, /) -> Tensor:
        """Return the loss."""
        ...


#: A regularizer, or its weight and the regularizer.
Given = Regularizer | tuple[float, Regularizer]


class Regularizers:
    """Named regularizers and their weights.

    Args:
        given: Name -> regularizer, or ``(weight, regularizer)``; the weight is 1 by default.
        taken: Names that other losses of the step have.

    Raises:
        ConfigError: A name that is taken or no name, a weight below 0, or something that cannot be called.
    """

    def __init__(self, given: Mapping[str, Given], taken: Collection[str]) -> None:
        if not isinstance(given, Mapping):
            raise ConfigError(f"a {type(given).__name__}", where="regularizers", allowed="name -> regularizer")
        self._parts = {name: _part(name, value, taken) for name, value in given.items()}
        self._looked = False  # at the first values

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __call__(self, seen: LabeledOutput, *, group: Group | None) -> dict[str, Tensor]:
        """Return the weighted loss of every regularizer, by name.

        Over a process group each is scaled by this process's share of the images times the number of processes,
        because DistributedDataParallel averages gradients.

        Args:
            seen: Of this process.
            group: Processes that share the batch; every one must call.

        Raises:
            ConfigError: A regularizer did not return a tensor of one number.
            SampleError: It returned NaN or infinity for finite predictions. On a GPU only the first step is looked at.
        """
        if not self._parts:
            return {}
        values = seen.predictions.values
        count = values.new_tensor(float(len(values)))
        share = processes(group) * count * inverse(total(count, group))
        found: dict[str, Tensor] = {}
        with torch.autocast(values.device.type, enabled=False):
            for name, (weight, part) in self._parts.items():
                loss = _one_number(part(seen), name).to(values)
                if values.device.type == "cpu" or not self._looked:
                    _check_finite(loss, seen.predictions, name)
                found[name] = weight * share * loss
        self._looked = True
        return found


def _part(name: Any, given: Any, taken: Collection[str]) -> tuple[float, Regularizer]:
    if not isinstance(name, str) or not name or name in taken:
        found = f"{name!r}, which another loss has" if name in taken else f"{name!r}"
        raise ConfigError(found, where="regularizers", allowed="a name of its own for every regularizer")
    where = f"regularizers.{name}"
    pair = isinstance(given, tuple) and len(given) == 2
    weight, part = given if pair else (1.0, given)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise ConfigError(f"weight {weight!r}", where=where, allowed="a number from 0")
    if not callable(part):
        raise ConfigError(f"a {type(part).__name__}", where=where, allowed="a function, or (weight, function)")
    return float(weight), part


def _one_number(value: object, name: str) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        return value.reshape(())
    found = type(value).__name__
    if isinstance(value, Tensor):
        found = f"{value.dtype} of shape {tuple(value.shape)}"
    raise ConfigError(
        f"returned {found}",
        where=f"regularizers.{name}",
        allowed="a float tensor of one number, the mean over the images",
        hint="Reduce it, e.g. by mean(); numbers that are no tensors have no gradient",
    )


def _check_finite(loss: Tensor, predictions: Predictions, name: str) -> None:
    """Refuse losses that are no numbers, unless the predictions are none either: that has another cause."""
    if bool(torch.isfinite(loss.detach())) or not bool(predictions.finite().all()):
        return
    raise SampleError(
        f"returned {loss.item()} for finite predictions",
        where=f"regularizers.{name}",
        allowed="a finite number",
        hint="A division by a count of pixels that is 0, or the logarithm of 0? A batch may lack labels altogether",
    )
