"""The prompt of a scribble: a fixed beginning and the names of the scribbled classes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from genaug.errors import SampleError
from genaug.labels import LabelSpace
from genaug.types import Mask
from genaug_diffusion.text import PromptEncoder
from genaug_scribblegen.config import ScribbleGenOptions

log = logging.getLogger("genaug")


@dataclass(frozen=True, slots=True)
class ScribblePrompt:
    """A prompt and what it leaves out.

    Args:
        text: The prompt.
        dropped: Ids of scribbled classes whose names found no room; the hint shows them all the same.
    """

    text: str
    dropped: tuple[int, ...] = ()


class ScribblePrompter:
    """Writes prompts: ``<beginning> of <name>, <name>``, names in ascending order of ids.

    A class called "background" has no name, and a name that two classes share is said once. If the text encoder would
    cut the prompt, names go in by scribbled area instead, whole or not at all, and a warning says so once.

    Args:
        encoder: Says what fits.
        labels: Class table.
        options: `prompt`, `class_names` and `unknown_class` are used.
    """

    def __init__(self, encoder: PromptEncoder, labels: LabelSpace, options: ScribbleGenOptions) -> None:
        self.encoder, self.labels, self.options = encoder, labels, options
        named = labels.names.items() if options.class_names else ()
        self.names = {i: name.strip() for i, name in named if name.strip().lower() != "background"}
        self._warned = False

    def prompt(self, mask: Mask, *, where: str) -> ScribblePrompt:
        """Return the prompt of a scribble uint8 ``[H, W]``.

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
        present = sorted(areas.keys() & self.names.keys())
        text = self.text(present)
        if self.encoder.fits(text):
            return ScribblePrompt(text)
        kept: list[int] = []
        for i in sorted(present, key=lambda i: (-areas[i], i)):
            if self.encoder.fits(self.text([*kept, i])):
                kept.append(i)
        dropped = tuple(i for i in present if i not in kept)
        self._warn(dropped, where)
        return ScribblePrompt(self.text(kept), dropped)

    def text(self, ids: Iterable[int]) -> str:
        """Return the prompt with the names of `ids`, in their order."""
        names = ", ".join(dict.fromkeys(self.names[i] for i in ids))
        return f"{self.options.prompt} of {names}" if names else self.options.prompt

    def supervising(self, mask: Mask) -> Mask:
        """Return `mask` itself, or a copy whose ids outside the class table are ignored if it has any."""
        known = np.isin(mask, [*self.labels.ids, self.labels.ignore_index])
        return mask if known.all() else np.where(known, mask, np.uint8(self.labels.ignore_index))

    def _warn(self, dropped: tuple[int, ...], where: str) -> None:
        if not self._warned:
            names = ", ".join(self.names[i] for i in dropped)
            log.warning("%s: the prompt has no room for %s; further prompts are cut without a warning", where, names)
            self._warned = True
