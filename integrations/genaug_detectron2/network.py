"""A detectron2 model as a plain network, and its inputs as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from detectron2.structures import ImageList
from torch import Tensor, nn

from genaug.errors import ConfigError, SampleError

Inputs = Sequence[Mapping[str, Any]]


class Network(nn.Module):
    """The part of a model that segments, as a module: images to logits, or to the queries of a mask classifier.

    detectron2's models return losses while they train and nothing else, so this asks backbone and head directly, as the
    model itself does: ``sem_seg_head.layers(backbone(images))``. That is how SemanticSegmentor, the semantic half of
    PanopticFPN, DeepLabV3+ (not plain DeepLabV3), MaskFormer and Mask2Former are made.

    Shape: ``[B, 3, H, W]``, normalised as the model does it but RGB, whatever the model's channel order, so that strong
    views know red from blue. Any size: images are padded to what the backbone divides, and outputs are cropped.

    Args:
        model: Not wrapped by DistributedDataParallel; shared, not copied.
        image_format: Channel order of the model, ``cfg.INPUT.FORMAT``.
        ignore_index: Label that is no class; by default the head's ``ignore_value``, else 255.

    Raises:
        ConfigError: A model that is not made like that, or another format.
    """

    model: Any  # a module whose parts are known by their names alone

    def __init__(self, model: nn.Module, *, image_format: str, ignore_index: int | None = None) -> None:
        super().__init__()
        if image_format not in {"RGB", "BGR"}:
            raise ConfigError(f"{image_format!r}", where="image_format", allowed="'RGB' or 'BGR'")
        lacking = [name for name in ("backbone", "sem_seg_head", "pixel_mean", "pixel_std") if not hasattr(model, name)]
        self.model = model
        if lacking or not callable(getattr(self.model.sem_seg_head, "layers", None)):
            found = f"a {type(model).__name__} without {', '.join(lacking) or 'sem_seg_head.layers'}"
            allowed = "a model for semantic segmentation: SemanticSegmentor, PanopticFPN, MaskFormer and their like"
            raise ConfigError(found, where="model", allowed=allowed)
        self.flipped = image_format == "BGR"
        ignored = getattr(self.model.sem_seg_head, "ignore_value", 255) if ignore_index is None else ignore_index
        self.ignore_index = int(ignored)

    @property
    def kind(self) -> Literal["logits", "queries"]:
        """What the outputs are; a model with queries says how many it has."""
        return "queries" if hasattr(self.model, "num_queries") else "logits"

    @property
    def mean(self) -> list[float]:
        """Of the normalisation, RGB, for images in [0, 1]."""
        return self._channels("pixel_mean")

    @property
    def std(self) -> list[float]:
        """Likewise."""
        return self._channels("pixel_std")

    def forward(self, images: Tensor) -> Any:
        """Return what the head says, at its own stride, or at the images' size if they had to be padded."""
        own = images.flip(1) if self.flipped else images
        padded = self._pad(list(own)).tensor
        output = self.model.sem_seg_head.layers(self.model.backbone(padded))
        if padded.shape == own.shape:
            return output
        before, size = (int(padded.shape[2]), int(padded.shape[3])), (int(own.shape[2]), int(own.shape[3]))
        return _cropped(output, before, size)

    def prepare(self, labeled: Inputs, unlabeled: Inputs) -> tuple[Prepared, Prepared]:
        """Make tensors of inputs as mappers give them, all padded to one size at the right and below.

        Args:
            labeled: Dictionaries with ``image`` (any numeric type, 0 to 255, ``[3, H, W]``) and, if there are labels,
                ``sem_seg`` ``[H, W]``.
            unlabeled: Dictionaries with ``image``.

        Raises:
            SampleError: Labels of another size than their image.
        """
        device = self.model.pixel_mean.device
        images = [
            (entry["image"].to(device) - self.model.pixel_mean) / self.model.pixel_std
            for entry in (*labeled, *unlabeled)
        ]
        padded = self._pad(images)
        valid = torch.zeros(len(images), *padded.tensor.shape[2:], dtype=torch.bool, device=device)
        labels = torch.full(valid.shape, self.ignore_index, device=device)
        for number, (h, w) in enumerate(padded.image_sizes):
            valid[number, :h, :w] = True
        for number, entry in enumerate(labeled):
            truth = entry.get("sem_seg")
            if truth is None:
                continue
            h, w = padded.image_sizes[number]
            if tuple(truth.shape) != (h, w):
                found = f"labels of size {tuple(truth.shape)} for an image of {(h, w)}"
                raise SampleError(found, where=str(entry.get("file_name")))
            labels[number, :h, :w] = truth.to(device)
        tensor = padded.tensor.flip(1) if self.flipped else padded.tensor
        count = len(labeled)
        return (
            Prepared(tensor[:count], valid[:count], labels[:count]),
            Prepared(tensor[count:], valid[count:], labels[count:]),
        )

    def _pad(self, images: list[Tensor]) -> Any:
        if hasattr(self.model, "size_divisibility"):  # MaskFormer's own; it does not ask the backbone
            return ImageList.from_tensors(images, self.model.size_divisibility)
        backbone = self.model.backbone
        divisor, constraints = getattr(backbone, "size_divisibility", 0), getattr(backbone, "padding_constraints", None)
        return ImageList.from_tensors(images, divisor, padding_constraints=constraints)

    def _channels(self, name: str) -> list[float]:
        values = [float(value) / 255 for value in getattr(self.model, name).flatten()]
        if len(values) != 3:
            raise ConfigError(f"{len(values)} channels", where=name, allowed="3")
        return values[::-1] if self.flipped else values


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch as tensors.

    Args:
        images: float ``[B, 3, H, W]``, normalised, RGB; padding is 0, as in the model.
        valid: bool ``[B, H, W]``, False on padding.
        labels: int64 ``[B, H, W]`` class indices; the ignore index on padding and where there are none.
    """

    images: Tensor
    valid: Tensor
    labels: Tensor


def _cropped(output: Any, padded: tuple[int, int], size: tuple[int, int]) -> Any:
    """Resize outputs of padded images to their size, and cut the padding off; class logits of queries stay."""
    if isinstance(output, Mapping):
        return {
            name: value if name == "pred_logits" else _cropped(value, padded, size) for name, value in output.items()
        }
    if isinstance(output, list | tuple):
        return [_cropped(value, padded, size) for value in output]
    if not isinstance(output, Tensor) or output.ndim != 4:
        return output
    full = F.interpolate(output, size=padded, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]
