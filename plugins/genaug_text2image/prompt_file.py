"""The source ``prompts``: what somebody wrote, or a model of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from genaug.errors import DataError, did_you_mean
from genaug.sources.base import Source
from genaug.types import Prompt, Sample
from genaug_text2image.rows import Row, read_rows

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_text2image.config import PromptFileOptions, PromptOptions


class PromptFile(Source):
    """Prompts from a JSON Lines file, in its order.

    Args:
        path: The file; see `genaug_text2image.rows.read_rows`.
        size: ``(height, width)`` of all images.
        source: Where sizes come from instead: every prompt's image has that of the sample of its name.
    """

    def __init__(self, path: Path, *, size: tuple[int, int] | None = None, source: Source | None = None) -> None:
        self.path, self.size, self.source = path, size, source
        self._sizes: dict[str, tuple[int, int]] = {}

    @classmethod
    def from_config(cls, options: PromptFileOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        source = None if options.size else inner_source(options, context)
        return cls(context.path(options.path), size=options.size, source=source)

    @cached_property
    def _rows(self) -> dict[str, Row]:
        rows = read_rows(self.path)
        if self.source is None:
            return rows
        renamed: dict[str, Row] = {}
        for key, row in rows.items():
            # What a source takes for the ending of its images may be more than that of a picture: '_leftImg8bit.png'.
            own = self.source.id_of(row.file_name)
            name = own if key not in self._images and own in self._images else key
            if name in renamed:
                raise DataError(f"two prompts for {name!r}", where=str(self.path), hint="Keep one of them")
            renamed[name] = row
        return renamed

    @cached_property
    def _images(self) -> frozenset[str]:
        return frozenset() if self.source is None else frozenset(self.source.ids())

    def ids(self) -> Sequence[str]:
        """Return the names of the images that the prompts belong to, without their endings."""
        return tuple(self._rows)

    def load(self, sample_id: str) -> Sample:
        """Return one prompt; reads an image at first if its size is not known.

        Raises:
            DataError: No prompt or no image is called so.
        """
        try:
            row = self._rows[sample_id]
        except KeyError:
            hint = did_you_mean(sample_id, self._rows)
            raise DataError(f"no prompt is called {sample_id!r}", where=str(self.path), hint=hint) from None
        prompt = Prompt(row.text, self.size or self._size(sample_id))
        return Sample(sample_id, prompt=prompt, meta={"file_name": row.file_name})

    def _size(self, sample_id: str) -> tuple[int, int]:
        if sample_id not in self._sizes:
            if self.source is None or sample_id not in self._images:
                raise DataError(
                    f"no image is called {sample_id!r}, so the size of the one to make is not known",
                    where=str(self.path),
                    hint="Name their folder ('source') or one size for all ('size': [height, width])",
                )
            self._sizes[sample_id] = self.source.outline(sample_id).size
        return self._sizes[sample_id]


def inner_source(options: PromptOptions, context: BuildContext) -> Source:
    """Build the source that prompts are about: the one named, or the recipe's labelled samples."""
    if options.source is None:
        return context.labelled(where="conditions.source")
    rest = {key: value for key, value in options.source.items() if key != "format"}
    source: Source = context.build("source", options.source["format"], rest, where="conditions.source")
    return source
