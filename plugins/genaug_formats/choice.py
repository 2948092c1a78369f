"""What formats share that list their samples themselves: a choice among them, and a look for their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

from genaug.sources.listing import Listing, read_list
from genaug.sources.survey import Finding


def chosen(listing: Listing, labeled: Path | None, *, name: Callable[[Path | None], str]) -> Listing:
    """Return the samples that the list file `labeled` names, in its order; all of them if it is None.

    A line holds a sample id, or a file name or path whose stem is one. Files that do not exist become findings.

    Args:
        listing: All samples.
        labeled: The list file.
        name: Returns how reports call a file.

    Raises:
        DataError: The list cannot be read, or names nothing.
    """
    result = listing if labeled is None else _listed(listing, labeled)
    for entry in result.entries.values():
        for kind, path in (("image", entry.image), ("mask", entry.mask)):
            if path is not None and not path.is_file():
                result.findings.append(Finding(f"{kind}s that do not exist", name(path)))
    return result


def _listed(listing: Listing, labeled: Path) -> Listing:
    result = Listing()
    for number, text in read_list(labeled):
        sample_id = text if text in listing.entries else PurePath(text).stem
        if sample_id not in listing.entries:
            hint = f"Mend {labeled.name}, or the names of the samples"
            result.findings.append(Finding("listed samples that do not exist", f"{text} (line {number})", hint))
        elif sample_id in result.entries:
            result.findings.append(Finding("samples listed twice", f"{text} (line {number})", "Keep one of the lines"))
        else:
            result.entries[sample_id] = listing.entries[sample_id]
    return result
