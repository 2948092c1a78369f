"""The source ``captions``: prompts that a vision-language model writes about real images (SENSE)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

from genaug.errors import DataError, StoreError
from genaug.labels import LabelSpace
from genaug.recipe import digest
from genaug.sources.base import Source
from genaug.store.files import make_folder, store_error
from genaug.store.journal import Journal
from genaug.types import Image, Prompt, Sample, SamplePart
from genaug_text2image.config import CaptionOptions
from genaug_text2image.prompt_file import inner_source
from genaug_text2image.rows import Row, read_rows

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug.sources.survey import Survey
    from genaug_text2image.captioner import Captioner

#: What a preview shows in place of a caption that no model has written yet.
UNWRITTEN = "(a caption that is not written yet)"


class Captions(Source):
    """One prompt per real image, written by a model once and kept in a file.

    The file is of the form that the source ``prompts`` reads; texts in it may be edited. The model is loaded when the
    first caption is missing, and writes without chance: the likeliest word after word. Every process that needs a
    caption writes it, so let one process write all of them before several share the work (``--shard``), which would
    all write the same.

    Args:
        images: The real images.
        file: The file; it need not exist.
        labels: Class table, whose names the instruction may mention.
        options: The model and what it is asked; ``source`` and ``file`` are not looked at.
        root: Folder that a model's relative path refers to.
        device: Torch device of the model.
    """

    def __init__(
        self,
        images: Source,
        file: Path,
        *,
        labels: LabelSpace,
        options: CaptionOptions,
        root: Path,
        device: str = "cpu",
    ) -> None:
        self.images, self.file, self.labels, self.options = images, file, labels, options
        self.root, self.device = root, device
        names = ", ".join(name.replace("_", " ") for name in labels.names.values())
        self.instruction = options.instruction.replace("{classes}", names)

    @classmethod
    def from_config(cls, options: CaptionOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        images = inner_source(options, context)
        file = context.path(options.file)
        return cls(images, file, labels=context.labels, options=options, root=context.root, device=context.device)

    def ids(self) -> Sequence[str]:
        """Return the ids of the images."""
        return self.images.ids()

    def parts(self) -> Collection[SamplePart]:
        """Return that samples are prompts, whether they are written yet or not."""
        return ["prompt"]

    def survey(self) -> Survey:
        """Read the images only; no caption is written."""
        return self.images.survey()

    def outline(self, sample_id: str) -> Sample:
        """Return the caption if it was written already, else words that say so."""
        sample = self.images.load(sample_id)
        if sample_id in self._rows:
            return self._captioned(sample)
        return Sample(sample_id, prompt=Prompt(UNWRITTEN, sample.size))

    def load(self, sample_id: str) -> Sample:
        """Return one caption, written now if it is missing.

        Raises:
            DataError: The image is not usable, or the model had nothing to say about it.
            StoreError: The file cannot be written, or holds captions of another model or instruction.
        """
        sample = self.images.load(sample_id)
        if sample_id not in self._rows:
            if sample.image is None:
                raise DataError("there is no image to write about", where=f"sample {sample_id}")
            self._write(sample, sample.image)
        return self._captioned(sample)

    # ------------------------------------------------------------------ captions

    @cached_property
    def captioner(self) -> Captioner:
        """The model, loaded on first use."""
        from genaug_text2image.captioner import Captioner

        return Captioner(self.options, root=self.root, device=self.device)

    @property
    def made_with(self) -> str:
        """Hash of all that decides a caption but the image."""
        how = self.options
        return digest([how.model, how.revision, self.instruction, how.max_new_tokens, how.max_side])

    @cached_property
    def _rows(self) -> dict[str, Row]:
        if not self.file.exists():
            return {}
        rows = read_rows(self.file, growing=True)
        if any(row.more.get("made_with", self.made_with) != self.made_with for row in rows.values()):
            raise StoreError(
                "its captions were written by another model, or it was asked something else",
                where=str(self.file),
                hint="Name another file as 'file'; or read this one with {format: prompts, path: ...}",
            )
        return rows

    def _captioned(self, sample: Sample) -> Sample:
        row = self._rows[sample.id]
        return Sample(sample.id, prompt=Prompt(row.text, sample.size), meta={"file_name": row.file_name})

    def _write(self, sample: Sample, image: Image) -> None:
        text = self.captioner.caption(image, self.instruction)
        if not text:
            raise DataError(
                f"{self.options.model} had nothing to say", where=f"sample {sample.id}", hint="Use another model"
            )
        name = PurePath(str(sample.meta.get("image_file", f"{sample.id}.png"))).name
        more: dict[str, Any] = {"key": sample.id, "made_with": self.made_with}
        make_folder(self.file.parent)
        if self.file.exists():
            _end_last_line(self.file)
        Journal(self.file).append([{"file_name": name, "text": text, **more}])
        self._rows[sample.id] = Row(name, text, more)


def _end_last_line(path: Path) -> None:
    """Complete the last line of a file that an editor left without its end, or cut it if a crash did."""
    try:
        last = path.read_bytes().rpartition(b"\n")[2]
        if last.rstrip().endswith(b"}"):
            with path.open("ab") as file:
                file.write(b"\n")
    except OSError as error:
        raise store_error("write", path, error) from error
    Journal(path).cut_tail()
