"""The labelers ``sense`` and ``sense-query``: targets that share the pixels of a batch out among the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from genaug.config import validate
from genaug.errors import ConfigError, SampleError
from genaug.interfaces import PseudoLabeler
from genaug.predictions import Predictions, PseudoTargets, full
from genaug_sense.config import QueryOptions, SenseOptions
from genaug_sense.functional import strongest, transport
from genaug_sense.tta import Teacher, averaged, joined

if TYPE_CHECKING:
    from genaug.recipe import BuildContext


class SenseLabeler(PseudoLabeler):
    """Optimal-transport pseudo-labels for models that predict pixel by pixel (SENSE, its DPT script).

    Pixels whose teacher is sure enough are kept; their targets are rows of the transport plan, as a distribution or as
    its best class. Takes predictions of any kind; scores are divided by their sum.

    Args:
        options: Keywords as in `genaug_sense.config.SenseOptions`, with the same defaults.

    Raises:
        ConfigError: An unknown keyword, or a value out of range.
    """

    options: SenseOptions | QueryOptions

    def __init__(self, **options: Any) -> None:
        self.options = validate(SenseOptions, options, where="labeler sense")
        self.multiple_of = self.options.multiple

    @classmethod
    def from_config(cls, options: SenseOptions, context: BuildContext) -> Self:
        """Build from a recipe's options.

        Raises:
            ConfigError: A marginal of another number of classes than the class table.
        """
        shares, classes = options.marginal, len(context.labels.ids)
        if shares is not None and len(shares) != classes:
            raise ConfigError(f"{len(shares)} shares", where="labeler.marginal", allowed=f"one for each of {classes}")
        return cls(**options.model_dump())

    def predict(self, teacher: Teacher, images: Tensor) -> Predictions:
        """Ask the teacher, also about flipped and scaled images where `tta` says so."""
        options = self.options
        aided = {"none": 0, "half": len(images) // 2, "full": len(images)}[options.tta]
        if aided == 0:
            return teacher(images)
        first = averaged(
            teacher,
            images[:aided],
            scales=options.scales,
            multiple=options.multiple,
            align_corners=options.align_corners,
        )
        return first if aided == len(images) else joined(first, teacher(images[aided:]))

    def label(
        self,
        predictions: Predictions,
        *,
        valid: Tensor | None = None,
        known: Tensor | None = None,
        ignore_index: int = 255,
        group: dist.ProcessGroup | None = None,
    ) -> PseudoTargets:
        """Turn predictions into targets; see `PseudoLabeler.label`.

        With ``ot_scope="all"`` padding is shared out like any other pixel, and ignored afterwards; pasted truth is not.
        """
        if valid is None or self.options.ot_scope != "all":
            return super().label(predictions, valid=valid, known=known, ignore_index=ignore_index, group=group)
        every = torch.ones_like(valid)
        targets = super().label(predictions, valid=every, known=known, ignore_index=ignore_index, group=group)
        return replace(
            targets,
            hard=targets.hard.masked_fill(~valid, ignore_index),
            weights=targets.weights.masked_fill(~valid, 0.0),
        )

    __call__ = label

    def _label(
        self, predictions: Predictions, valid: Tensor, ignore_index: int, group: dist.ProcessGroup | None
    ) -> PseudoTargets:
        options = self.options
        log_probs = self._log_probs(predictions)
        confidence, predicted = self._confidence(predictions, log_probs)
        sure = confidence >= options.threshold
        soft = transport(
            log_probs,
            valid=valid & sure if options.ot_scope == "kept" else valid,
            temperature=options.beta,
            iterations=options.iterations,
            support=options.support,
            min_pixels=options.min_pixels,
            marginal=None if options.marginal is None else torch.tensor(options.marginal, dtype=torch.float64),
            group=group,
        )
        entry, classes = strongest(soft)
        kept = (sure if options.gate == "pre" else entry >= options.threshold) & (entry > 0)
        return PseudoTargets(
            torch.where(kept, classes, ignore_index),
            kept.float(),
            soft if options.target == "soft" else None,
            confidence,
            predicted,
        )

    def _log_probs(self, predictions: Predictions) -> Tensor:
        """Return what the transport calls log-probabilities, ``[B, K, H, W]``."""
        return predictions.log_probs()

    def _confidence(self, predictions: Predictions, log_probs: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the teacher's largest probability and its class; from logits it would take twice the time."""
        return Predictions(log_probs, "log_probs").confidence()


class QuerySenseLabeler(SenseLabeler):
    """Optimal-transport pseudo-labels for mask classifiers such as Mask2Former (SENSE, its Mask2Former script).

    Takes scores ``sum_q softmax(class_q)_k sigmoid(mask_q)``. Hard targets are kept where the target's largest entry
    reaches the threshold, in images whose queries are sure enough on the whole.

    Args:
        options: Keywords as in `genaug_sense.config.QueryOptions`, with the same defaults.

    Raises:
        ConfigError: An unknown keyword, or a value out of range.
    """

    options: QueryOptions

    def __init__(self, **options: Any) -> None:
        self.options = validate(QueryOptions, options, where="labeler sense-query")
        self.multiple_of = self.options.multiple

    def _label(
        self, predictions: Predictions, valid: Tensor, ignore_index: int, group: dist.ProcessGroup | None
    ) -> PseudoTargets:
        targets = super()._label(predictions, valid, ignore_index, group)
        if self.options.image_gate is None:
            return targets
        if predictions.image_confidence is None:
            raise SampleError(
                "predictions without image_confidence",
                where="labeler sense-query",
                allowed="float [B], the mean confidence of an image's queries",
                hint="Read the model with kind='queries', or set image_gate to null",
            )
        unsure = (predictions.image_confidence < self.options.image_gate).view(-1, 1, 1)
        return replace(
            targets,
            hard=targets.hard.masked_fill(unsure, ignore_index),
            weights=targets.weights.masked_fill(unsure, 0.0),
        )

    def _log_probs(self, predictions: Predictions) -> Tensor:
        if predictions.kind != "scores":
            raise SampleError(
                f"predictions of kind {predictions.kind!r}",
                where="labeler sense-query",
                allowed="scores of a mask classifier",
                hint="For models that predict pixel by pixel use the labeler sense",
            )
        scores = full(predictions.values)
        if self.options.query_cost == "softmax_score":
            return scores.log_softmax(1)
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()

    def _confidence(self, predictions: Predictions, log_probs: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return predictions.confidence()
