"""The readers that come with genaug; they enter by the same door as anybody else's."""

from __future__ import annotations

from collections.abc import Iterator

from genaug.component import Component
from genaug.hookspecs import hookimpl


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the source ``folder``."""
    yield Component(
        "source",
        "folder",
        "genaug.sources.folder:FolderSource",
        config="genaug.sources.config:FolderOptions",
        summary="Folders of images and masks, optionally restricted by a list file.",
    )
