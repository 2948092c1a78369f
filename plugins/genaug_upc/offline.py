"""UPC on arrays, in a dataset: what `mixer` does in a training loop, one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genaug.errors import SampleError
from genaug.rng import Rng
from genaug.types import Image, Mask, check_image, check_mask
from genaug_upc.config import Reduce, UpcOptions
from genaug_upc.donors import MOSTLY, choose_donor, donor_orders
from genaug_upc.functional import ignored_share, patch_masks, patch_ranks, patch_scores

_OPTIONS = UpcOptions()


@dataclass(frozen=True, slots=True)
class Mixed:
    """An image with labelled patches.

    Args:
        image: uint8 ``[H, W, 3]``.
        mask: uint8 ``[H, W]``: pseudo-labels, and the donor's labels where `pasted`.
        pasted: bool ``[H, W]``, True where a pixel is the donor's. Give those weight 1.
        donor: Number of the donor.
        patches: How many patches were replaced.
    """

    image: Image
    mask: Mask
    pasted: NDArray[np.bool_]
    donor: int
    patches: int


def select(uncertainty: NDArray[np.floating], k: int, *, grid: int = 4, reduce: Reduce = "sum") -> NDArray[np.bool_]:
    """Return the pixels bool ``[H, W]`` of the k most uncertain patches.

    Args:
        uncertainty: float ``[H, W]``, 0 on padding.
        k: How many patches, in ``0..grid**2``.
        grid: Patches per side, N.
        reduce: ``sum`` of a patch's pixels, or their ``mean``.

    Raises:
        SampleError: k, the grid or the map's shape is impossible.
    """
    if not 0 <= k <= grid**2:
        raise SampleError(f"{k} patches of {grid}x{grid}", where="upc", allowed=f"0 to {grid**2}")
    return _grown(_ranks(uncertainty, grid, reduce) < k, uncertainty)


def mix_arrays(
    image: Image,
    mask: Mask,
    uncertainty: NDArray[np.floating],
    donors: Sequence[tuple[Image, Mask]],
    *,
    rng: Rng,
    options: UpcOptions = _OPTIONS,
    ignore_index: int = 255,
) -> list[Mixed]:
    """Replace an image's most uncertain patches by labelled ones (UPC, section 3, from the map on).

    Run it after the geometric augmentations of image and donors, and before the photometric ones.

    Args:
        image: uint8 ``[H, W, 3]``.
        mask: uint8 ``[H, W]`` pseudo-labels.
        uncertainty: float ``[H, W]``, 0 on padding; not used where ``options.score`` is ``random``.
        donors: Labelled images and masks of the same size. Only those that are drawn are asked for, so this may be a
            sequence that loads them.
        rng: Stream of this image alone, such as ``Rng(seed).child("upc", epoch, image_id)``.
        options: As in a recipe. ``ras: sample`` gives one result, ``expand`` one for every number in ``ks``.
        ignore_index: Label of pixels that say nothing.

    Returns:
        What the mixer makes of the same image, map, donors and stream. The inputs stay untouched.

    Raises:
        SampleError: Sizes differ, a wrong dtype, or no donors.
    """
    check_image(image, where="image")
    check_mask(mask, where="mask")
    _same(image.shape[:2], mask.shape, "the mask")
    if options.score == "random":
        ranks = patch_ranks(torch.rand(1, options.grid, options.grid, generator=rng.child("patches").torch()))
    else:
        _same(image.shape[:2], uncertainty.shape, "the uncertainty map")
        ranks = _ranks(uncertainty, options.grid, options.reduce)
    results, taken = [], set[int]()
    ks = _numbers(options, rng)
    for view, order in enumerate(donor_orders(len(donors), len(ks), rng).tolist()):
        if view % len(donors) == 0:
            taken.clear()
        drawn = _Drawn(donors, ranks < ks[view], options.grid, ignore_index)
        donor = choose_donor(order, taken, drawn.unfit)
        taken.add(donor)
        pasted = _grown(drawn.chosen, mask)
        donor_image, donor_mask = drawn.load(donor)
        _same(image.shape[:2], donor_image.shape[:2], f"donor {donor}")
        results.append(
            Mixed(
                np.where(pasted[..., None], donor_image, image),
                np.where(pasted, donor_mask, mask),
                pasted,
                donor,
                ks[view],
            )
        )
    return results


class _Drawn:
    """The donors that one view looks at, each loaded once."""

    def __init__(
        self, donors: Sequence[tuple[Image, Mask]], chosen: torch.Tensor, grid: int, ignore_index: int
    ) -> None:
        self.donors, self.chosen, self.grid, self.ignore_index = donors, chosen, grid, ignore_index
        self._loaded: dict[int, tuple[Image, Mask]] = {}

    def load(self, number: int) -> tuple[Image, Mask]:
        if number not in self._loaded:
            image, mask = self.donors[number]
            where = f"donor {number}"
            check_image(image, where=where)
            _same(image.shape[:2], check_mask(mask, where=where).shape, f"the mask of {where}")
            self._loaded[number] = image, mask
        return self._loaded[number]

    def unfit(self, number: int) -> bool:
        """Return whether one of the patches to be pasted is mostly ignored."""
        mask = torch.from_numpy(np.array(self.load(number)[1]))[None]
        empty = ignored_share(mask, self.grid, self.ignore_index).flatten(1) > MOSTLY
        return bool((empty & self.chosen).any())


def _ranks(uncertainty: NDArray[np.floating], grid: int, reduce: Reduce) -> torch.Tensor:
    return patch_ranks(patch_scores(torch.from_numpy(np.array(uncertainty))[None], grid, reduce))


def _grown(chosen: torch.Tensor, like: np.ndarray) -> NDArray[np.bool_]:
    grid = int(chosen.shape[1] ** 0.5)
    size = (like.shape[0], like.shape[1])
    pixels: NDArray[np.bool_] = patch_masks(chosen.view(grid, grid), size).numpy()
    return pixels


def _numbers(options: UpcOptions, rng: Rng) -> tuple[int, ...]:
    if options.ras == "expand":
        return options.ks
    return (options.ks[int(torch.randint(len(options.ks), (1,), generator=rng.child("k").torch()))],)


def _same(expected: tuple[int, ...], found: tuple[int, ...], what: str) -> None:
    if tuple(expected) != tuple(found):
        raise SampleError(f"{what} has size {tuple(found)}", where="upc", allowed=f"{tuple(expected)}, the image's")
