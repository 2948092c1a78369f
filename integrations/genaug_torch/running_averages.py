"""Which forward passes of the student move the running averages of its BatchNorm layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def averages_held(model: nn.Module, *, held: bool) -> Iterator[None]:
    """Let layers in training mode normalise with the batch's own mean and variance, and leave their averages alone.

    The averages are what evaluation, and so the teacher, normalises with: passes over masked or mixed images, which
    nobody evaluates on, move them away from what whole images need. Covers BatchNorm and SyncBatchNorm of
    torch and what derives from them. A layer in evaluation mode (frozen) stays as it is. Activation checkpointing runs
    a second forward pass later, with the backward pass, which is not covered.

    Args:
        model: The student; wrapped by DistributedDataParallel or ``torch.compile`` is fine.
        held: False changes nothing.
    """
    layers = [
        layer
        for layer in model.modules()
        if held and isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats
    ]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
