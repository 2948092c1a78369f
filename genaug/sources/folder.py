"""The source ``folder``: images and masks in folders, joined by file stem or by a list."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genaug.errors import ConfigError, DataError, GenaugError, did_you_mean
from genaug.labels import LabelSpace
from genaug.sources.base import Source
from genaug.sources.config import FolderOptions
from genaug.sources.files import ColorTable, RefusedError, read_image, read_mask
from genaug.sources.listing import Entry, Layout, Listing, list_samples, strip_suffix
from genaug.sources.survey import (
    FOREGROUND,
    Finding,
    Lost,
    Remark,
    Survey,
    binary,
    count_ids,
    count_lost,
    find_strokes,
    listed,
    summarize,
)
from genaug.types import Image, Mask, Sample

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug.types import SamplePart

_MANY_IDS = 8  # more foreign ids than this are told in one line: the mask holds something else than class ids


@dataclass(slots=True)
class _Read:
    """What one entry's files hold; small enough to keep for every sample of a large folder.

    `foreign` are the mask's ids outside the class table; where the source ignores them, `pixels` has them as ignored.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    foreign: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    image: bool = False
    pixels: NDArray[np.int64] | None = None
    strokes: NDArray[np.int64] | None = None
    lost: Lost | None = None


class FolderSource(Source):
    """Images and masks in folders.

    Images are 8-bit RGB (8-bit gray with ``gray``). Masks are 8-bit gray or palette files whose stored numbers are
    class ids; RGB masks need ``color_map`` and ``labels.colors``. Palette masks are read by index: converting them
    to gray, as many readers do, changes ids 0, 1, 15 into 0, 38, 147. Anything else is refused with the reason:
    16-bit files, transparency, 1-bit masks, JPEG masks, EXIF rotations, pictures above ``max_pixels``.

    Without a list every file counts: an image without a mask, or a mask without an image, is a problem. With
    ``labeled`` only the listed samples are looked at. A list holds a file stem, a path, or ``image mask`` (as
    UniMatch writes it) per line; blank lines and lines starting with ``#`` do not count, and paths may start at the
    folder or above it. Files whose name starts with a dot never count.

    Args:
        options: Where the files are and how they are read.
        labels: Class table that masks are checked against.
        root: Folder that the paths of `options` refer to.
        ignore_unknown_ids: Set ids outside the class table to the ignore index and note it; a problem otherwise.

    Raises:
        ConfigError: ``color_map`` without a colour for every class.
    """

    def __init__(
        self, options: FolderOptions, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False
    ) -> None:
        self.options, self.labels, self.ignore_unknown_ids = options, labels, ignore_unknown_ids
        images, masks, labeled = (
            None if value is None else root / Path(value).expanduser()
            for value in (options.images, options.masks, options.labeled)
        )
        self.layout = Layout(
            images, masks, labeled, options.image_suffixes, options.mask_suffix, options.recursive, root
        )
        self._colors: ColorTable | None = None
        if options.color_map:
            bare = [f"{i} ({labels.names[i]})" for i in labels.ids if i not in labels.colors]
            if bare:
                raise ConfigError(
                    f"no colour for {listed(bare)}",
                    where="labels.colors",
                    allowed="[r, g, b] for every class, since data.color_map is set",
                )
            self._colors = ColorTable(labels.colors)

    @classmethod
    def from_config(cls, options: FolderOptions, context: BuildContext) -> FolderSource:
        """Build from a recipe."""
        return cls(options, context.labels, root=context.root, ignore_unknown_ids=context.ignore_unknown_ids)

    @cached_property
    def _listing(self) -> Listing:
        return self.list_entries()

    def list_entries(self) -> Listing:
        """Find all samples without opening a picture; what a subclass overrides whose format lists them itself.

        Raises:
            DataError: Something cannot be read, or names nothing.
        """
        return list_samples(self.layout)

    def ids(self) -> Sequence[str]:
        """Return the ids in the order of the list, else sorted; no picture is opened."""
        return tuple(self._listing.entries)

    def load(self, sample_id: str) -> Sample:
        """Read one sample; ``meta`` holds the file names relative to the recipe."""
        try:
            entry = self._listing.entries[sample_id]
        except KeyError:
            hint = did_you_mean(sample_id, self._listing.entries)
            raise DataError(f"no sample is called {sample_id!r}", where="data", hint=hint) from None
        image, mask, read = self._read(entry)
        if read.foreign and not self.ignore_unknown_ids:
            ids = ", ".join(map(str, read.foreign[:_MANY_IDS])) + (" ..." if len(read.foreign) > _MANY_IDS else "")
            what = f"the mask has ids outside the class table ({ids})"
            clue = self._clue(set(read.foreign)) or "Name them in labels if they are classes"
            read.findings.append(Finding(what, self._name(entry.mask), f"{self._allowed()}. {clue}"))
        if read.findings:
            first = read.findings[0]
            raise DataError(f"{first.subject}: {first.what}", where=f"sample {sample_id}", hint=first.hint or None)
        files = {"image_file": entry.image, "mask_file": entry.mask}
        return Sample(sample_id, image, mask, {key: self._name(path) for key, path in files.items() if path})

    def parts(self) -> Collection[SamplePart]:
        """Return what at least one of the samples has; no picture is opened."""
        entries = self._listing.entries.values()
        files: dict[SamplePart, bool] = {
            "image": any(entry.image is not None for entry in entries),
            "mask": any(entry.mask is not None for entry in entries),
        }
        return [part for part, there in files.items() if there]

    def folders(self) -> Sequence[Path]:
        """Return the folders of the images and of the masks."""
        return [folder for folder in (self.layout.images, self.layout.masks) if folder is not None]

    def id_of(self, file_name: str) -> str:
        """Return the id that the sample of an image file of this name would have."""
        name = PurePath(file_name).name
        return strip_suffix(name, self.layout.image_suffixes) or name

    def survey(self) -> Survey:
        """Read every file once, in threads, and tell equal problems together."""
        survey = Survey()
        try:
            listing = self._listing
        except GenaugError as error:
            survey.problems.append(Remark(str(error)))
            return survey
        entries = list(listing.entries.values())
        survey.samples = len(entries)
        findings, foreign, notes = list(listing.findings), dict[int, list[str]](), list[Finding]()
        blank, single, ignore = list[str](), list[str](), self.labels.ignore_index
        # Threads overlap the waiting for files (network folders above all); processes would cost a start each.
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            results = pool.map(self._surveyed, entries)
            for entry, read in tqdm(zip(entries, results, strict=True), "check", len(entries), unit="sample", delay=1):
                findings += read.findings
                notes += read.notes
                for class_id in read.foreign:
                    foreign.setdefault(class_id, []).append(self._name(entry.mask))
                if read.pixels is not None:
                    classes = np.count_nonzero(read.pixels) - (read.pixels[ignore] > 0)
                    {0: blank, 1: single}.get(int(classes), []).append(self._name(entry.mask))
                survey.add(image=read.image, size=read.size, pixels=read.pixels, strokes=read.strokes)
                if read.lost is not None:
                    survey.add_lost(self._name(entry.mask), read.lost)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for a hundred thousand files
        survey.problems = summarize(findings) + binary(survey, self.labels)
        survey.notes = summarize(notes)
        (survey.notes if self.ignore_unknown_ids else survey.problems).extend(self._foreign(foreign))
        self._tell_blank(blank, survey)
        survey.note_single_class(single, ignore)
        survey.note_lost(self.labels)
        return survey

    def read_entry_labels(self, entry: Entry, *, size: tuple[int, int] | None, notes: list[Finding]) -> Mask:
        """Read the labels of one sample; what a subclass overrides where one file has the labels of many images.

        Arguments, result and errors are those of `read_labels`, which it calls with ``entry.mask``.
        """
        assert entry.mask is not None  # `_read` sees to that
        return self.read_labels(entry.mask, size=size, notes=notes)

    def read_labels(self, path: Path, *, size: tuple[int, int] | None, notes: list[Finding]) -> Mask:  # noqa: ARG002
        """Read the labels of one image; what a subclass for another format of labels overrides.

        Args:
            path: The file that `mask_suffix` found.
            size: ``(height, width)`` of the image; None without a readable one.
            notes: Where to leave what is no problem but should not stay unsaid.

        Returns:
            uint8 ``[H, W]`` of ids, checked against the class table and the image afterwards.

        Raises:
            RefusedError: The file cannot be used.
        """
        return read_mask(path, name=self._name(path), colors=self._colors, max_pixels=self.options.max_pixels)

    # ------------------------------------------------------------------ one sample

    def _surveyed(self, entry: Entry) -> _Read:
        _, mask, read = self._read(entry, missing=False)
        if mask is not None:
            strokes = find_strokes(mask, self.labels.ignore_index)
            read.strokes = None if strokes is None else strokes.count()
            if self.seen_at is not None:
                read.lost = count_lost(mask, strokes, self.seen_at(mask.shape))
        return read

    def _read(self, entry: Entry, *, missing: bool = True) -> tuple[Image | None, Mask | None, _Read]:
        """Read the files of one sample.

        Args:
            entry: Its files.
            missing: Report missing files; a survey has them from the listing already.
        """
        read, options = _Read(), self.options
        image: Image | None = None
        mask: Mask | None = None
        if entry.image is not None and (missing or entry.image.is_file()):
            try:
                name = self._name(entry.image)
                image = read_image(entry.image, name=name, gray=options.gray, max_pixels=options.max_pixels)
                read.image, read.size = True, image.shape[:2]
            except RefusedError as error:
                read.findings += error.findings
        if entry.mask is not None and (missing or entry.mask.is_file()):
            try:
                mask = self.read_entry_labels(entry, size=read.size, notes=read.notes)
                read.size, read.pixels = mask.shape, count_ids(mask)
                known = {*self.labels.ids, self.labels.ignore_index}
                read.foreign = tuple(int(i) for i in np.flatnonzero(read.pixels) if int(i) not in known)
                if read.foreign and self.ignore_unknown_ids:
                    mask[np.isin(mask, read.foreign)] = self.labels.ignore_index
                    read.pixels = count_ids(mask)
            except RefusedError as error:
                read.findings += error.findings
        if image is not None and mask is not None and image.shape[:2] != mask.shape:
            sizes = (
                f"{self._name(entry.image)} ({_size(image.shape)}) and {self._name(entry.mask)} ({_size(mask.shape)})"
            )
            hint = "Resize masks with nearest neighbour only, or find the right files"
            read.findings.append(Finding("image and mask differ in size (width x height)", sizes, hint))
        if missing:
            wanted = (("image", self.layout.images, entry.image), ("mask", self.layout.masks, entry.mask))
            absent = [kind for kind, folder, path in wanted if folder is not None and path is None]
            there = self._name(entry.image or entry.mask) or entry.id
            read.findings += [Finding(f"there is no {kind} file", there) for kind in absent]
        return image, mask, read

    def _name(self, path: Path | None) -> str:
        return "" if path is None else self.layout.name(path)

    # ------------------------------------------------------------------ all samples

    def _foreign(self, foreign: dict[int, list[str]]) -> list[Remark]:
        """Tell of ids outside the class table: one remark each, or one on all where they can hardly be classes."""
        if self.ignore_unknown_ids:
            allowed = f"Ignored, as the recipe's generator asks (set to {self.labels.ignore_index})"
        else:
            allowed = self._allowed()
        if len(foreign) > _MANY_IDS:
            files = tuple(sorted({name for names in foreign.values() for name in names}))
            what = f"the masks hold {len(foreign)} ids outside the class table ({_ranges(sorted(foreign))})"
            advice = "If they are classes, name them in labels; blended edges, instance numbers and photographs look "
            return [Remark(what, files, f"{allowed}. {advice}like this too")]
        clue = "" if self.ignore_unknown_ids else self._clue(set(foreign))
        return [
            Remark(f"id {i} is not in the class table", tuple(names), f"{allowed}{f'. {clue}' if clue else ''}")
            for i, names in sorted(foreign.items())
        ]

    def _allowed(self) -> str:
        return f"Allowed: {_ranges(self.labels.ids)} and the ignore index {self.labels.ignore_index}"

    def _clue(self, foreign: set[int]) -> str:
        """Return what one foreign id gives away: masks numbered from another start, or black-and-white ones."""
        ids, ignore = self.labels.ids, self.labels.ignore_index
        if foreign == {255} and ignore == 0 and len(ids) > 1:
            return (
                "If 0 is a class here and 255 means unlabelled, every id is one lower than the table says (as after "
                f"reduce_zero_label): number the classes from 0, with ignore_index 255{self._other_set('ade150-zero')}"
            )
        if foreign == {ids[-1] + 1} and ids == tuple(range(len(ids))) and len(ids) > 1:
            return (
                "If 0 means unlabelled here, every id is one higher than the table says (as ADE20K is released): "
                f"number the classes from 1, with ignore_index 0{self._other_set('ade150')}"
            )
        if foreign == {255} and len(ids) > 1:
            return f"If 255 means the foreground, {FOREGROUND}"
        return ""

    def _other_set(self, name: str) -> str:
        """Return the advice to use a named set that has this table's class names under other ids, or nothing."""
        other = LabelSpace.from_config(name)
        return f" (labels: {name})" if tuple(other.names.values()) == tuple(self.labels.names.values()) else ""

    def _tell_blank(self, blank: list[str], survey: Survey) -> None:
        """Tell of masks without a labelled pixel: a problem if there is none in the whole set, else a note."""
        ignore = self.labels.ignore_index
        if blank and len(blank) == survey.masks:
            meaning = FOREGROUND if ignore == 255 else "make it a class and name another ignore_index"
            hint = f"Ignored is the id {ignore}. If it means something that is seen, {meaning}"
            what = "every pixel of every mask is ignored, so there is nothing to learn from"
            survey.problems.append(Remark(what, tuple(blank), hint))
        elif blank:
            survey.notes.append(Remark(f"masks whose every pixel is ignored (id {ignore})", tuple(blank)))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _ranges(ids: Sequence[int]) -> str:
    """Return ids as ``'0-10, 12'``."""
    parts: list[list[int]] = []
    for number in ids:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
