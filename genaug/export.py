"""Samples to other formats: what a writer is, and the folder it writes, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from genaug.errors import ConfigError, DataError, SampleError, StoreError
from genaug.labels import LabelSpace
from genaug.types import Sample

if TYPE_CHECKING:
    from genaug.registry import Registry
    from genaug.sources.base import Source
    from genaug.store import SampleStore

#: Written last into every exported folder; what a later export may replace has it.
RECORD = "genaug-export.json"
CLASSES = "classes.json"
_VERSION = 1
_OLD = "replaced"  # where an earlier export waits until the new one is in its place


class Samples(Sized, Iterable[Sample], Protocol):
    """A known number of samples that are read one at a time: a `Source`, a `TrainingView`, a list."""


@dataclass(frozen=True, slots=True)
class SampleSet:
    """What is exported.

    Args:
        samples: Read once, one at a time, in order.
        labels: Class table of the masks.
        synthetic: A model made the images, which files shall say.
        title: Name for cards and descriptions.
        folders: Where they are read from; no export may lie there.
    """

    samples: Samples
    labels: LabelSpace
    synthetic: bool
    title: str = "genaug"
    folders: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @classmethod
    def of_store(cls, store: SampleStore) -> SampleSet:
        """Return what training would see of a store: kept by every filter, untrusted pixels ignored.

        Raises:
            StoreError: A filter has not judged every sample yet.
        """
        name = str(store.info["recipe"].get("name", "genaug"))
        folders = (store.path / "images", store.path / "masks")
        return cls(store.training_view(), store.labels, synthetic=True, title=name, folders=folders)

    @classmethod
    def of_source(cls, source: Source, labels: LabelSpace, *, title: str = "genaug") -> SampleSet:
        """Return all samples of a source."""
        return cls(source, labels, synthetic=False, title=title, folders=tuple(source.folders()))


class Writer(ABC):
    """Writes samples in one format. Recipes are not concerned: ``genaug export --to NAME`` looks it up by name.

    Registered as a component of kind ``writer``, built by ``from_config(options, context)`` or by keywords.
    """

    #: Whether samples without a mask can be written.
    takes_unlabelled: bool = False

    @abstractmethod
    def write(self, samples: Iterator[Sample], folder: Path, what: SampleSet) -> None:
        """Write all samples into the empty `folder`, one at a time.

        Args:
            samples: Each with an image ``[H, W, 3]``, a mask ``[H, W]`` (unless `takes_unlabelled`) of ids of the class
                table, and an id that no other sample has and that file names and lists can hold.
            folder: Where to write; what lies there afterwards becomes the target in one step.
            what: Class table, number of samples and the like; ``what.samples`` is `samples` unchecked.
        """


def build_writer(name: str, options: Mapping[str, Any], labels: LabelSpace, registry: Registry) -> Writer:
    """Return the writer component `name`, built from its options.

    Raises:
        UnknownComponentError, ConfigError, MissingDependencyError: As the names say.
    """
    from genaug.recipe import BuildContext

    writer: Writer = BuildContext(Path(), labels, registry).build("writer", name, options, where=f"--to {name}")
    return writer


def check_target(target: Path, what: SampleSet) -> bool:
    """Return whether `target` holds an earlier export that will be replaced; False if it is free.

    Raises:
        StoreError: It holds anything else, or lies in a folder that the samples are read from.
    """
    for folder in what.folders:
        if target.resolve().is_relative_to(folder.resolve()):
            raise StoreError(
                f"it lies in {folder}, from which the samples are read", where=str(target), hint="Name another folder"
            )
    if not target.exists() and not target.is_symlink():
        return False
    if target.is_symlink() or not target.is_dir():
        raise StoreError("is a link or a file", where=str(target), hint="Name another folder")
    if not any(target.iterdir()):
        return False
    try:
        record = json.loads((target / RECORD).read_bytes())
        known, names = int(record["files"]), str(record["names"])
    except (OSError, ValueError, KeyError, TypeError):
        known, names = 0, ""
    if not known:
        raise StoreError(
            "the folder is not empty, and no earlier export", where=str(target), hint="Name another folder, or empty it"
        )
    if names != _names_digest(target):
        raise StoreError(
            f"the folder holds an earlier export of {known} files, but files were added, renamed or removed since",
            where=str(target),
            hint="Name another folder, or empty it",
        )
    return True


def export(what: SampleSet, writer: Writer, target: str | Path, *, name: str) -> dict[str, Any]:
    """Write samples in another format.

    Files are written beside the target and moved there in one step when all of them are complete and on disk; an export
    that fails leaves no trace, and one that is killed nothing but a hidden folder, which the next one removes. An
    earlier export in the target stays until then.

    Args:
        what: The samples.
        writer: Their format.
        target: Folder to make; empty, absent or an earlier export.
        name: The format's name, for the record.

    Returns:
        JSON-like: ``to``, ``output``, ``samples``, ``files``, ``bytes``, ``synthetic``, ``replaced``.

    Raises:
        StoreError: The target holds something else, or the operating system refuses.
        ConfigError, SampleError, DataError: There is no sample, or one that the format cannot hold.
    """
    output, target = str(target), Path(target).absolute()  # '.' has no name to put a hidden folder beside
    if not len(what):
        raise ConfigError("there is no sample to export", where=str(target), hint="Do the filters drop all of them?")
    check_target(target, what)
    try:
        with _workplace(target) as folder:
            replaced = check_target(target, what)
            written = _Checked(what, writer)
            writer.write(iter(written), folder, what)
            if written.count != len(what):  # a set that miscounts itself, or a writer that stops early
                found = f"{written.count} of {len(what)} samples were written"
                raise SampleError(found, where=f"{type(writer).__name__}, {target}")
            labels = json.dumps(what.labels.to_dict(), indent=2, ensure_ascii=False)
            (folder / CLASSES).write_text(labels + "\n", "utf-8")
            report = {"to": name, "samples": len(what), "synthetic": what.synthetic, **_sizes(folder)}
            record = {"format": "genaug-export", "version": _VERSION, **report, "names": _names_digest(folder)}
            (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
            _sync(folder)
            _move(folder, target, replaced=replaced)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        found = error.strerror or str(error)
        hint = "Nothing was left behind; remove the cause and run the command again"
        raise StoreError(f"cannot write: {found}", where=str(error.filename or target), hint=hint) from error
    return {**report, "output": output, "replaced": replaced}


class _Checked:
    """The samples with a progress bar, less what no writer shall have to think of, which is refused."""

    def __init__(self, what: SampleSet, writer: Writer) -> None:
        self.what, self.unlabelled = what, writer.takes_unlabelled
        self.count = 0
        self._seen: dict[str, str] = {}  # what disks without capitals make of an id -> the id
        self._known = np.zeros(256, bool)
        self._known[[*what.labels.ids, what.labels.ignore_index]] = True

    def __iter__(self) -> Iterator[Sample]:
        from genaug.engine.progress import bar

        for sample in bar(self.what.samples, "export", total=len(self.what)):
            self._check(sample)
            self.count += 1
            yield sample

    def _check(self, sample: Sample) -> None:
        where = f"sample {sample.id!r}"
        key = unicodedata.normalize("NFD", unicodedata.normalize("NFD", sample.id).casefold())
        if self._seen.get(key) == sample.id:
            raise SampleError("two samples have this id", where=where)
        if key in self._seen:
            raise SampleError(
                f"{self._seen[key]!r} differs from it by capitals or the encoding of accents only",
                where=where,
                hint="On many disks, those of macOS and Windows above all, both are one file: rename one",
            )
        self._seen[key] = sample.id
        if sample.id != sample.id.strip() or sample.id[0] in ".#" or not sample.id.isprintable():
            raise SampleError(
                "an id that files and lists cannot hold",
                where=where,
                allowed="printable letters, no space at the ends, no '.' or '#' at the start",
            )
        if sample.image is None:
            raise DataError("there is no image", where=where, hint="Masks alone cannot be exported")
        if sample.mask is None and not self.unlabelled:
            hint = "This format needs masks; 'genaug plugins' says which formats (writers) take images without"
            raise DataError("there is no mask", where=where, hint=hint)
        if sample.mask is not None and not self._known[sample.mask].all():
            foreign = np.unique(sample.mask[~self._known[sample.mask]])
            raise SampleError(f"the mask has ids outside the class table: {foreign[:8].tolist()}", where=where)


# ---------------------------------------------------------------------- the folder


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target: hidden, locked while it is in use, removed afterwards."""
    from genaug.store.lock import EVERYTHING, hold

    base = target.with_name(f".{target.name}.tmp-export")
    base.mkdir(parents=True, exist_ok=True)
    with hold(base, EVERYTHING):  # another export to the same target is refused
        try:
            if (base / _OLD).exists() and not target.exists():  # an export was killed between its two renames
                (base / _OLD).rename(target)
            shutil.rmtree(base / "files", ignore_errors=True)
            (base / "files").mkdir()
            yield base / "files"
        finally:
            shutil.rmtree(base, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _sizes(folder: Path) -> dict[str, int]:
    sizes = [path.stat().st_size for path in _files(folder)]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _names_digest(folder: Path) -> str:
    """Return a hash of the names of all files but the record: whether something was added or removed since."""
    from genaug.recipe import digest

    return digest([path.relative_to(folder).as_posix() for path in _files(folder) if path != folder / RECORD])


def _sync(folder: Path) -> None:
    """Bring every file to the disk, so that a power failure after the move cannot leave empty ones."""
    from genaug.store.files import sync_folder

    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for parent, _, _ in os.walk(folder):
        sync_folder(Path(parent))


def _move(folder: Path, target: Path, *, replaced: bool) -> None:
    """Put the finished folder in the target's place."""
    from genaug.store.files import sync_folder

    old = folder.with_name(_OLD)
    if replaced:
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    elif target.exists():
        target.rmdir()  # empty, else `check_target` would have refused
    try:
        folder.rename(target)
    except OSError:
        if replaced:
            old.rename(target)
        raise
    sync_folder(target.parent)
