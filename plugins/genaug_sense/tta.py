"""The teacher asked about flipped and scaled images, answers averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from genaug.predictions import Predictions, full, query_confidence
from genaug.sizes import scaled_size

Teacher = Callable[[Tensor], Predictions]


def averaged(
    teacher: Teacher, images: Tensor, *, scales: Sequence[float], multiple: int = 1, align_corners: bool = False
) -> Predictions:
    """Return the mean of the teacher's answers to the images and their mirror images at several scales.

    Logits are averaged as logits, probabilities and scores as they are, and log-probabilities like logits.

    Args:
        teacher: Images ``[B, 3, H, W]`` to predictions of their size.
        images: float ``[B, 3, H, W]``.
        scales: Above 0.
        multiple: Scaled sizes are rounded to multiples of this; scale 1 stays what it is.
        align_corners: Of the bilinear resizing of images and answers.
    """
    size = (int(images.shape[2]), int(images.shape[3]))
    answers: list[Predictions] = []
    for scale in scales:
        scaled = images
        if scale != 1:
            changed = scaled_size(size, scale, multiple)
            scaled = F.interpolate(images, size=changed, mode="bilinear", align_corners=align_corners)
        plain, mirrored = teacher(scaled), teacher(scaled.flip(3)).map(lambda values: values.flip(3))
        answers += [answer.resized(size, align_corners=align_corners) for answer in (plain, mirrored)]
    return mean_of(answers)


def mean_of(answers: Sequence[Predictions]) -> Predictions:
    """Return the mean of predictions of one kind and size.

    The image confidence is that of the mean class logits, query by query (released code), or without them the mean.
    """
    values = full(answers[0].values).clone()
    for answer in answers[1:]:
        values += answer.values
    values /= len(answers)
    if answers[0].kind == "log_probs":
        values = values.log_softmax(1)
    confidences = [answer.image_confidence for answer in answers if answer.image_confidence is not None]
    logits = [full(answer.query_logits) for answer in answers if answer.query_logits is not None]
    confidence = None
    if len(logits) == len(answers):
        confidence = query_confidence(torch.stack(logits).mean(0))
    elif len(confidences) == len(answers):
        confidence = torch.stack(confidences).mean(0)
    return replace(answers[0], values=values, image_confidence=confidence, query_logits=None)


def joined(first: Predictions, second: Predictions) -> Predictions:
    """Return predictions of one kind for two parts of a batch as those of the whole."""
    confidence = None
    if first.image_confidence is not None and second.image_confidence is not None:
        confidence = torch.cat([first.image_confidence, second.image_confidence])
    values = torch.cat([first.values, full(second.values)])
    return replace(first, values=values, image_confidence=confidence, query_logits=None)
