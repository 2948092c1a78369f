"""What models return, as predictions: tensors, dictionaries, tuples, transformers' outputs, class queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.errors import ConfigError, SampleError, warn_caller
from genaug.predictions import Kind, Predictions, full, query_confidence

#: Where dense outputs usually are: transformers, torchvision.
DENSE = ("logits", "out")
#: Where class queries usually are: transformers, the original Mask2Former.
QUERIES = (("class_queries_logits", "masks_queries_logits"), ("pred_logits", "pred_masks"))
#: Where the queries of the decoder's inner layers are: transformers, the original Mask2Former.
INNER_LAYERS = ("auxiliary_logits", "aux_outputs")

#: What errors say of the outputs of mask classifiers.
PAIR = "class logits [B, Q, K + 1] and mask logits [B, Q, h, w], or something that holds them"
#: How far sums of probabilities may be from 1; sums of bfloat16 numbers are that coarse.
SLACK = 0.1

#: Class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, h, w]`` of one decoder layer.
QueryLayer = tuple[Tensor, Tensor]
OutputKind = Literal["logits", "log_probs", "probs", "scores", "queries"]
QueryOrder = Literal["resize-scores", "resize-logits"]


class OutputReader:
    """Turns a model's output into `Predictions` of the images' size.

    Args:
        kind: What the numbers mean. ``queries`` is a pair of class logits ``[B, Q, K + 1]`` (the last is "no object")
            and mask logits ``[B, Q, h, w]``, which are projected to pixels. Never guessed: probabilities and logits
            cannot be told apart by looking.
        key: Entry of a dictionary, name of an attribute or number in a tuple; for queries a pair of them. By default
            a tensor is taken as it is, of a dictionary ``logits`` or ``out`` (for queries the names that transformers
            and Mask2Former use), and of a tuple the first entry (two for queries).
        order: For queries, whether the scores are resized (SENSE's code) or the mask logits before their sigmoid
            (Mask2Former's inference); the results differ.
        align_corners: How the model resizes; outputs at a lower stride are resized bilinearly.

    Raises:
        ConfigError: An unknown kind or order.
    """

    def __init__(
        self,
        kind: OutputKind,
        *,
        key: Any = None,
        order: QueryOrder = "resize-scores",
        align_corners: bool = False,
    ) -> None:
        for name, value, allowed in (("kind", kind, OutputKind), ("order", order, QueryOrder)):
            if value not in get_args(allowed):
                raise ConfigError(f"{value!r}", where=name, allowed=", ".join(get_args(allowed)))
        self.kind, self.key, self.order, self.align_corners = kind, key, order, align_corners

    def __call__(self, output: Any, size: tuple[int, int]) -> Predictions:
        """Read an output.

        Args:
            output: What the model returned.
            size: ``(height, width)`` of the result.

        Raises:
            SampleError: The output has another form; says what it holds.
        """
        if self.kind == "queries":
            classes, masks = self._pair(output)
            return project_queries(classes, masks, size, order=self.order, align_corners=self.align_corners)
        kind: Kind = self.kind
        return Predictions(self._dense(output), kind).resized(size, align_corners=self.align_corners)

    def layers(self, output: Any) -> list[QueryLayer]:
        """Return the queries of the last decoder layer, then those of the inner ones that the output holds.

        Raises:
            SampleError: The output has another form; says what it holds.
        """
        held = output if isinstance(output, Mapping) else {}
        inner = next((held[name] for name in INNER_LAYERS if held.get(name)), ())
        return [self._pair(output), *map(self._pair, inner)]

    def _dense(self, output: Any) -> Tensor:
        if self.key is not None:
            output = _entry(output, self.key)
        elif isinstance(output, Mapping):
            found = [name for name in DENSE if isinstance(output.get(name), Tensor)]
            if len(found) != 1:
                raise _strange(output, hint="Name the entry by 'key'")
            output = output[found[0]]
        elif isinstance(output, Sequence) and output:
            output = output[0]
        if not isinstance(output, Tensor):
            raise _strange(output, hint="Name the entry by 'key'")
        return output

    def _pair(self, output: Any) -> QueryLayer:
        if self.key is not None:
            classes, masks = (_entry(output, key) for key in self.key)
        elif isinstance(output, Mapping):
            names = next((pair for pair in QUERIES if all(name in output for name in pair)), None)
            if names is None:
                raise _strange(output, hint="Name them by 'key', a pair", allowed=PAIR)
            classes, masks = (output[name] for name in names)
        elif isinstance(output, Sequence) and len(output) >= 2:
            classes, masks = output[0], output[1]
        else:
            raise _strange(output, hint="Name them by 'key', a pair", allowed=PAIR)
        return classes, masks


def project_queries(
    class_logits: Tensor,
    mask_logits: Tensor,
    size: tuple[int, int],
    *,
    order: QueryOrder = "resize-scores",
    align_corners: bool = False,
) -> Predictions:
    """Project class queries to pixels: ``s_k = sum_q softmax(class_q)_k sigmoid(mask_q)``, "no object" dropped.

    Args:
        class_logits: float ``[B, Q, K + 1]``.
        mask_logits: float ``[B, Q, h, w]``.
        size: ``(height, width)`` of the result.
        order: See `OutputReader`.
        align_corners: Of the bilinear resizing.

    Returns:
        Scores ``[B, K, height, width]`` and, as image confidence, the mean over queries of their largest
        probability, "no object" included.
    """
    if class_logits.ndim != 3 or mask_logits.ndim != 4 or class_logits.shape[:2] != mask_logits.shape[:2]:
        found = f"class logits {tuple(class_logits.shape)}, mask logits {tuple(mask_logits.shape)}"
        raise SampleError(found, allowed="[B, Q, K + 1] and [B, Q, h, w]")
    # Autocast would sum over the queries in half precision, whose steps are 0.004 where thresholds are.
    with torch.autocast(mask_logits.device.type, enabled=False):
        classes, masks = full(class_logits).softmax(-1), full(mask_logits)
        if order == "resize-logits" and tuple(masks.shape[2:]) != tuple(size):
            masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=align_corners)
        scores = torch.einsum("bqk,bqhw->bkhw", classes[..., :-1], masks.sigmoid())
        made = Predictions(scores, "scores", query_confidence(class_logits), class_logits)
        return made.resized(size, align_corners=align_corners)


def warn_of_kind(predictions: Predictions) -> None:
    """Warn where numbers cannot be what they are said to be; logits can be anything but, surely, probabilities."""
    values, kind, finite = full(predictions.values.detach()), predictions.kind, predictions.finite()
    if not bool(finite.any()):
        return
    lowest = values.amin(1)[finite].amin()
    off = ((values.logsumexp(1).exp() if kind == "log_probs" else values.sum(1))[finite] - 1).abs().amax()
    if kind == "logits" and bool((lowest >= 0) & (off < 1e-3)):
        told = "the model returns probabilities: use kind='probs'"
    elif kind == "probs" and bool((lowest < 0) | (off > SLACK)):
        told = "the model's numbers are negative or do not sum to 1: use kind='logits' or kind='scores'"
    elif kind == "log_probs" and bool(off > SLACK):
        told = "the exponentials of the model's numbers do not sum to 1: use kind='logits'"
    elif kind == "scores" and bool(lowest < 0):
        told = "the model returns negative numbers: use kind='logits'"
    else:
        return
    warn_caller(f"kind={kind!r}, but {told}")


def _entry(output: Any, key: Any) -> Any:
    try:
        return getattr(output, key) if isinstance(key, str) and not isinstance(output, Mapping) else output[key]
    except (KeyError, IndexError, AttributeError, TypeError):
        raise _strange(output, hint=f"It has no entry {key!r}") from None


def _strange(
    output: Any, *, hint: str, allowed: str = "a tensor [B, K, h, w], or something that holds it"
) -> SampleError:
    found = type(output).__name__
    if isinstance(output, Mapping):
        found += f" with {', '.join(map(str, output))}"
    elif isinstance(output, Sequence):
        found += f" of {', '.join(type(item).__name__ for item in output)}"
    return SampleError(f"the model returned a {found}", allowed=allowed, hint=hint)
