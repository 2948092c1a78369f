"""Offline data: numpy arrays with an id. The online counterpart is `genaug.batch.Batch`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genaug.errors import SampleError

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
#: What a sample may have: an image, a mask or both, or a prompt instead.
SamplePart = Literal["image", "mask", "prompt"]


def check_image(image: Any, *, where: str) -> Image:
    """Return `image` if it is uint8 ``[H, W, 3]`` RGB, else raise `SampleError`."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise SampleError(f"the image is {_described(image)}", where=where, allowed="uint8 array [H, W, 3], RGB")
    if 0 in image.shape:
        raise SampleError(f"the image is empty, shape {image.shape}", where=where, allowed="at least one pixel")
    return image


def check_mask(mask: Any, *, where: str) -> Mask:
    """Return `mask` if it is uint8 ``[H, W]``, else raise `SampleError`."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2:
        raise SampleError(f"the mask is {_described(mask)}", where=where, allowed="uint8 array [H, W] of class ids")
    if 0 in mask.shape:
        raise SampleError(f"the mask is empty, shape {mask.shape}", where=where, allowed="at least one pixel")
    return mask


def _described(value: Any) -> str:
    return f"dtype {value.dtype}, shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


@dataclass(frozen=True, slots=True)
class Prompt:
    """Words that ask for an image.

    Args:
        text: What the image shows; not blank.
        size: ``(height, width)`` of the image in pixels.

    Raises:
        SampleError: Blank, or a size below one pixel.
    """

    text: str
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise SampleError("the prompt is blank", allowed="at least one word")
        if min(self.size) < 1:
            raise SampleError(f"an image of {self.size} (height, width)", where="prompt", allowed="at least one pixel")


@dataclass(frozen=True, slots=True)
class Sample:
    """An image, its mask, or both; or the prompt of an image that is to be made.

    Args:
        id: Source id: the file stem for real data. No path separator.
        image: uint8 ``[H, W, 3]`` RGB, or None for a mask that waits for images.
        mask: uint8 ``[H, W]`` class ids with the label space's ignore index, or None for an unlabelled image.
        meta: JSON-like provenance (parameters, scores, file names).
        prompt: Words instead of image and mask.

    Raises:
        SampleError: Wrong dtype or shape, sizes that differ, a prompt beside an image or mask, or nothing at all.
    """

    id: str
    image: Image | None = None
    mask: Mask | None = None
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    prompt: Prompt | None = None

    def __post_init__(self) -> None:
        if not self.id or any(bad in self.id for bad in "/\\\0") or self.id in {".", ".."}:
            raise SampleError(f"sample id {self.id!r}", allowed="a file stem, without path separators")
        if (self.image is None and self.mask is None) == (self.prompt is None):
            found = "neither image nor mask" if self.prompt is None else "a prompt beside an image or mask"
            raise SampleError(found, where=f"sample {self.id}", allowed="image, mask or both; or a prompt alone")
        if self.image is not None:
            check_image(self.image, where=f"sample {self.id}")
        if self.mask is not None:
            check_mask(self.mask, where=f"sample {self.id}")
        if self.image is not None and self.mask is not None and self.image.shape[:2] != self.mask.shape:
            raise SampleError(
                f"image {self.image.shape[:2]}, mask {self.mask.shape} (height, width)",
                where=f"sample {self.id}",
                allowed="equal height and width",
            )

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        if self.prompt is not None:
            return self.prompt.size
        array = self.mask if self.mask is not None else self.image
        assert array is not None  # __post_init__ refuses both missing
        return int(array.shape[0]), int(array.shape[1])


@dataclass(frozen=True, slots=True)
class Draw:
    """One image to make: the `k`-th for `condition`, with its own seed.

    Args:
        condition: What to make an image for: a mask, a scribble, a prompt.
        k: 0-based number of the image within its condition.
        seed: 63-bit seed of this image alone; the only randomness a generator may use for it.
    """

    condition: Sample
    k: int
    seed: int

    @property
    def key(self) -> str:
        """File stem of the result: ``<condition id>_<k>``."""
        return f"{self.condition.id}_{self.k}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A generator's answer when there is no image to give; recorded in the manifest, never an error.

    Args:
        reason: One sentence for people.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Group:
    """All samples made from one condition, in order of `k`; what a filter judges together.

    Args:
        id: Id of the condition.
        condition: Mask uint8 ``[H, W]`` the samples were asked to follow; all ignored where there was none.
        samples: At least one sample with image ``[H, W, 3]`` and mask ``[H, W]``, None if made from a prompt.
        ks: ``samples[i]`` is image number ``ks[i]`` of its condition.
    """

    id: str
    condition: Mask
    samples: tuple[Sample, ...]
    ks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a filter says of one sample.

    Args:
        keep: False drops the sample from training views; its files stay.
        reason: One sentence for people; required when `keep` is False.
        mask: uint8 ``[H, W]`` replacement mask, equal to the sample's mask but for pixels set to the ignore
            index; None when the filter does not touch pixels.
        scores: Figures behind the verdict, JSON numbers.
    """

    keep: bool
    reason: str = ""
    mask: Mask | None = None
    scores: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
