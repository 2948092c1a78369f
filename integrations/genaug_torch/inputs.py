"""What a step is called with, looked at before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genaug.errors import SampleError

Views = Tensor | Sequence[Tensor]


def check_labeled(images: Tensor, labels: Tensor, valid: Tensor | None) -> None:
    """Refuse labelled images whose shapes or types do not fit.

    Raises:
        SampleError: As above.
    """
    if labels.ndim != 3 or images.ndim != 4 or (len(images), *images.shape[2:]) != tuple(labels.shape):
        found = f"images {tuple(images.shape)}, labels {tuple(labels.shape)}"
        raise SampleError(found, allowed="[B, 3, H, W] and [B, H, W]")
    _check_float(images, "images")
    if labels.dtype != torch.int64:
        raise SampleError(f"labels of type {labels.dtype}", allowed="int64 class indices", hint="Use labels.long()")
    if valid is not None and (valid.dtype != torch.bool or valid.shape != labels.shape):
        found = f"labeled_valid of type {valid.dtype}, shape {tuple(valid.shape)}"
        raise SampleError(found, allowed=f"bool {tuple(labels.shape)}")


def check_classes(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuse labels that are neither a class nor the ignore index; a GPU has to wait for it.

    Raises:
        SampleError: As above.
    """
    classes = labels[labels != ignore_index]
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= num_classes):
        raise SampleError(
            f"labels from {int(classes.min())} to {int(classes.max())}",
            allowed=f"0 to {num_classes - 1}, or the ignore index {ignore_index}",
        )


def weak_and_strong(unlabeled: Views | None, *, made_here: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return weak views and strong ones or None; loaders make lists of what datasets give as tuples.

    Args:
        unlabeled: What the step was called with.
        made_here: The step makes the weak views, of which strong ones made before would not have the geometry.

    Raises:
        SampleError: There are none, or they have no such form.
    """
    where = "SemiSupervisedStep"
    if unlabeled is None:
        raise SampleError("no unlabelled images", where=where, hint="Pass them as 'unlabeled'")
    views = [unlabeled] if isinstance(unlabeled, Tensor) else list(unlabeled)
    shapes = [tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__ for view in views]
    if len(views) not in {1, 2} or len(shapes[0]) != 4 or len(set(shapes)) != 1:
        raise SampleError(
            f"unlabelled images of shape {', '.join(map(str, shapes)) or 'none'}",
            where=where,
            allowed="[M, 3, H, W], or a pair of weak and strong views of that shape",
        )
    if not len(views[0]):
        raise SampleError("no unlabelled image in the batch", where=where, allowed="at least one")
    if made_here and len(views) == 2:
        hint = "Pass the images alone, or set views.weak to none"
        raise SampleError("strong views of images whose weak views are made here", where=where, hint=hint)
    for view in views:
        _check_float(view, "unlabelled images")
    return views[0], views[1] if len(views) == 2 else None


def _check_float(images: Tensor, name: str) -> None:
    if not images.is_floating_point():
        hint = "Use images.float() / 255" if images.dtype == torch.uint8 else None
        raise SampleError(f"{name} of type {images.dtype}", allowed="floating point", hint=hint)
