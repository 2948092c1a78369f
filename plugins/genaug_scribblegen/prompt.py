"""The prompt of a scribble: a fixed beginning and the names of the scribbled classes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from genaug.errors import SampleError
from genaug.labels import LabelSpace
from genaug.sources.survey import find_strokes
from genaug.types import Mask
from genaug_diffusion.images import resize_mask
from genaug_diffusion.text import PromptEncoder
from genaug_scribblegen.config import ScribbleGenOptions

log = logging.getLogger("genaug")

_CUT = "%s: the prompt has no room for %s; further prompts are cut without a warning"
_LOST = (
    "%s: its strokes of %s are too thin for generator.resolution: no pixel of them is left, and they label nothing; "
    "further strokes are lost without a warning"
)
_LOST_STROKES = (
    "%s: strokes of %s are too thin for generator.resolution: no pixel of them is left, and they label nothing, though "
    "others of these classes do; further strokes are lost without a warning"
)


@dataclass(frozen=True, slots=True)
class ScribblePrompt:
    """A prompt and what it leaves out.

    Args:
        text: The prompt.
        unnamed: Ids of scribbled classes whose names found no room; the hint shows them all the same.
        dropped: Ids of scribbled classes that the hint does not show either: no pixel of them is left at the size of
            the image to make. They must not supervise.
    """

    text: str
    unnamed: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()


class ScribblePrompter:
    """Writes prompts: ``<beginning> of <name>, <name>``, names in ascending order of ids.

    A class called "background" has no name, and a name that two classes share is said once. If the text encoder would
    cut the prompt, names go in by scribbled area instead, whole or not at all, and a warning says so once. Classes of
    which resizing leaves no pixel have no name either; a warning says that once, too.

    Args:
        encoder: Says what fits.
        labels: Class table.
        options: `prompt`, `class_names` and `unknown_class` are used.
    """

    def __init__(self, encoder: PromptEncoder, labels: LabelSpace, options: ScribbleGenOptions) -> None:
        self.encoder, self.labels, self.options = encoder, labels, options
        named = labels.names.items() if options.class_names else ()
        self.names = {i: name.strip() for i, name in named if name.strip().lower() != "background"}
        self._warned: set[str] = set()

    def prompt(self, mask: Mask, *, size: tuple[int, int], where: str) -> ScribblePrompt:
        """Return the prompt of a scribble uint8 ``[H, W]`` whose hint is `size`, ``(height, width)``.

        Raises:
            SampleError: It has an id without a name and ``unknown_class`` is ``error``.
        """
        ids, counts = np.unique(mask, return_counts=True)
        areas = {int(i): int(c) for i, c in zip(ids, counts, strict=True) if i != self.labels.ignore_index}
        unknown = sorted(areas.keys() - self.labels.names.keys())
        if unknown and self.options.unknown_class == "error":
            raise SampleError(
                f"the scribble has ids without a name: {unknown}",
                where=where,
                allowed=f"{list(self.labels.ids)} and the ignore index {self.labels.ignore_index}",
                hint="Name them in labels, or set generator.unknown_class: ignore",
            )
        seen = set(areas) if mask.shape == size else set(np.unique(resize_mask(mask, size)).tolist())
        dropped = tuple(sorted((areas.keys() & self.labels.names.keys()) - seen))
        if dropped:
            self._warn(_LOST, dropped, where)
        present = sorted((areas.keys() & self.names.keys()) - set(dropped))
        text = self.text(present)
        if self.encoder.fits(text):
            return ScribblePrompt(text, dropped=dropped)
        kept: list[int] = []
        for i in sorted(present, key=lambda i: (-areas[i], i)):
            if self.encoder.fits(self.text([*kept, i])):
                kept.append(i)
        unnamed = tuple(i for i in present if i not in kept)
        self._warn(_CUT, unnamed, where)
        return ScribblePrompt(self.text(kept), unnamed, dropped)

    def text(self, ids: Iterable[int]) -> str:
        """Return the prompt with the names of `ids`, in their order."""
        names = ", ".join(dict.fromkeys(self.names[i] for i in ids))
        return f"{self.options.prompt} of {names}" if names else self.options.prompt

    def supervising(self, mask: Mask, prompt: ScribblePrompt, *, size: tuple[int, int], where: str) -> tuple[Mask, int]:
        """Return the labels of the image made for a scribble, and how many of its strokes are none of them.

        What was no condition is ignored: ids outside the class table, classes and strokes that are lost at the hint's
        size. The labels are `mask` itself where there is nothing of that kind. Arguments as of `prompt`.
        """
        known = np.isin(mask, [*(set(self.labels.ids) - set(prompt.dropped)), self.labels.ignore_index])
        strokes, lost = None if mask.shape == size else find_strokes(mask, self.labels.ignore_index), 0
        if strokes is not None and (gone := strokes.lost(mask.shape, size)).any():
            known[strokes.y[gone], strokes.x[gone]] = False
            counts = strokes.count(gone)
            lost = int(counts[list(self.labels.ids)].sum())
            partly = tuple(i for i in self.labels.ids if counts[i] and i not in prompt.dropped)
            if partly:
                self._warn(_LOST_STROKES, partly, where)
        return mask if known.all() else np.where(known, mask, np.uint8(self.labels.ignore_index)), lost

    def _warn(self, text: str, ids: tuple[int, ...], where: str) -> None:
        if text not in self._warned:
            log.warning(text, where, ", ".join(self.labels.names[i].strip() for i in ids))
            self._warned.add(text)
