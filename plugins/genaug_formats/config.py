"""Options of the sources. Light: pydantic only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from genaug.config import Options
from genaug.sources.config import MAX_PIXELS, FolderOptions


class PictureOptions(Options):
    """How pictures are read, whatever the format; paths of all options are relative to the recipe."""

    gray: bool = Field(False, description="Accept 8-bit gray images and repeat their channel three times.")
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=MAX_PIXELS, description="Largest picture that is decoded.")


class ListedOptions(PictureOptions):
    """As before, with a choice of samples."""

    labeled: str | None = Field(
        None, min_length=1, description="Text file that names the samples to use; everything when absent."
    )


class VocOptions(ListedOptions):
    """Options of the source ``voc``."""

    root: str = Field(min_length=1, description="Folder that holds JPEGImages, SegmentationClass and ImageSets.")
    split: str | None = Field(None, min_length=1, description="List in ImageSets/Segmentation: train, val, trainval.")
    images: str = Field("JPEGImages", min_length=1, description="Folder of the images below the root.")
    masks: str = Field(
        "SegmentationClass",
        min_length=1,
        description="Folder of the masks below the root; SegmentationClassAug is SBD.",
    )
    color_map: bool = Field(
        False, description="Masks are RGB, as annotation tools export them; labels.colors says which class is which."
    )

    @model_validator(mode="after")
    def _one_list(self) -> VocOptions:
        if (self.split is None) == (self.labeled is None):
            raise ValueError("name one list: 'split' (ImageSets/Segmentation/<split>.txt) or 'labeled' (any file)")
        return self


class CityscapesOptions(ListedOptions):
    """Options of the source ``cityscapes``."""

    root: str = Field(min_length=1, description="Folder that holds leftImg8bit and gtFine.")
    split: str = Field("train", min_length=1, description="Folder below both: train, val, train_extra.")
    annotations: Literal["gtFine", "gtCoarse"] = Field("gtFine", description="Fine or coarse polygons.")
    ids: Literal["labelIds", "trainIds"] = Field(
        description="What masks shall hold: labelIds (0..33, as released) or trainIds (0..18 and ignore)."
    )
    files: Literal["labelIds", "labelTrainIds"] = Field(
        "labelIds", description="Files to read: as released, or written by cityscapesScripts' createTrainIdLabelImgs."
    )

    @model_validator(mode="after")
    def _not_backwards(self) -> CityscapesOptions:
        if self.files == "labelTrainIds" and self.ids == "labelIds":
            raise ValueError("files of trainIds hold no labelIds: 16 of those became 'ignore'. Set ids to trainIds")
        return self


class KittiOptions(ListedOptions):
    """Options of the source ``kitti``."""

    root: str = Field(min_length=1, description="Folder that holds the split.")
    split: str = Field("training", min_length=1, description="Folder below the root.")
    images: str = Field("image_2", min_length=1, description="Folder of the images below the split.")
    masks: str = Field("semantic", min_length=1, description="Folder of the masks below the split.")
    ids: Literal["labelIds", "trainIds"] = Field(
        description="labelIds: as stored (Cityscapes' labelIds in KITTI itself); trainIds: mapped to 0..18 and ignore."
    )


class Ade20kOptions(ListedOptions):
    """Options of the source ``ade20k``."""

    root: str = Field(min_length=1, description="Folder that holds images and annotations (ADEChallengeData2016).")
    split: str = Field("training", min_length=1, description="Folder below both: training or validation.")
    reduce_zero_label: bool = Field(
        description="true: 0 becomes the ignore index and every other id is lowered by one; false: as released."
    )


class CocoStuffOptions(ListedOptions):
    """Options of the source ``coco-stuff``."""

    images: str = Field(min_length=1, description="Folder of the images: train2017.")
    masks: str = Field(min_length=1, description="Folder of the PNG maps: stuffthingmaps/train2017.")
    ids: Literal["stored", "category"] = Field(
        description="stored: 0..181 as in the files; category: COCO's ids 1..182. Unlabelled is 255 in the files."
    )


class CocoPanopticOptions(ListedOptions):
    """Options of the source ``coco-panoptic``."""

    images: str = Field(min_length=1, description="Folder of the images: train2017.")
    masks: str = Field(min_length=1, description="Folder of the PNG files: annotations/panoptic_train2017.")
    annotations: str = Field(min_length=1, description="JSON file: annotations/panoptic_train2017.json.")
    match: Literal["id", "name"] = Field(
        "id", description="How categories become classes: category id = class id, or by name (ids above 255 need that)."
    )
    others: Literal["error", "ignore"] = Field(
        "error", description="Segments of categories that the class table lacks: a problem, or ignored and noted."
    )


class TextListOptions(PictureOptions):
    """Options of the source ``text-list``."""

    root: str = Field(min_length=1, description="Folder that the paths in the list refer to.")
    list: str = Field(min_length=1, description="Text file with 'image mask' or 'image None' in every line.")
    masks: Literal["required", "optional", "unused"] = Field(
        "required",
        description="required: every line names a mask; optional: None means unlabelled; unused: no mask is read.",
    )


class TagOptions(ListedOptions):
    """What files of tagged shapes have in common."""

    background: str | None = Field(
        None, min_length=1, description="Class of pixels under no shape; ignored when absent: unlabelled is no class."
    )
    tags: dict[str, str | None] = Field(
        default_factory=dict,
        description="Tag in the files -> class name, where they differ; null ignores what the tag's shapes cover.",
    )


class LabelmeOptions(TagOptions):
    """Options of the source ``labelme``."""

    images: str = Field(min_length=1, description="Folder of the images.")
    annotations: str | None = Field(None, min_length=1, description="Folder of the JSON files; the images' by default.")
    image_suffixes: tuple[str, ...] = Field(
        FolderOptions.model_fields["image_suffixes"].default, min_length=1, description="Endings of image files."
    )
    recursive: bool = Field(False, description="Look into sub-folders too.")


class CvatOptions(TagOptions):
    """Options of the source ``cvat``."""

    images: str = Field(min_length=1, description="Folder that the image names in the XML refer to.")
    annotations: str = Field(min_length=1, description="XML file of a 'CVAT for images 1.1' export.")


class HuggingFaceOptions(PictureOptions):
    """Options of the source ``huggingface``."""

    path: str = Field(
        min_length=1, description="Folder (parquet, imagefolder, save_to_disk) or Hub id, as load_dataset takes them."
    )
    name: str | None = Field(None, min_length=1, description="Configuration of the dataset, where it has several.")
    revision: str | None = Field(None, min_length=1, description="Branch, tag or commit on the Hub; pin it.")
    split: str = Field("train", min_length=1, description="Split of the dataset.")
    image: str = Field("image", min_length=1, description="Column of the images.")
    mask: str | None = Field("mask", min_length=1, description="Column of the masks; null for unlabelled images.")
    id: str | None = Field(None, min_length=1, description="Column of unique names; row numbers when absent.")
    streaming: bool = Field(False, description="Read rows as they come and keep no copy on disk; quick in order only.")
    color_map: bool = Field(False, description="Masks are RGB; labels.colors says which colour is which class.")
