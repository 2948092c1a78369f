"""What a folder of a stranger holds: which folders are images and masks, how files pair up, which lists fit."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from genaug.errors import DataError
from genaug.sources.config import FolderOptions
from genaug.sources.listing import read_list, strip_suffix

_PICTURES = FolderOptions.model_fields["image_suffixes"].default
_DEPTH = 4
_IMAGE = re.compile(r"(jpeg|rgb|raw|left)?(image|img|photo|picture|input)s?(8bit)?|jpegs?|rgb", re.IGNORECASE)
_MASK = re.compile(
    r"masks?|scribbles?|label(train)?(id|map)?s?|annot(ation)?s?|seg(mentation)?s?(class)?(aug)?|gt(fine)?s?|ground_?truths?|targets?",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"train(ing|val)?|val(idation)?|dev|test(ing)?", re.IGNORECASE)
_HELD_OUT = re.compile(r"(^|[^a-z])(val|valid|validation|dev|test|testing|holdout)([^a-z]|$)", re.IGNORECASE)
_ENDING = re.compile(r"[_-][A-Za-z][A-Za-z0-9]*$")

EXPECTED = (
    "images and masks in two folders side by side (images + masks, labels, annotations, SegmentationClass ...), below "
    "or above train/, or in one folder (a.jpg + a.png, a.png + a_mask.png)"
)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two folders whose files belong together.

    Args:
        images: Folder of the images.
        masks: Folder of the masks.
        image_suffixes: Endings of the images; None for the defaults.
        mask_suffix: What follows the id in mask names.
        recursive: Files lie in sub-folders.
        ids: Ids that have both files, sorted.
        single: Images and masks without partner.
    """

    images: Path
    masks: Path
    image_suffixes: tuple[str, ...] | None
    mask_suffix: str
    recursive: bool
    ids: tuple[str, ...]
    single: tuple[Path, ...]


def find_pairs(root: Path) -> list[Pairing]:
    """Return all pairings below `root`, the likeliest training set first.

    Raises:
        DataError: There is no folder, or nothing in it pairs up.
    """
    if not root.is_dir():
        raise DataError("does not exist" if not root.exists() else "is no folder", where=str(root))
    folders = dict(_picture_folders(root))
    pairs: dict[tuple[Path, Path], Pairing] = {}
    for strict in (True, False):
        for images, masks in _candidates(root, folders, strict=strict):
            pairing = _pair(images, masks, folders[images], folders[masks])
            if pairing is not None:
                pairs[images, masks] = pairing
        if pairs:
            break
    joined = _join(root, list(pairs.values()))
    if not joined:
        counts = ", ".join(f"{len(names)} in {folder}" for folder, names in list(folders.items())[:3])
        found = f"found pictures: {counts}" if counts else "found no pictures"
        raise DataError(f"no images with masks; {found}", where=str(root), hint=f"genaug init looks for {EXPECTED}")
    return sorted(joined, key=lambda pairing: _rank(root, pairing))


def find_lists(root: Path, ids: Iterable[str]) -> list[Path]:
    """Return the text files below `root` that name samples of `ids` and nothing else, likeliest first.

    Lists of labelled samples come before lists of all training samples; lists of held-out or unlabelled ones are left
    out.
    """
    known = set(ids)
    found = []
    for folder, _, names in _walk(root):
        for name in names:
            path = folder / name
            text = str(path.relative_to(root)).lower()
            if not name.lower().endswith(".txt") or "unlab" in text or _HELD_OUT.search(PurePath(name).stem):
                continue
            if _names_only(path, known):
                found.append((0 if "label" in name.lower() else 1 if "train" in text else 2, text, path))
    return [path for _, _, path in sorted(found)]


def _names_only(path: Path, known: set[str]) -> bool:
    try:
        entries = [text for _, text in read_list(path)]
    except DataError:
        return False
    return all(text in known or _stem(text) in known for text in entries)


def _stem(text: str) -> str:
    name = PurePath((text.split("\t") if "\t" in text else text.split())[0]).name
    return strip_suffix(name, _PICTURES) or name


# ---------------------------------------------------------------------- folders


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk like `os.walk`, not into hidden folders, deep ones or sample stores.

    Links to folders are followed, as the source ``folder`` does it, but into no folder twice. They come last, so that
    folders are called by their own names.
    """
    known, starts = set[Path](), [root]
    for start in starts:  # grows by the links that are met
        for parent, folders, files in os.walk(start):
            folder = Path(parent)
            place = folder.resolve()
            stop = place in known or len(folder.relative_to(root).parts) >= _DEPTH
            folders[:] = [] if stop else sorted(f for f in folders if not f.startswith("."))
            if place in known:
                continue
            known.add(place)
            if "manifest.jsonl" in files and "dataset.json" in files:
                folders[:] = []
                continue
            starts += [folder / name for name in folders if (folder / name).is_symlink()]
            yield folder, folders, sorted(f for f in files if not f.startswith("."))


def _picture_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, _, files in _walk(root):
        pictures = [f for f in files if strip_suffix(f, _PICTURES) is not None]
        if pictures:
            yield folder, pictures


def _candidates(root: Path, folders: Iterable[Path], *, strict: bool) -> Iterator[tuple[Path, Path]]:
    """Yield (images, masks) whose paths differ only in the words that say which is which; any if not `strict`."""
    folders = list(folders)
    contexts = {folder: _context(root, folder) for folder in folders}
    for masks in folders:
        if _kind(root, masks) != "mask":
            continue
        images = [f for f in folders if _kind(root, f) != "mask"]
        yield from ((f, masks) for f in images if contexts[f] == contexts[masks] or not strict)
    yield from ((folder, folder) for folder in folders)


def _kind(root: Path, folder: Path) -> str:
    words = [word for part in folder.relative_to(root).parts for word in _words(part)]
    if any(_MASK.fullmatch(word) for word in words):
        return "mask"
    return "image" if any(_IMAGE.fullmatch(word) for word in words) else ""


def _context(root: Path, folder: Path) -> tuple[str, ...]:
    """Return the path's words less those that mean images or masks: what both folders of a pair share."""
    words = [word.lower() for part in folder.relative_to(root).parts for word in _words(part)]
    return tuple(sorted(word for word in words if not _MASK.fullmatch(word) and not _IMAGE.fullmatch(word)))


def _words(part: str) -> list[str]:
    """Split a folder name: ``train_labels`` -> train, labels; ``trainannot`` -> train, annot."""
    words = []
    for word in re.split(r"[_\-. ]+", part):
        joined = re.fullmatch(rf"({_SPLIT.pattern})({_MASK.pattern}|{_IMAGE.pattern})", word, re.IGNORECASE)
        words += [joined.group(1), word[len(joined.group(1)) :]] if joined else [word]
    return words


def _rank(root: Path, pairing: Pairing) -> tuple[object, ...]:
    text = str(pairing.images.relative_to(root))
    return (
        bool(_HELD_OUT.search(text)),
        "train" not in text.lower(),
        _kind(root, pairing.images) != "image",
        "scribble" in pairing.masks.name.lower(),  # whoever has full masks too wants those
        -len(pairing.ids),
        text,
        str(pairing.masks),
    )


# ---------------------------------------------------------------------- files


def _pair(images: Path, masks: Path, image_names: list[str], mask_names: list[str]) -> Pairing | None:
    if images == masks:
        return _pair_within(images, image_names)
    stems = {PurePath(name).stem: name for name in image_names}
    suffixes: tuple[str, ...] | None = None
    suffix, ids = _mask_suffix(set(stems), mask_names)
    if not ids:  # images that all end alike, as in a_leftImg8bit.png
        ends = {match.group() if (match := _ENDING.search(stem)) else "" for stem in stems}
        if len(ends) != 1 or ends == {""} or len(stems) < 2:
            return None
        end = ends.pop()
        stems = {stem.removesuffix(end): name for stem, name in stems.items()}
        suffixes = tuple(sorted({end + PurePath(name).suffix for name in image_names}))
        suffix, ids = _mask_suffix(set(stems), mask_names)
    if not ids:
        return None
    of_mask = {i: name for name in mask_names if (i := strip_suffix(name, [suffix])) is not None}
    bare = [images / name for stem, name in stems.items() if stem not in of_mask]
    bare += [masks / name for stem, name in of_mask.items() if stem not in stems]
    return Pairing(images, masks, suffixes, suffix, False, tuple(sorted(ids)), tuple(sorted(bare)))


def _pair_within(folder: Path, names: list[str]) -> Pairing | None:
    """Pair files of one folder: two endings (a.jpg, a.png), or two names (a.png, a_mask.png)."""
    endings = Counter(PurePath(name).suffix for name in names)
    suffix, ids = _mask_suffix({PurePath(name).stem for name in names}, names, longer_than_ending=True)
    if 4 * len(ids) >= len(names):  # fewer are files that happen to be called alike
        images = tuple(sorted({PurePath(n).suffix for n in names if not n.endswith(suffix)}))
        single = _single(folder, names, ids, (*images, suffix))
        return Pairing(folder, folder, images, suffix, False, tuple(sorted(ids)), single)
    if set(endings) & {".png"} and len(endings) == 2:  # masks are kept without loss, so the PNGs are the masks
        (other,) = set(endings) - {".png"}
        ids = {PurePath(n).stem for n in names if n.endswith(other)} & {
            PurePath(n).stem for n in names if n.endswith(".png")
        }
        if ids:
            single = _single(folder, names, ids, (other, ".png"))
            return Pairing(folder, folder, (other,), ".png", False, tuple(sorted(ids)), single)
    return None


def _single(folder: Path, names: Iterable[str], ids: set[str], suffixes: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of one folder whose names, less their ending, are no id of a pair."""
    return tuple(folder / name for name in sorted(names) if strip_suffix(name, suffixes) not in ids)


def _mask_suffix(stems: set[str], names: list[str], *, longer_than_ending: bool = False) -> tuple[str, set[str]]:
    """Return what most mask names add to an image's stem, and the stems that have such a mask."""
    found: dict[str, set[str]] = {}
    for name in names:
        cuts = [i for i, letter in enumerate(name) if letter in "._-" and i > 0]
        for cut in reversed(cuts):
            if name[:cut] in stems and not (longer_than_ending and name[cut:] == PurePath(name).suffix):
                found.setdefault(name[cut:], set()).add(name[:cut])
                break
    if not found:
        return "", set()
    suffix = max(sorted(found), key=lambda s: len(found[s]))
    return suffix, found[suffix]


def _join(root: Path, pairs: list[Pairing]) -> list[Pairing]:
    """Join pairs that lie in equally named sub-folders (cities, scenes) of the same two folders into one."""
    groups: dict[tuple[Path, Path], list[Pairing]] = {}
    result = []
    for pair in pairs:
        named_alike = pair.images.name == pair.masks.name and pair.images != pair.masks
        if named_alike and root not in (pair.images, pair.masks) and not _SPLIT.fullmatch(pair.images.name):
            groups.setdefault((pair.images.parent, pair.masks.parent), []).append(pair)
        else:
            result.append(pair)
    for (images, masks), group in groups.items():
        first, ids = group[0], [i for pair in group for i in pair.ids]
        if len({(p.image_suffixes, p.mask_suffix) for p in group}) > 1 or len(set(ids)) < len(ids):
            result += group
            continue
        single = tuple(path for pair in group for path in pair.single)
        joined = Pairing(images, masks, first.image_suffixes, first.mask_suffix, True, tuple(sorted(ids)), single)
        result.append(joined)
    return result
