"""Pixel losses whose normaliser is explicit, and the same over any number of processes."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions, SoftTargets, full
from genaug_torch.soft_loss import soft_losses

Normalizer = Literal["kept", "valid", "per_image_kept"]
Group = dist.ProcessGroup


def total(value: Tensor, group: Group | None) -> Tensor:
    """Return the sum of a tensor over the processes of `group`; every one of them must call."""
    if group is not None:
        value = value.detach().clone()
        dist.all_reduce(value, group=group)
    return value


def processes(group: Group | None) -> int:
    """Return how many processes share the work."""
    return 1 if group is None else dist.get_world_size(group)


def pixel_losses(
    predictions: Predictions, hard: Tensor, soft: SoftTargets | None = None, *, ignore_index: int = 255
) -> Tensor:
    """Return the cross-entropy of every pixel in nats, ``[B, H, W]``, 0 at ignored pixels.

    Args:
        predictions: The student's.
        hard: int64 ``[B, H, W]`` class indices.
        soft: Distributions to compare with instead; `hard` then only says which pixels are ignored.
        ignore_index: Label of ignored pixels.

    Raises:
        SampleError: Sizes or numbers of classes that differ, or a target that is no class (on a CPU).
    """
    images, _, *size = predictions.values.shape
    if tuple(hard.shape) != (images, *size):
        raise SampleError(f"targets of shape {tuple(hard.shape)}", where="loss", allowed=str((images, *size)))
    if soft is None:
        try:
            if predictions.kind == "logits":  # one fused pass, without log-probabilities in memory
                return F.cross_entropy(full(predictions.values), hard, ignore_index=ignore_index, reduction="none")
            return F.nll_loss(predictions.log_probs(), hard, ignore_index=ignore_index, reduction="none")
        except IndexError:  # a GPU says so itself, and cannot go on
            raise _no_such_class(hard, predictions.num_classes, ignore_index) from None
    values, shape = predictions.values, tuple(soft.log_probs.shape)
    if shape[1] != predictions.num_classes:
        found = f"targets of {shape[1]} classes for a model of {predictions.num_classes}"
        raise SampleError(found, where="loss", allowed="equal numbers")
    if shape != tuple(values.shape):
        raise SampleError(f"distributions of shape {shape}", where="loss", allowed=str(tuple(values.shape)))
    logits = predictions.kind == "logits"
    return soft_losses(values if logits else predictions.log_probs(), soft, hard == ignore_index, logits=logits)


def _no_such_class(hard: Tensor, classes: int, ignore_index: int) -> SampleError:
    named = hard[hard != ignore_index]
    return SampleError(
        f"targets from {int(named.min())} to {int(named.max())} for a model of {classes} classes",
        where="loss",
        allowed=f"0 to {classes - 1}, or the ignore index {ignore_index}",
    )


def reduce_losses(
    losses: Tensor,
    weights: Tensor,
    valid: Tensor | None = None,
    *,
    normalizer: Normalizer = "kept",
    group: Group | None = None,
) -> Tensor:
    """Reduce pixel losses ``[B, H, W]`` to one number; 0 with a gradient of 0 where nothing counts.

    * ``kept``: ``sum(w l) / sum(w)`` (SENSE).
    * ``valid``: ``sum(w l) / number of valid pixels`` (UniMatch).
    * ``per_image_kept``: the mean over images of ``sum(w l) / sum(w)`` (MaskMatch, eqs. 3, 6, 8).

    Over a process group the sums and counts are those of all processes. The result is scaled by their number, because
    DistributedDataParallel averages gradients: together they are the gradient that one process would have.

    Args:
        losses: float ``[B, H, W]``; values where the weight is 0 do not matter, NaN included.
        weights: float ``[B, H, W]``, not negative.
        valid: bool ``[B, H, W]``; all True by default.
        normalizer: See above.
        group: Processes that share the batch; every one must call.

    Raises:
        ConfigError: An unknown normalizer.
    """
    if normalizer not in get_args(Normalizer):
        raise ConfigError(f"{normalizer!r}", where="normalizer", allowed=", ".join(get_args(Normalizer)))
    weighted = torch.where(weights > 0, losses * weights, 0.0)
    scale = processes(group)
    if normalizer == "per_image_kept":
        images = weighted.sum((1, 2)) * inverse(weights.to(weighted.dtype).sum((1, 2)))
        return images.sum() * scale * inverse(total(weighted.new_tensor(float(len(weighted))), group))
    counted = weights if normalizer == "kept" else torch.ones_like(weights) if valid is None else valid
    return weighted.sum() * scale * inverse(total(counted.to(weighted.dtype).sum(), group))


def inverse(values: Tensor) -> Tensor:
    """Return ``1 / values``, and 0 where there is nothing to divide by."""
    return torch.where(values > 0, 1 / values, 0.0)


def unlabeled_loss(
    predictions: Predictions,
    batch: Batch,
    *,
    normalizer: Normalizer = "valid",
    ignore_index: int = 255,
    group: Group | None = None,
) -> Tensor:
    """Return the loss of a student's predictions against a pseudo-labelled batch; see `reduce_losses`.

    Raises:
        SampleError: The batch has no targets, or those of a teacher with another number of classes.
    """
    if batch.targets is None:
        raise SampleError("a batch without targets", hint="Label it first")
    if batch.predictions is not None and batch.predictions.num_classes != predictions.num_classes:
        found = f"the teacher has {batch.predictions.num_classes} classes, the student {predictions.num_classes}"
        raise SampleError(found, where="loss", allowed="equal numbers")
    losses = pixel_losses(predictions, batch.targets, batch.soft, ignore_index=ignore_index)
    weights = torch.ones_like(losses) if batch.weights is None else batch.weights
    weights = weights.masked_fill(batch.targets == ignore_index, 0.0)
    if batch.valid is not None:
        weights = weights.masked_fill(~batch.valid, 0.0)
    return reduce_losses(losses, weights, batch.valid, normalizer=normalizer, group=group)


def supervised_loss(
    predictions: Predictions,
    labels: Tensor,
    *,
    ignore_index: int = 255,
    ohem: tuple[float, int] | None = None,
    group: Group | None = None,
) -> Tensor:
    """Return the mean cross-entropy over labelled pixels.

    Args:
        predictions: The student's, ``[B, K, H, W]``.
        labels: int64 ``[B, H, W]`` class indices.
        ignore_index: Label of pixels that do not count.
        ohem: ``(threshold, min_kept)``: only pixels whose true class has a probability below the threshold count, but
            at least the `min_kept` hardest of this process (online hard example mining).
        group: Processes that share the batch.

    Raises:
        ConfigError: `ohem` out of range.
        SampleError: See `pixel_losses`.
    """
    losses = pixel_losses(predictions, labels, ignore_index=ignore_index)
    counts = labels != ignore_index
    if ohem is not None:
        threshold, least = ohem
        if not 0 < threshold <= 1 or least < 1:
            allowed = "a threshold above 0 and at most 1, and at least 1 pixel"
            raise ConfigError(f"({threshold:g}, {least})", where="ohem", allowed=allowed)
        hardness = losses.detach().masked_fill(~counts, -1.0).flatten()
        limit = hardness.topk(min(least, len(hardness))).values[-1]
        easiest = torch.tensor(threshold, device=losses.device, dtype=losses.dtype).log().neg()
        counts = counts & (losses.detach() >= torch.minimum(limit, easiest))
    return reduce_losses(losses, counts.to(losses.dtype), normalizer="kept", group=group)
