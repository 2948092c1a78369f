"""Options of the writers. Light: pydantic only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genaug.config import Options

_NAME = r"^[A-Za-z0-9_]+$"


class PictureWriterOptions(Options):
    """How images are written; masks are always lossless."""

    image_format: Literal["png", "jpg"] = Field("png", description="png keeps every value; jpg is smaller and lossy.")
    quality: int = Field(95, ge=1, le=100, description="Quality of jpg.")


class FolderWriterOptions(PictureWriterOptions):
    """Options of the writer ``folder``."""


class VocWriterOptions(PictureWriterOptions):
    """Options of the writer ``voc``."""

    image_format: Literal["png", "jpg"] = Field("jpg", description="VOC's own are jpg, and its readers expect that.")
    split: str = Field("train", pattern=_NAME, description="Name of the list in ImageSets/Segmentation.")
    palette: bool = Field(
        True,
        description="Masks with VOC's palette, as published; false: plain gray, safe with tools that convert to gray.",
    )


class CocoPanopticWriterOptions(PictureWriterOptions):
    """Options of the writer ``coco-panoptic``."""

    split: str = Field("train", pattern=_NAME, description="Name of the split in folders and file names.")
    offset: Literal[0, 1] = Field(
        0,
        description="Added to class ids to make category ids; 1 for tools that take category 0 for none (datumaro).",
    )


class TextListWriterOptions(PictureWriterOptions):
    """Options of the writer ``text-list``."""

    list: str = Field("labeled.txt", pattern=r"^[A-Za-z0-9_.-]+\.txt$", description="Name of the list.")


class ShardWriterOptions(PictureWriterOptions):
    """Options of the writers ``huggingface`` and ``webdataset``."""

    split: str = Field("train", pattern=_NAME, description="Name of the split, and what shard names start with.")
    samples_per_shard: int = Field(1000, ge=1, description="Samples of a file: rows of parquet, or members of a tar.")
