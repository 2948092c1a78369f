"""The source ``huggingface``: rows of a dataset with columns of pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import datasets
import numpy as np
from pyarrow.dataset import ParquetFragmentScanOptions

from genaug.errors import ConfigError, DataError, did_you_mean
from genaug.labels import LabelSpace
from genaug.sources.base import Source
from genaug.sources.files import ColorTable, RefusedError, read_image, read_mask
from genaug.sources.survey import Finding, Remark, Survey, binary, listed
from genaug.types import Sample
from genaug_formats.config import HuggingFaceOptions

if TYPE_CHECKING:
    from genaug.recipe import BuildContext

_SAVED = ("dataset_info.json", "dataset_dict.json")  # what save_to_disk writes, for one split or several


class HuggingFaceSource(Source):
    """A dataset with ``Image`` columns, from a folder or from the Hub.

    Pictures are taken as the bytes that were stored, so that masks obey the same rules as files in folders: palettes
    are read by index, and what decoders change is refused.

    With ``streaming`` rows are read as they come and nothing is kept on disk. Reading in order is quick then; jumping
    back starts the stream anew.

    Args:
        options: Which dataset and columns.
        labels: Class table that masks are checked against.
        root: Folder that a local path refers to.
        ignore_unknown_ids: Set ids outside the class table to the ignore index; a problem otherwise.

    Raises:
        ConfigError: ``color_map`` without a colour for every class.
    """

    def __init__(
        self, options: HuggingFaceOptions, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False
    ) -> None:
        self.options, self.labels, self.ignore_unknown_ids = options, labels, ignore_unknown_ids
        local = root / Path(options.path).expanduser()
        self.path = str(local) if local.exists() else options.path
        self._colors = None
        if options.color_map:
            bare = [f"{i} ({labels.names[i]})" for i in labels.ids if i not in labels.colors]
            if bare:
                raise ConfigError(f"no colour for {listed(bare)}", where="labels.colors")
            self._colors = ColorTable(labels.colors)
        self._ignored: dict[int, list[str]] | None = None  # during a survey: id outside the class table -> rows with it
        self._stream: Iterator[dict[str, Any]] = iter(())
        self._next = 0

    @classmethod
    def from_config(cls, options: HuggingFaceOptions, context: BuildContext) -> Self:
        """Build from a recipe."""
        return cls(options, context.labels, root=context.root, ignore_unknown_ids=context.ignore_unknown_ids)

    def ids(self) -> Sequence[str]:
        """Return the names in the column ``id``, else row numbers; with ``streaming`` this reads the stream once."""
        return tuple(self._numbers)

    def load(self, sample_id: str) -> Sample:
        """Read one row; ``meta`` holds its number."""
        try:
            number = self._numbers[sample_id]
        except KeyError:
            hint = did_you_mean(sample_id, self._numbers)
            raise DataError(f"no sample is called {sample_id!r}", where="data", hint=hint) from None
        row, options = self._row(number), self.options
        name = f"{self.path}, row {number}, column"
        try:
            picture = self._bytes(row[options.image], f"{name} {options.image}")
            image = read_image(
                picture, name=f"{name} {options.image}", gray=options.gray, max_pixels=options.max_pixels
            )
            mask = None
            if options.mask is not None:
                stored, place = self._bytes(row[options.mask], f"{name} {options.mask}"), f"{name} {options.mask}"
                mask = read_mask(stored, name=place, colors=self._colors, max_pixels=options.max_pixels)
        except RefusedError as error:
            first = error.finding
            found = f"{first.subject}: {first.what}"
            raise DataError(found, where=f"sample {sample_id}", hint=first.hint or None) from None
        if mask is not None:
            known = {*self.labels.ids, self.labels.ignore_index}
            foreign = [int(i) for i in np.unique(mask) if int(i) not in known]
            if foreign and not self.ignore_unknown_ids:
                found = (
                    f"{name} {options.mask}: the mask has ids outside the class table ({listed([*map(str, foreign)])})"
                )
                raise DataError(found, where=f"sample {sample_id}", hint="Name them in labels, or mend the masks")
            if foreign:
                mask[np.isin(mask, foreign)] = self.labels.ignore_index
                if self._ignored is not None:
                    for class_id in foreign:
                        self._ignored.setdefault(class_id, []).append(f"row {number}")
            if mask.shape != image.shape[:2]:
                found = f"image {image.shape[:2]} and mask {mask.shape} differ in size (height, width)"
                raise DataError(found, where=f"sample {sample_id}")
        return Sample(sample_id, image, mask, {"row": number})

    def survey(self) -> Survey:
        """Read every row once; black-and-white masks and ignored ids are told as for folders."""
        ignored: dict[int, list[str]] = {}
        self._ignored = ignored
        try:
            survey = super().survey()
        finally:
            self._ignored = None
        survey.problems += binary(survey, self.labels)
        hint = f"Ignored, as the recipe's generator asks (set to {self.labels.ignore_index})"
        for class_id, rows in sorted(ignored.items()):
            survey.notes.append(Remark(f"id {class_id} is not in the class table", tuple(rows), hint))
        return survey

    # ------------------------------------------------------------------ rows

    @cached_property
    def _dataset(self) -> Any:
        """The dataset, its picture columns set to hand out bytes."""
        options, path = self.options, Path(self.path)
        where = f"data.path {self.path}"
        try:
            if path.is_dir() and any((path / name).is_file() for name in _SAVED):
                found = datasets.load_from_disk(str(path))
                if isinstance(found, datasets.Dataset) and str(found.split or options.split) != options.split:
                    raise ValueError(f"it holds the split {found.split!s}, not {options.split!r}")
                data: Any = found[options.split] if isinstance(found, datasets.DatasetDict) else found
                data = data.to_iterable_dataset() if options.streaming else data
            else:
                data = self._opened()
        except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            hint = "Name a folder or a dataset of the Hub; without network only what was fetched before is there"
            raise DataError(f"the dataset cannot be opened: {error}", where=where, hint=hint) from error
        if data.features is None:
            raise DataError("the stream does not say its columns", where=where, hint="Set streaming to false")
        for column in (options.image, options.mask):
            if column is None:
                continue
            if not isinstance(data.features.get(column), datasets.Image):
                found = f"column {column!r} is {data.features.get(column, 'not there')}"
                pictures = [c for c, f in data.features.items() if isinstance(f, datasets.Image)]
                raise ConfigError(
                    found, where="data", allowed=f"a column of pictures: {', '.join(pictures) or 'there is none'}"
                )
            data = data.cast_column(column, datasets.Image(decode=False))
        if options.id is not None and options.id not in data.features:
            raise ConfigError(f"no column {options.id!r}", where="data.id", allowed=", ".join(data.features))
        return data

    def _opened(self) -> Any:
        """Do what ``datasets.load_dataset`` does, but never hold more of a parquet file than a group of its rows."""
        options = self.options
        builder = datasets.load_dataset_builder(self.path, options.name, revision=options.revision)
        if hasattr(builder.config, "fragment_scan_options"):
            # pyarrow would fetch the whole file at once and keep it until its last row was read.
            builder.config.fragment_scan_options = ParquetFragmentScanOptions(pre_buffer=False)
        if options.streaming:
            return builder.as_streaming_dataset(split=options.split)
        builder.download_and_prepare()
        return builder.as_dataset(split=options.split)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Sample id -> row number."""
        column, data = self.options.id, self._dataset
        if column is not None:
            names = [self._checked(row[column], number) for number, row in enumerate(data.select_columns([column]))]
        else:
            rows = sum(1 for _ in data.select_columns([self.options.image])) if self.options.streaming else len(data)
            names = [f"{number:06d}" for number in range(rows)]
        numbers = {name: number for number, name in enumerate(names)}
        if not names:
            raise DataError("the split has no row", where=f"data.path {self.path}, split {self.options.split}")
        if len(numbers) < len(names):
            twice = sorted({name for number, name in enumerate(names) if numbers[name] != number})
            raise DataError(f"names that occur twice in column {column!r}: {listed(twice)}", where="data.id")
        return numbers

    def _checked(self, value: Any, number: int) -> str:
        """Return the name in a row of the column of names, refused where no sample can have it."""
        name = "" if value is None else str(value)
        if name in {"", ".", ".."} or any(letter in name for letter in "/\\\0"):
            raise DataError(
                f"row {number} has the name {value!r}",
                where=f"{self.path}, column {self.options.id!r}",
                hint="Names are file stems, without path separators. Leave data.id out to number the rows instead",
            )
        return name

    def _row(self, number: int) -> dict[str, Any]:
        if not self.options.streaming:
            row: dict[str, Any] = self._dataset[number]
            return row
        if number < self._next:
            self._next = 0
        if self._next == 0:
            self._stream = iter(self._dataset)
        while True:
            row = next(self._stream)
            self._next += 1
            if self._next > number:
                return row

    @staticmethod
    def _bytes(value: Any, name: str) -> io.BytesIO | Path:
        if value is None or (value.get("bytes") is None and not value.get("path")):
            raise RefusedError(Finding("the row has no picture", name))
        return Path(value["path"]) if value.get("bytes") is None else io.BytesIO(value["bytes"])
