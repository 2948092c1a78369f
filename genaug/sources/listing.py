"""Which files belong together: folders joined by file stem, optionally restricted by a list file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from genaug.errors import DataError
from genaug.sources.survey import Finding

_NO_LIST_HINT = "Add the files, or name the samples to use in a list file (labeled: list.txt)"
_FETCH_HINT = "Fetch what the link stands for (git annex get, datalad get, dvc pull), or remove it"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files are and how they are called; the fields are those of `FolderOptions`, with paths resolved."""

    images: Path | None
    masks: Path | None
    labeled: Path | None
    image_suffixes: tuple[str, ...]
    mask_suffix: str
    recursive: bool
    root: Path

    def name(self, path: Path) -> str:
        """Return how reports call a file: relative to the recipe where possible."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


@dataclass(frozen=True, slots=True)
class Entry:
    """The files of one sample; None where there is none."""

    id: str
    image: Path | None
    mask: Path | None


@dataclass(slots=True)
class Listing:
    """All samples in their order, and what is wrong with how they are listed."""

    entries: dict[str, Entry] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def list_samples(layout: Layout) -> Listing:
    """Find all samples without opening any picture.

    Raises:
        DataError: A folder or the list cannot be read, or names nothing.
    """
    findings: list[Finding] = []
    images, masks = _scan_images(layout, findings), _scan_masks(layout, findings)
    if layout.labeled is not None:
        return _listed(layout, images, masks, findings)
    listing = Listing(findings=findings)
    for sample_id in sorted({*images, *masks}):
        entry = Entry(sample_id, images.get(sample_id), masks.get(sample_id))
        listing.entries[sample_id] = entry
        if layout.images is not None and entry.image is None and entry.mask is not None:
            findings.append(Finding("masks without image", layout.name(entry.mask), _NO_LIST_HINT))
        if layout.masks is not None and entry.mask is None and entry.image is not None:
            findings.append(Finding("images without mask", layout.name(entry.image), _NO_LIST_HINT))
    return listing


# ---------------------------------------------------------------------- folders


def _scan_images(layout: Layout, findings: list[Finding]) -> dict[str, Path]:
    if layout.images is None:
        return {}
    skip = ""
    if layout.images == layout.masks and layout.mask_suffix not in layout.image_suffixes:
        skip = layout.mask_suffix.lower()
    return _scan(layout, layout.images, layout.image_suffixes, "image", findings, skip=skip)


def _scan_masks(layout: Layout, findings: list[Finding]) -> dict[str, Path]:
    if layout.masks is None:
        return {}
    return _scan(layout, layout.masks, (layout.mask_suffix,), "mask", findings)


def _scan(
    layout: Layout, folder: Path, suffixes: Sequence[str], kind: str, findings: list[Finding], *, skip: str = ""
) -> dict[str, Path]:
    """Return id -> file; a second file of the same id is a finding, and what looks like one and is none."""
    result: dict[str, Path] = {}
    endings: Counter[str] = Counter()
    for path, is_file in sorted(_files(folder, layout, kind)):
        if skip and path.name.lower().endswith(skip):
            continue
        sample_id = strip_suffix(path.name, suffixes)
        # Without an ending it may stand for a sub-folder.
        if not is_file and (sample_id is not None or (layout.recursive and not path.suffix)):
            findings.append(
                Finding("links to nothing, or other entries that are no file", layout.name(path), _FETCH_HINT)
            )
        if sample_id is None:
            endings[path.suffix] += 1
        elif sample_id in result:
            other = f"{layout.name(result[sample_id])}, {layout.name(path)}"
            hint = "Rename one, or say which ending you mean in image_suffixes"
            findings.append(Finding(f"{kind}s that share a name", f"{sample_id} ({other})", hint))
        else:
            result[sample_id] = path
    if not result and layout.labeled is None:  # a list may name files in sub-folders by their path
        there = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in endings.most_common(3))
        raise DataError(
            f"{layout.name(folder)} holds no {kind} that ends in {' or '.join(suffixes)} "
            f"(found: {there or 'no files'})",
            hint="Set image_suffixes or mask_suffix, or 'recursive: true' for files in sub-folders",
        )
    return result


def _files(folder: Path, layout: Layout, kind: str) -> Iterator[tuple[Path, bool]]:
    """Yield what a folder holds besides folders, and whether it is a file: links may lead nowhere."""
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise DataError(f"the folder of {kind}s {layout.name(folder)} {what}")
    try:
        yield from _walk(folder, {folder.resolve()} if layout.recursive else None)
    except OSError as error:
        raise DataError(f"the folder of {kind}s cannot be read: {error}") from error


def _walk(folder: Path, known: set[Path] | None) -> Iterator[tuple[Path, bool]]:
    """Do what `_files` does; hidden entries, which file managers and notebooks leave behind, do not count.

    Links to folders are followed, but into no folder twice: they may lead back to where they lie. `known` has the
    places of the folders so far; None keeps out of sub-folders.
    """
    with os.scandir(folder) as entries:
        # Links come last, so that files have their own names rather than those of links beside them.
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: (e.is_symlink(), e.name))
    for entry in found:
        path = Path(entry.path)
        # Only links need a look at the disk, which takes long in network folders.
        if not (path.is_dir() if entry.is_symlink() else entry.is_dir()):
            yield path, path.is_file() if entry.is_symlink() else entry.is_file()
        elif known is not None and (place := path.resolve()) not in known:
            known.add(place)
            yield from _walk(path, known)


def strip_suffix(name: str, suffixes: Sequence[str]) -> str | None:
    """Return the sample id of a file name: what precedes the longest ending that fits; None if none does."""
    for suffix in sorted(suffixes, key=len, reverse=True):
        if name.lower().endswith(suffix.lower()) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


# ---------------------------------------------------------------------- list files


def read_list(path: Path) -> list[tuple[int, str]]:
    """Return ``(line number, text)`` of a list file, without blank lines and ``#`` comments.

    Raises:
        DataError: Unreadable, not UTF-8, or empty.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read: {error}") from error
    entries = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    entries = [(number, text) for number, text in entries if text and not text.startswith("#")]
    if not entries:
        raise DataError(f"the list {path} names no sample", hint="Write one file stem a line")
    return entries


def _listed(layout: Layout, images: dict[str, Path], masks: dict[str, Path], findings: list[Finding]) -> Listing:
    assert layout.labeled is not None
    result = Listing()
    for number, text in read_list(layout.labeled):
        place = f"{text} (line {number})"
        columns = _columns(text, {*images, *masks})
        if len(columns) > 2:
            hint = "Write a stem or 'image mask'; separate names that hold spaces by a tab"
            result.findings.append(Finding("list lines of more than two columns", place, hint))
            continue
        entry = _entry(layout, columns, images, masks)
        if entry.id in result.entries:
            result.findings.append(Finding("samples listed twice", place, "Keep one of the lines"))
            continue
        result.entries[entry.id] = entry
        for kind, folder, path in (("image", layout.images, entry.image), ("mask", layout.masks, entry.mask)):
            if folder is not None and (path is None or not path.is_file()):
                hint = f"Looked in {layout.name(folder)}; mend {layout.name(layout.labeled)} or the file names"
                if path is not None and path.is_symlink():
                    hint = _FETCH_HINT
                result.findings.append(Finding(f"listed samples without {kind} file", place, hint))
    # Of what lies in the folders only the listed samples matter.
    names = tuple(f"{sample_id} (" for sample_id in result.entries)
    result.findings += [f for f in findings if f.subject.startswith(names)]
    return result


def _columns(text: str, known: set[str]) -> list[str]:
    if "\t" in text:
        return [column.strip() for column in text.split("\t")]
    return [text] if text in known else text.split()


def _entry(layout: Layout, columns: list[str], images: dict[str, Path], masks: dict[str, Path]) -> Entry:
    """Find the files of one list line: a stem, a file name or path, or an image and a mask."""
    first = columns[0]
    if layout.images is not None:
        sample_id, image = _find(layout.images, first, layout.image_suffixes, images)
    else:
        suffixes = (layout.mask_suffix, *layout.image_suffixes)
        sample_id, image = strip_suffix(PurePath(first).name, suffixes) or PurePath(first).name, None
    if layout.masks is None:
        return Entry(sample_id, image, None)
    if len(columns) == 2:
        return Entry(sample_id, image, None if columns[1] == "None" else below(layout.masks, columns[1]))
    inside = PurePath()
    if layout.images is not None and image is not None and image.is_relative_to(layout.images):
        inside = image.relative_to(layout.images).parent
    mirrored = layout.masks / inside / (sample_id + layout.mask_suffix)
    return Entry(sample_id, image, mirrored if mirrored.is_file() else masks.get(sample_id))


def _find(folder: Path, token: str, suffixes: Sequence[str], index: dict[str, Path]) -> tuple[str, Path | None]:
    """Return the id and the file that a stem, file name or path means; the file need not exist."""
    name = PurePath(token).name
    if token in index:
        return token, index[token]
    sample_id = strip_suffix(name, suffixes)
    if sample_id is not None:
        return sample_id, below(folder, token)
    explicit = (below(folder, token + suffix) for suffix in suffixes)
    return name, next((path for path in explicit if path.is_file()), index.get(name))


def below(folder: Path, entry: str) -> Path:
    """Return the file that a list entry means.

    Lists name files relative to the folder or to one above it: ``JPEGImages/a.jpg`` with the folder
    ``VOC2012/JPEGImages`` is ``VOC2012/JPEGImages/a.jpg``. The longest overlap counts.
    """
    parts, own = PurePath(entry).parts, folder.parts
    for length in range(min(len(parts) - 1, len(own)), 0, -1):
        if own[-length:] == parts[:length]:
            return folder.joinpath(*parts[length:])
    return folder / entry
