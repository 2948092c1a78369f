"""What transforms share that change an image and its mask together: checks before, types after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genaug.errors import ConfigError, SampleError
from genaug.labels import LabelSpace
from genaug.types import Image, Mask, check_image
from genaug_albumentations.host import A, Hooks, Targets

#: What a call may also hold, and what would no longer belong to the image afterwards.
REFUSED = ("images", "masks", "bboxes", "keypoints", "volume", "volumes", "mask3d", "masks3d")


class Change(NamedTuple):
    """New pixels, apart from those that stay, so that a replay can give them to another image.

    `region` is bool ``[H, W]``, where they go; `pixels` uint8 ``[N, 3]`` and `labels` uint8 ``[N]`` are in its order,
    row by row. Without it they are a whole image and mask, of any size.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    region: NDArray[np.bool_] | None = None


class Replacement(Hooks, A.DualTransform):  # type: ignore[misc]
    """Base of transforms that give an image uint8 ``[H, W, 3]`` RGB and its mask new pixels.

    Masks are integers of any type, ``[H, W]`` or ``[H, W, 1]`` with values in 0..255, and keep type and dimensions.
    Subclasses implement `_change`.

    ``ReplayCompose.replay`` gives another image the same new pixels at the same places.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def add_targets(self, additional_targets: Mapping[str, str]) -> None:
        """Refuse targets besides image and mask: what belongs to the old image would stay with the new one.

        Raises:
            ConfigError: There is one.
        """
        if additional_targets:
            name, kind = next(iter(additional_targets.items()))
            raise ConfigError(
                f"the additional target {name!r} (as {kind!r}) would no longer belong to the image",
                where=type(self).__name__,
                allowed="'image' and 'mask' alone",
                hint="Use a pipeline without it, or another transform",
            )
        super().add_targets(additional_targets)

    def drawn(self, data: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        """Check the call, and decide what image and mask become."""
        image, mask = checked(data, where=type(self).__name__)
        change = self._change(image, mask, data, generator)
        return dict.fromkeys(Change._fields) if change is None else change._asdict()

    def _change(
        self, image: Image, mask: Mask, data: Mapping[str, Any], generator: np.random.Generator
    ) -> Change | None:
        """Return what is new of an image and its mask uint8 ``[H, W]``; None leaves both. They stay untouched."""
        raise NotImplementedError

    def apply(
        self,
        img: np.ndarray,
        pixels: NDArray[np.uint8] | None = None,
        region: NDArray[np.bool_] | None = None,
        **params: Any,  # noqa: ARG002
    ) -> np.ndarray:
        """Return the image with its new pixels."""
        if pixels is None:
            return img
        self._check_replay(check_image(img, where=type(self).__name__), region)
        if region is None:
            return pixels.copy() if self.replay_mode else pixels  # a record is replayed any number of times
        return _pasted(img, pixels, region)

    def apply_to_mask(
        self,
        mask: np.ndarray,
        labels: NDArray[np.uint8] | None = None,
        region: NDArray[np.bool_] | None = None,
        **params: Any,  # noqa: ARG002
    ) -> np.ndarray:
        """Return the mask with its new labels, of its own type and dimensions."""
        if labels is None:
            return mask
        self._check_replay(mask, region)
        if mask.ndim == 3:
            labels = labels[..., None]
        if region is None:
            return labels.astype(mask.dtype, copy=self.replay_mode)  # as in `apply`
        return _pasted(mask, labels, region)

    def _check_replay(self, found: np.ndarray, region: NDArray[np.bool_] | None) -> None:
        if region is not None and found.shape[:2] != region.shape:
            raise SampleError(
                f"replayed on {found.shape[:2]} (height, width)",
                where=type(self).__name__,
                allowed=f"{region.shape}, the size that the pixels were drawn for",
                hint="Crop or resize both images to one size before",
            )


def _pasted(array: np.ndarray, values: np.ndarray, region: NDArray[np.bool_]) -> np.ndarray:
    result = array.copy()
    result[region] = values
    return result


def checked(data: Mapping[str, Any], *, where: str) -> tuple[Image, Mask]:
    """Return image and mask of a call, the mask as uint8 ``[H, W]``.

    Raises:
        SampleError: One is missing or of another form, or there are boxes, key points or the like.
    """
    refused = [name for name in REFUSED if data.get(name) is not None]
    if refused:
        hint = "Boxes and key points of the new pixels are not known: use a pipeline for image and mask alone"
        raise SampleError(f"called with {', '.join(refused)}", where=where, allowed="'image' and 'mask'", hint=hint)
    for name in ("image", "mask"):
        if data.get(name) is None:
            raise SampleError(f"no {name}", where=where, hint="Call the pipeline with image=... and mask=...")
    try:
        image = check_image(data["image"], where=where)
    except SampleError as error:
        hint = "Put it before Normalize, ToFloat and ToTensorV2, and read images as RGB"
        raise SampleError(error.found, where=where, allowed=error.allowed, hint=hint) from None
    mask = mask_ids(data["mask"], where=where)
    if mask.shape != image.shape[:2]:
        found = f"image {image.shape[:2]}, mask {mask.shape} (height, width)"
        raise SampleError(found, where=where, allowed="equal height and width")
    return image, mask


def mask_ids(mask: Any, *, where: str) -> Mask:
    """Return a mask of integers of any type, ``[H, W]`` or ``[H, W, 1]``, as uint8 ``[H, W]``.

    Raises:
        SampleError: It is something else, or has values outside 0..255.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "ui" or mask.ndim not in (2, 3):
        raise SampleError(f"the mask is {described(mask)}", where=where, allowed="class ids, integers [H, W]")
    if np.iinfo(mask.dtype).max < 255:
        raise SampleError(f"a mask of type {mask.dtype}", where=where, allowed="a type that holds 0..255")
    if mask.ndim == 3:
        if mask.shape[2] != 1:
            hint = "One class per channel, or colours? Make class ids of them first"
            raise SampleError(f"a mask of {mask.shape[2]} channels", where=where, allowed="one channel", hint=hint)
        mask = mask[..., 0]
    if mask.dtype != np.uint8 and mask.size and not 0 <= mask.min() <= mask.max() <= 255:
        raise SampleError(f"ids from {mask.min()} to {mask.max()}", where=where, allowed="class ids in 0..255")
    ids: Mask = mask.astype(np.uint8, copy=False)
    return ids


def described(value: Any) -> str:
    """Return what errors say of an argument."""
    return f"dtype {value.dtype}, shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


class KnownIds:
    """Compares masks with a class table.

    Args:
        labels: The class table.
        where: Named in errors.
    """

    def __init__(self, labels: LabelSpace, *, where: str) -> None:
        self.where, self.allowed = where, f"{list(labels.ids)} and the ignore index {labels.ignore_index}"
        self._known = bytes([*labels.ids, labels.ignore_index])
        self._low, self._span = _longest_run(self._known)

    def check(self, mask: Mask) -> None:
        """Raise `SampleError` if a mask uint8 ``[H, W]`` holds an id that is no class."""
        # Six times as fast as deleting bytes, which takes a fifth of the time of looking every pixel up in a table.
        if (mask - self._low).max(initial=0) <= self._span:  # 8-bit numbers wrap around
            return
        strange = mask.tobytes().translate(None, self._known)
        if strange:
            hint = "Masks of the call and of the store must mean the same by an id; ids are never changed here"
            found = f"the mask has ids {sorted(set(strange))}, which have no class"
            raise SampleError(found, where=self.where, allowed=self.allowed, hint=hint)


def _longest_run(ids: bytes) -> tuple[np.uint8, int]:
    """Return where the longest run of ids without a gap begins, and its last id's distance; 0 follows 255."""
    spans = {low: next(n for n in range(256) if (low + n + 1) % 256 not in ids or n == 255) for low in ids}
    low = max(spans, key=lambda i: spans[i])
    return np.uint8(low), spans[low]
