"""Sizes of images shown at several scales."""

from __future__ import annotations

from genaug.errors import SampleError

Size = tuple[int, int]


def scaled_size(
    size: Size, scale: float, multiple_of: int = 1, *, max_side: int | None = None, where: str = "scales"
) -> Size:
    """Return ``(H, W)`` times `scale`, each side rounded to the nearest multiple; at least one multiple.

    Scale 1 is the image as it is, whatever its size: nobody resizes it for the other passes either.

    Args:
        size: ``(height, width)``.
        scale: Above 0.
        multiple_of: See above.
        max_side: Longest side allowed, at any scale; None allows all.
        where: Option that says so, for messages.

    Raises:
        SampleError: A side is longer than `max_side`.
    """
    height, width = size
    if scale != 1:
        height, width = (multiple_of * max(1, round(scale * side / multiple_of)) for side in size)
    if max_side is not None and max(height, width) > max_side:
        raise SampleError(
            f"scale {scale:g} makes {height}x{width} of {size[0]}x{size[1]} pixels",
            where=where,
            allowed=f"at most {max_side} a side",
            hint="Train on smaller crops, or take the scale out of 'scales'",
        )
    return height, width
