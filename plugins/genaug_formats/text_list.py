"""The source ``text-list``: what UniMatch, SENSE and their relatives read."""

from __future__ import annotations

from pathlib import Path, PurePath

from genaug.errors import DataError
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug.sources.listing import Entry, Listing, read_list
from genaug.sources.survey import Finding
from genaug_formats.choice import chosen
from genaug_formats.config import TextListOptions

_FORM = "Write 'image mask' or 'image None'; separate names that hold spaces by a tab"


class TextListSource(FolderSource):
    """One line a sample: paths of its image and its mask below one folder, ``None`` where there is no mask.

    The sample's id is the image's file name without its ending. Lists of unlabelled images may name masks all the same,
    as UniMatch's do; with ``masks: unused`` none is opened.

    Args:
        options: Where list and files are.
        labels: Class table that masks are checked against.
        root: Folder that the paths of `options` refer to.
        ignore_unknown_ids: Set ids outside the class table to the ignore index and note it; a problem otherwise.
    """

    def __init__(
        self, options: TextListOptions, labels: LabelSpace, *, root: Path, ignore_unknown_ids: bool = False
    ) -> None:
        folder = FolderOptions(images=options.root, gray=options.gray, max_pixels=options.max_pixels)
        super().__init__(folder, labels, root=root, ignore_unknown_ids=ignore_unknown_ids)
        self.file = root / Path(options.list).expanduser()
        self.masks = options.masks

    def list_entries(self) -> Listing:
        """Return the samples in the list's order."""
        assert self.layout.images is not None
        below, listing = self.layout.images, Listing()
        for number, text in read_list(self.file):
            place = f"{text} (line {number})"
            columns = [column.strip() for column in text.split("\t")] if "\t" in text else text.split()
            if len(columns) > 2 or (len(columns) < 2 and self.masks != "unused"):
                listing.findings.append(Finding("list lines that are not 'image mask'", place, _FORM))
                continue
            mask = None if columns[-1] == "None" or self.masks == "unused" else below / columns[1]
            if mask is None and self.masks == "required":
                hint = "Set 'masks: optional' to read such lines as unlabelled images"
                listing.findings.append(Finding("listed samples without mask", place, hint))
            sample_id = PurePath(columns[0]).stem
            if sample_id in listing.entries:
                hint = "Keep one of the lines; two files of one name in two folders need other names"
                listing.findings.append(Finding("samples listed twice", place, hint))
                continue
            listing.entries[sample_id] = Entry(sample_id, below / columns[0], mask)
        if not listing.entries:
            raise DataError(
                "the list holds no usable line", problems=map(_told, listing.findings), where=str(self.file)
            )
        return chosen(listing, None, name=self._name)


def _told(finding: Finding) -> str:
    return f"{finding.what}: {finding.subject}. {finding.hint}"
