"""Asks a predictor about numpy images: batches, mask size, class ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from genaug.batch import image_tensor
from genaug.errors import SampleError
from genaug.interfaces import Predictor
from genaug.labels import LabelSpace
from genaug.types import Group, Image


def stack_group(group: Group) -> tuple[list[Image], NDArray[np.uint8]]:
    """Return the K images ``[H, W, 3]`` and their masks ``[K, H, W]`` of a group.

    Raises:
        SampleError: A sample has no image or no mask, or their sizes differ.
    """
    images = [s.image for s in group.samples if s.image is not None]
    masks = [s.mask for s in group.samples if s.mask is not None]
    sizes = {a.shape[:2] for a in (*images, *masks)}
    if not images or len(images) != len(group.samples) or len(masks) != len(group.samples) or len(sizes) != 1:
        raise SampleError(
            f"{len(images)} images and {len(masks)} masks of sizes {sorted(sizes)} for {len(group.samples)} samples",
            where=f"group {group.id}",
            allowed="an image and a mask for each sample, all of one size",
        )
    return images, np.stack(masks)


class BatchedPredictor:
    """A predictor, asked a few images at a time and checked against the class table.

    Args:
        predictor: Images float32 ``[B, 3, H, W]`` in ``[0, 1]`` to logits ``[B, K, h, w]``; channel ``c`` belongs
            to ``labels.ids[c]``.
        labels: Class table.
        batch_size: Images per forward pass.
        device: Torch device the images are sent to.
    """

    def __init__(self, predictor: Predictor, *, labels: LabelSpace, batch_size: int = 8, device: str = "cpu") -> None:
        self.predictor = predictor
        self.labels = labels
        self.batch_size = batch_size
        self.device = device
        self._ids = np.array(labels.ids, np.uint8)

    def logits(self, images: Sequence[Image]) -> Iterator[torch.Tensor]:
        """Yield logits float32 ``[b, K, H, W]`` at the images' own size, b <= `batch_size`, in order.

        Logits of a lower resolution are resized bilinearly (``align_corners=False``) before anybody takes an
        argmax, as segmentation code bases evaluate.

        Args:
            images: N images uint8 ``[H, W, 3]`` of one size.

        Raises:
            SampleError: The predictor returns something else than one finite channel per class.
        """
        for start in range(0, len(images), self.batch_size):
            batch = image_tensor(np.stack(images[start : start + self.batch_size])).to(self.device)
            with torch.inference_mode():
                logits = self.predictor(batch)
                self._check(batch, logits)
                if logits.shape[2:] != batch.shape[2:]:
                    logits = F.interpolate(logits.float(), size=batch.shape[2:], mode="bilinear", align_corners=False)
            yield logits.float()

    def ids(self, images: Sequence[Image]) -> NDArray[np.uint8]:
        """Return the most likely class ids, uint8 ``[N, H, W]``; a tie goes to the smallest id."""
        parts = [logits.argmax(1).cpu().numpy() for logits in self.logits(images)]
        ids: NDArray[np.uint8] = self._ids[np.concatenate(parts)]
        return ids

    def confidence(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Return the softmax probability of the most likely class, float32 ``[N, H, W]`` in ``[0, 1]``."""
        return np.concatenate([_top_probability(logits) for logits in self.logits(images)])

    def ids_and_confidence(self, images: Sequence[Image]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return what `ids` and `confidence` return, in one pass."""
        parts = [(logits.argmax(1).cpu().numpy(), _top_probability(logits)) for logits in self.logits(images)]
        return self._ids[np.concatenate([p[0] for p in parts])], np.concatenate([p[1] for p in parts])

    def losses(self, images: Sequence[Image], masks: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the cross-entropy of every pixel against its mask's class, in nats.

        Args:
            images: N images uint8 ``[H, W, 3]`` of one size.
            masks: uint8 ``[N, H, W]``.

        Returns:
            float32 ``[N, H, W]``, 0 at pixels that are ignored or of no class.
        """
        targets = torch.from_numpy(self.channels(masks))
        parts, start = [], 0
        for logits in self.logits(images):
            target = targets[start : start + len(logits)].to(logits.device)
            loss = F.cross_entropy(logits, target, reduction="none", ignore_index=-1)
            parts.append(loss.cpu().numpy())
            start += len(logits)
        return np.concatenate(parts)

    def channels(self, mask: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the logit channel of every pixel's class; -1 where it is the ignore index or no class."""
        table = np.full(256, -1, np.int64)
        table[self._ids] = np.arange(len(self._ids))
        channels: NDArray[np.int64] = table[mask]
        return channels

    def _check(self, batch: torch.Tensor, logits: torch.Tensor) -> None:
        where = f"predictor {type(self.predictor).__name__}"
        if not isinstance(logits, torch.Tensor):
            raise SampleError(f"it returned a {type(logits).__name__}", where=where, allowed="a tensor [B, K, H, W]")
        expected = (len(batch), len(self._ids))
        if logits.ndim == 4 and len(logits) == len(batch) and logits.shape[1] != len(self._ids):
            raise SampleError(
                f"its logits have {logits.shape[1]} channels, the class table has {len(self._ids)} classes",
                where=where,
                allowed="one channel per class id, ascending",
                hint="Train the predictor on the classes of 'labels', or correct 'labels'",
            )
        if logits.ndim != 4 or tuple(logits.shape[:2]) != expected:
            raise SampleError(
                f"logits of shape {tuple(logits.shape)} for {len(batch)} images",
                where=where,
                allowed=f"[{expected[0]}, {expected[1]}, H, W]",
            )
        if not bool(torch.isfinite(logits).all()):
            raise SampleError("its logits hold NaN or infinity", where=where, allowed="finite numbers")


def _top_probability(logits: torch.Tensor) -> NDArray[np.float32]:
    """Return the largest softmax probability over the classes of ``[b, K, H, W]``."""
    # 1 / sum exp(l - max l): the largest probability without computing the other K - 1.
    top: NDArray[np.float32] = (logits - logits.amax(1, keepdim=True)).exp_().sum(1).reciprocal_().cpu().numpy()
    return top
