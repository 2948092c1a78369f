"""Options of the sources. Light: imported by ``genaug check`` and nothing heavier than pydantic."""

from __future__ import annotations

from pydantic import Field, model_validator

from genaug.config import Options

#: Where Pillow itself refuses to open a picture; one of this size takes half a gigabyte.
MAX_PIXELS = 178_956_970


class FolderOptions(Options):
    """Options of the source ``folder``; paths are relative to the recipe."""

    images: str | None = Field(None, min_length=1, description="Folder of the images; absent for masks alone.")
    masks: str | None = Field(None, min_length=1, description="Folder of the masks; absent for unlabelled images.")
    labeled: str | None = Field(
        None, min_length=1, description="Text file that names the samples to use; everything when absent."
    )
    image_suffixes: tuple[str, ...] = Field(
        (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"),
        min_length=1,
        description="Endings of image files. What precedes the ending is the sample id.",
    )
    mask_suffix: str = Field(
        ".png", min_length=1, description="What replaces the image's ending in mask file names, e.g. '_label.png'."
    )
    recursive: bool = Field(False, description="Look into sub-folders too.")
    color_map: bool = Field(False, description="Masks are RGB; labels.colors says which colour is which class.")
    gray: bool = Field(False, description="Accept 8-bit gray images and repeat their channel three times.")
    max_pixels: int = Field(
        MAX_PIXELS,
        gt=0,
        le=MAX_PIXELS,
        description="Largest picture that is decoded; Pillow opens none above the default.",
    )

    @model_validator(mode="after")
    def _something_to_read(self) -> FolderOptions:
        if self.images is None and self.masks is None:
            raise ValueError("name a folder of images, of masks, or both")
        if self.color_map and self.masks is None:
            raise ValueError("color_map speaks of masks, but no folder of masks is named")
        return self
