"""What ``genaug init`` writes: a commented recipe for a folder of images and masks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genaug.errors import DataError

if TYPE_CHECKING:
    from genaug.cli.names import NamesFile
    from genaug.labels import Color
    from genaug.sources.discover import Pairing

_MANY = 64  # more ids or colours than this are hardly classes


@dataclass(frozen=True, slots=True)
class _Classes:
    """The class table to propose, and a comment line on each thing the reader should know of it."""

    names: Mapping[int, str]
    ignore_index: int
    colors: Mapping[int, Color]
    comments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A recipe to write.

    Args:
        text: The recipe.
        listing: Lines of the list file that the recipe names, None when it names none of ours.
        notes: What the reader should know before anything else, one line each.
    """

    text: str
    listing: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def own_list(output: Path) -> Path:
    """Return the list file that is written beside the recipe `output` when some files have no partner."""
    return output.with_name(f"{output.stem}-labeled.txt")


def propose(folder: Path, output: Path) -> Proposal:
    """Return a recipe for what lies in `folder`; its paths are relative to the folder of `output`.

    Raises:
        DataError: Nothing pairs up, no mask can be read, or no pixel of them is labelled.
    """
    from genaug.cli.names import find_names
    from genaug.registry import default_registry
    from genaug.sources.discover import find_lists, find_pairs
    from genaug.sources.known import find_known

    known = find_known(folder, default_registry().names("source"))
    if known is not None:
        data = {"format": known.data["format"], "root": _relative(known.root, output), **known.data}
        labels = (f"# The classes of {known.title}.", f"labels: {known.labels}")
        return Proposal("\n".join(_text(folder, output, data, labels, known.comments)) + "\n", None)
    pairs = find_pairs(folder)
    pairing = pairs[0]
    lists = find_lists(folder, pairing.ids)
    data = _data_options(pairing, _choose(lists), output)
    names = find_names(folder)
    if names is not None and set(names.names.values()) & set(pairing.ids):
        names = None  # a list of samples that is called like a list of classes
    colors = _colors(pairing)
    if colors is not None:
        data["color_map"] = True
    classes = _by_id(pairing, names) if colors is None else _by_color(colors, names)
    comments = _data_comments(folder, pairs, lists)
    text = "\n".join(_text(folder, output, data, _label_lines(classes), comments)) + "\n"
    if data.get("labeled") != own_list(output).name:
        return Proposal(text, None)
    return Proposal(text, tuple(_own_listing(pairing, output)), tuple(_left_out(pairing, output)))


def _own_listing(pairing: Pairing, output: Path) -> Iterator[str]:
    """Yield the ids that have both files, then as comments the files left out, every one of them."""
    yield from pairing.ids
    yield "# Left out, since they have no partner:"
    yield from (f"# {_relative(path, output)}" for path in pairing.single)


def _left_out(pairing: Pairing, output: Path) -> Iterator[str]:
    from genaug.sources.survey import Remark

    masks = {path for path in pairing.single if _is_mask(path, pairing)}
    for what, files in (
        ("images without mask", [path for path in pairing.single if path not in masks]),
        ("masks without image", [path for path in pairing.single if path in masks]),
    ):
        if files:
            names = tuple(_relative(path, output) for path in files)
            yield str(Remark(what, names, f"Left out; {own_list(output)} names all of them"))


def _is_mask(path: Path, pairing: Pairing) -> bool:
    if pairing.images == pairing.masks:
        return path.name.lower().endswith(pairing.mask_suffix.lower())
    return path.is_relative_to(pairing.masks) and not path.is_relative_to(pairing.images)


# ---------------------------------------------------------------------- data


def _data_options(pairing: Pairing, chosen: Path | None, output: Path) -> dict[str, Any]:
    options: dict[str, Any] = {
        "format": "folder",
        "images": _relative(pairing.images, output),
        "masks": _relative(pairing.masks, output),
    }
    if pairing.image_suffixes is not None:
        options["image_suffixes"] = list(pairing.image_suffixes)
    if pairing.mask_suffix != ".png":
        options["mask_suffix"] = pairing.mask_suffix
    if pairing.recursive:
        options["recursive"] = True
    if chosen is not None:
        options["labeled"] = _relative(chosen, output)
    elif pairing.single:
        options["labeled"] = own_list(output).name
    return options


def _choose(lists: list[Path]) -> Path | None:
    """Return the list to use: the only one of labelled samples, else the only one of all training samples."""
    labeled = [path for path in lists if "label" in path.name.lower()]
    if labeled:
        return labeled[0] if len(labeled) == 1 else None
    return lists[0] if len(lists) == 1 else None


def _relative(path: Path, output: Path) -> str:
    return Path(os.path.relpath(path.resolve(), output.resolve().parent)).as_posix()


def _data_comments(folder: Path, pairs: list[Pairing], lists: list[Path]) -> Iterator[str]:
    yield f"{len(pairs[0].ids)} images have a mask."
    if pairs[0].single and _choose(lists) is None:
        yield f"{len(pairs[0].single)} files have no partner, so the list names those that do; they follow as comments."
    others = [f"{p.images.relative_to(folder)} + {p.masks.relative_to(folder)}" for p in pairs[1:4]]
    if others:
        yield f"Also found, and left alone: {', '.join(others)}."
    if lists and _choose(lists) is None:
        shown = ", ".join(str(path.relative_to(folder)) for path in lists[:3])
        more = f" and {len(lists) - 3} more" if len(lists) > 3 else ""
        yield f"Lists that fit these images, for the key 'labeled': {shown}{more}."


# ---------------------------------------------------------------------- classes


def _mask_files(pairing: Pairing) -> list[Path]:
    from genaug.sources.listing import Layout, list_samples

    layout = Layout(None, pairing.masks, None, (), pairing.mask_suffix, pairing.recursive, pairing.masks)
    wanted = set(pairing.ids)
    return [e.mask for e in list_samples(layout).entries.values() if e.mask is not None and e.id in wanted]


def _colors(pairing: Pairing) -> list[Color] | None:
    """Return the colours of RGB masks, sorted; None when the first mask holds ids."""
    import numpy as np
    import PIL.Image
    from tqdm import tqdm

    files = _mask_files(pairing)
    found: set[int] = set()
    unread: list[str] = []
    for path in tqdm(files, "masks", unit="mask", delay=1):
        try:
            with PIL.Image.open(path) as picture:
                if picture.mode != "RGB":
                    if not found:
                        return None
                    continue  # the check that follows names it
                wide = np.asarray(picture).astype(np.uint32)
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
            unread.append(f"{path}: {error}")
            continue
        found |= set(np.unique((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]).tolist())
        if len(found) > _MANY:
            raise DataError(
                f"the masks are RGB and hold more than {_MANY} colours",
                where=str(pairing.masks),
                hint="Blended colours come from resizing or saving with loss; init needs masks of plain colours",
            )
    if not found:
        raise DataError("no mask can be read", problems=unread, where=str(pairing.masks), hint="Fetch them again")
    return [(code >> 16, code >> 8 & 255, code & 255) for code in sorted(found)]


def _by_color(colors: list[Color], names: NamesFile | None) -> _Classes:
    comments = ["The masks are RGB; 'colors' says which colour is which class."]
    if names is not None and set(names.names) <= set(names.colors) and set(colors) & set(names.colors.values()):
        comments.append(f"Names and colours are from {names.path.name}.")
        ignore = 255 if names.ignore_index is None else names.ignore_index
        return _Classes(names.names, ignore, names.colors, tuple(comments))
    if names is not None:
        comments.append(
            f"The names in {names.path.name} are not used: it does not say which of these colours they have."
        )
    comments.append(_RENAME)
    return _Classes({i: f"class-{i}" for i in range(len(colors))}, 255, dict(enumerate(colors)), tuple(comments))


_RENAME = "RENAME the classes: the prompt is made of these names, so they should say what is seen."


def _by_id(pairing: Pairing, names: NamesFile | None) -> _Classes:
    from genaug.labels import LabelSpace
    from genaug.sources.config import FolderOptions
    from genaug.sources.folder import FolderSource

    anything = LabelSpace({i: str(i) for i in range(256) if i != 254}, ignore_index=254)
    folder = pairing.masks.resolve()
    options = FolderOptions(masks=str(folder), mask_suffix=pairing.mask_suffix, recursive=pairing.recursive)
    survey = FolderSource(options, anything, root=folder.parent).survey()
    if not survey.masks:
        raise DataError("no mask can be read", problems=map(str, survey.problems), where=str(pairing.masks))
    ids = list(survey.ids)
    ignore, comments = _ignore_index(ids, survey.masks_with.tolist(), names)
    if _is_palette(pairing):
        comments.append("The masks are palette files; genaug reads the index of a pixel, never its colour.")
    known = dict(names.names) if names is not None else {}
    if names is not None:
        comments.append(f"Names are from {names.path.name}.")
    if names is None:
        table = {i: f"class-{i}" for i in ids if i != ignore}
        comments.append(_RENAME)
    else:  # what the file does not name may be damage as well as a class: the check tells, and the user decides
        table = known
        foreign = [i for i in ids if i not in known and i != ignore]
        if foreign:
            some = ", ".join(map(str, foreign[:8])) + (" ..." if len(foreign) > 8 else "")
            comments.append(
                f"The masks hold ids that {names.path.name} does not name: {some}. Name them, or mend them."
            )
    if not table:
        raise DataError(
            f"every pixel of the {survey.masks} masks is {ignore}, which means that nobody labelled it",
            where=str(pairing.masks),
            hint=f"Label some pixels, or name {ignore} as a class in a file classes.txt: {ignore}: <name>",
        )
    if len(ids) > _MANY:
        comments.append(f"{len(ids)} ids are many: do the masks hold instance numbers or blended edges?")
    colors = {i: c for i, c in names.colors.items() if i in table or i == ignore} if names is not None else {}
    return _Classes(table, ignore, colors, tuple(comments))


def _is_palette(pairing: Pairing) -> bool:
    import PIL.Image

    try:
        with PIL.Image.open(_mask_files(pairing)[0]) as picture:
            return picture.mode == "P"
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        return False  # the check that follows names it


def _ignore_index(ids: list[int], masks_with: list[int], names: NamesFile | None) -> tuple[int, list[str]]:
    """Decide which id means "do not train here"; black-and-white masks use 255 for their foreground."""
    if names is not None and names.ignore_index is not None:
        return names.ignore_index, []
    taken = {*ids, *(names.names if names is not None else ())}
    if ids == [0, 255] or (names is not None and 255 in names.names):
        free = next(i for i in range(254, -1, -1) if i not in taken)
        return free, [f"255 is a class here (masks of 0 and 255), so the ignore index is {free}, which no mask holds."]
    if 255 in ids:
        return 255, [f"255 occurs in {masks_with[255]} masks; it is taken for pixels that nobody labelled."]
    return 255, ["No mask holds the ignore index."]


# ---------------------------------------------------------------------- text


def _label_lines(classes: _Classes) -> Iterator[str]:
    yield from (f"# {comment}" for comment in classes.comments)
    yield "labels:"
    yield "  names:"
    yield from (f"    {i}: {_value(class_name)}" for i, class_name in classes.names.items())
    if classes.colors:
        yield "  colors:"
        yield from (f"    {i}: {_value(list(color))}" for i, color in classes.colors.items())
    yield f"  ignore_index: {classes.ignore_index}"


def _text(
    folder: Path, output: Path, data: Mapping[str, Any], labels: Iterable[str], data_comments: Iterable[str]
) -> Iterator[str]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "recipe"
    yield f"# Written by 'genaug init'. Next: genaug check {output.name}, then genaug run {output.name}"
    yield f"name: {_value(name)}"
    yield "seed: 0  # the one source of randomness: the same seed gives the same samples"
    yield ""
    yield from labels
    yield ""
    yield from (f"# {comment}" for comment in data_comments)
    yield "data:"
    yield from (f"  {key}: {_value(value)}" for key, value in data.items())
    yield ""
    yield "generator:"
    yield "  use: matchmask"
    yield "  images_per_mask: 5"
    yield "  base: genaug-tiny  # comes with genaug, 64x64 pixels; for trying things out, on a CPU"
    yield "  preset: fast"
    yield "  guidance_scale: 4"
    yield "  training: {steps: 300, batch_size: 8, learning_rate: 1.0e-3}"
    yield "  # For real pictures replace these four lines by the paper's model, with its settings as defaults:"
    yield "  # base: CompVis/stable-diffusion-v1-4  # downloads some gigabytes, wants a GPU"
    yield ""
    yield "filters:"
    yield "  - use: relative"
    yield "    predictor: {use: small-unet}  # trains itself on the labelled data; or name a segmenter of your own"
    yield ""
    yield "output: synthetic"


def _value(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("\n...")
