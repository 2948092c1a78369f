"""Asks a mapper whether it reads a mask file's indices or its grey values, by a file in which these never agree."""

from __future__ import annotations

import contextlib
import copy
import logging
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genaug.rng import Rng

#: By Pillow's mode of a file: the index that all pixels of the probe have, and what they are as 8-bit grey.
PROBES = {"P": (1, 2), "1": (1, 255), "I": (257, 255), "I;16": (257, 255)}


def reads_indices(
    mapper: Callable[[dict[str, Any]], Any],
    given: Mapping[str, Any],
    mode: str,
    size: tuple[int, int],
    *,
    ignore_index: int,
) -> bool | None:
    """Return True if a mapper reads indices, False if it reads grey values, None if what it makes does not tell.

    Whatever the mapper crops, pads or resizes, one look is enough: all pixels of the probe are equal. The global states
    that augmentations draw from are left alone.

    Args:
        mapper: Called once.
        given: Dictionary whose image the probe goes with.
        mode: Pillow's mode of the mask file that `given` names.
        size: Width and height of that file.
        ignore_index: Label of what the mapper pads.
    """
    index, grey = PROBES.get(mode, (ignore_index, ignore_index))
    if index == ignore_index:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"probe{Path(str(given['sem_seg_file_name'])).suffix}"
        try:
            _write(file, mode, size)
            with seeded(Rng(0).child("probe")):
                made = mapper(copy.deepcopy({**given, "sem_seg_file_name": str(file)}))
            found = set(torch.unique(torch.as_tensor(made["sem_seg"])).tolist())
        except Exception as error:  # of anybody's code, which was not made for such a mask
            logging.getLogger(__name__).debug("genaug: the probe of a mask of mode %s failed: %s", mode, error)
            return None
    if found - {ignore_index} == {index}:
        return True
    return False if grey in found and found <= {grey, ignore_index} else None


def _write(file: Path, mode: str, size: tuple[int, int]) -> None:
    index, grey = PROBES[mode]
    dtype = {"P": np.uint8, "1": np.bool_, "I": np.int32, "I;16": np.uint16}[mode]
    image = Image.fromarray(np.full(size[::-1], index, dtype))
    if mode == "P":
        image.putpalette([grey] * 3 * 256)
    image.save(file)


@contextlib.contextmanager
def seeded(rng: Rng) -> Iterator[None]:
    """Set the global states that augmentations draw from, and restore them."""
    seed = rng.integer(32)
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- the point: augmentations draw from them
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
