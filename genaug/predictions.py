"""What a segmenter says about a batch, and what a labeler makes of it: torch tensors on the trainer's device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.errors import SampleError
from genaug.pieces import entropy_map, finite_map

#: ``scores`` are class scores of a mask classifier: not negative, they need not sum to 1 and may exceed it.
Kind = Literal["logits", "log_probs", "probs", "scores"]
#: Stands for a log-probability of -inf where arithmetic with -inf would give NaN; its exponential is 0.
IMPOSSIBLE = -1e4


@dataclass(frozen=True, slots=True)
class Predictions:
    """Dense class predictions. What the numbers mean is said, never guessed.

    Args:
        values: float ``[B, K, H, W]``, any float dtype.
        kind: ``logits``, ``log_probs``, ``probs`` (rows sum to 1) or ``scores`` (not negative, any sum).
        image_confidence: float ``[B]``, how sure a query model is of its queries on the whole; None elsewhere.
        query_logits: float ``[B, Q, K + 1]``, the class logits that it is the confidence of, for those who average
            several answers before they ask how sure they are; None elsewhere.

    Raises:
        SampleError: Another shape, dtype or kind.
    """

    values: Tensor
    kind: Kind
    image_confidence: Tensor | None = None
    query_logits: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SampleError(f"predictions of kind {self.kind!r}", allowed=", ".join(get_args(Kind)))
        if self.values.ndim != 4 or not self.values.is_floating_point():
            found = f"predictions {self.values.dtype} of shape {tuple(self.values.shape)}"
            raise SampleError(found, allowed="float [B, K, H, W]")

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.values.shape[1])

    def finite(self) -> Tensor:
        """Return bool ``[B, H, W]``: where no class has NaN or infinity (-inf is a log-probability)."""
        return finite_map(self.values, lowest=self.kind == "log_probs")

    def log_probs(self) -> Tensor:
        """Return log-probabilities ``[B, K, H, W]``, float32 (float64 stays), whose exponentials sum to 1.

        Scores are divided by their sum. A probability of 0 becomes the smallest positive one.
        """
        values = full(self.values)
        if self.kind == "logits":
            return values.log_softmax(1)
        if self.kind == "log_probs":
            return values
        tiny = torch.finfo(values.dtype).tiny
        if self.kind == "scores":
            values = values / values.sum(1, keepdim=True).clamp_min(tiny)
        return values.clamp_min(tiny).log()

    def probs(self) -> Tensor:
        """Return probabilities ``[B, K, H, W]``, float32 (float64 stays), that sum to 1."""
        values = full(self.values)
        if self.kind == "probs":
            return values
        return values.softmax(1) if self.kind == "logits" else self.log_probs().exp()

    def confidence(self) -> tuple[Tensor, Tensor]:
        """Return the largest probability float ``[B, H, W]`` and its class int64 ``[B, H, W]`` (a tie: any of them)."""
        values = full(self.values)
        top, classes = values.max(1)
        if self.kind == "logits":  # 1 / sum exp(z - max z): no need for the other K - 1 probabilities
            return (values - top.unsqueeze(1)).exp_().sum(1).reciprocal_(), classes
        if self.kind == "scores":
            return top / values.sum(1).clamp_min(torch.finfo(values.dtype).tiny), classes
        return (top.exp() if self.kind == "log_probs" else top), classes

    def entropy(self) -> Tensor:
        """Return the entropy float ``[B, H, W]`` in nats, in ``[0, ln K]``; NaN where the values are not finite.

        Without a gradient to keep, nothing of the size of the values is made.
        """
        if not (torch.is_grad_enabled() and self.values.requires_grad):
            return entropy_map(self.values, logarithmic=self.kind in ("logits", "log_probs"))
        log_probs = self.log_probs()
        return -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(1)

    def resized(self, size: tuple[int, int], *, align_corners: bool = False) -> Predictions:
        """Return predictions of another ``(height, width)``, resized bilinearly.

        Values are resized as they are; log-probabilities are normalised afterwards, so that they give what logits do.
        """
        if tuple(self.values.shape[2:]) == tuple(size):
            return self
        values, normalise = full(self.values), self.kind == "log_probs"
        if normalise:
            values = values.masked_fill(values == -torch.inf, IMPOSSIBLE)  # 0 * -inf would be NaN
        values = F.interpolate(values, size=size, mode="bilinear", align_corners=align_corners)
        return replace(self, values=values.log_softmax(1) if normalise else values)

    def map(self, function: Callable[[Tensor], Tensor]) -> Predictions:
        """Return predictions whose values ``[B, K, H, W]`` went through `function`."""
        return replace(self, values=function(self.values))


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """Target distributions, kept as K numbers beside the teacher's log-probabilities.

    The target of a pixel is ``softmax_j(log_probs_j / temperature + offsets_j)``, exact for entropic transport plans,
    so that no second tensor of that size is needed. Entries below `floor` (after the division) are exactly 0.

    Args:
        log_probs: float ``[B, K, H, W]``; -inf for impossible classes.
        offsets: float ``[K]``; -inf for classes without mass.
        temperature: Above 0.
        floor: Float, or a tensor without dimensions.
    """

    log_probs: Tensor
    offsets: Tensor
    temperature: float = 1.0
    floor: Tensor | float = -torch.inf

    def dense(self) -> Tensor:
        """Return the target distributions ``[B, K, H, W]``; a pixel without any possible class has NaN."""
        return self.exponents().softmax(1)

    def exponents(self) -> Tensor:
        """Return ``log_probs / temperature + offsets`` ``[B, K, H, W]``, -inf below the floor, in a new tensor."""
        scaled = self.log_probs / self.temperature
        if scaled.device.type != "cpu" or torch.compiler.is_compiling():  # nothing waits for the number
            scaled = scaled.masked_fill(scaled < self.floor, -torch.inf)
        elif self.floor != -torch.inf:  # 20 times faster there
            floor = torch.as_tensor(self.floor, dtype=scaled.dtype)
            below = torch.nextafter(floor, torch.full_like(floor, -torch.inf))
            scaled = F.threshold(scaled, float(below), -torch.inf)
        return scaled + self.offsets.view(1, -1, 1, 1)

    def map(self, function: Callable[[Tensor], Tensor]) -> SoftTargets:
        """Return targets whose log-probabilities ``[B, K, H, W]`` went through `function`."""
        return replace(self, log_probs=function(self.log_probs))

    def certain(self, classes: Tensor) -> Tensor:
        """Return log-probabilities ``[B, K, H, W]`` of one-hot targets for class indices int64 ``[B, H, W]``."""
        count = self.log_probs.shape[1]
        one_hot = F.one_hot(classes.clamp(0, count - 1), count).movedim(-1, 1).to(self.log_probs.dtype)
        return one_hot.log()


@dataclass(frozen=True, slots=True)
class PseudoTargets:
    """What a labeler answers.

    Args:
        hard: int64 ``[B, H, W]`` class indices, the ignore index where a pixel says nothing.
        weights: float32 ``[B, H, W]``, 0 where a pixel does not count.
        soft: Distributions to train towards instead of `hard`, or None.
        confidence: float32 ``[B, H, W]``, the teacher's largest probability, for figures.
        predicted: int64 ``[B, H, W]``, the teacher's own class, for figures.
    """

    hard: Tensor
    weights: Tensor
    soft: SoftTargets | None = None
    confidence: Tensor | None = None
    predicted: Tensor | None = None


def full(values: Tensor) -> Tensor:
    """Return `values` in float32 at least: half precision is too coarse for thresholds and sums."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def query_confidence(logits: Tensor) -> Tensor:
    """Return the mean over queries of their largest probability, ``[B]``, of class logits ``[B, Q, K + 1]``."""
    return full(logits).softmax(-1).amax(-1).mean(-1)
