"""What this package provides."""

from __future__ import annotations

from collections.abc import Iterator

from genaug import Component, hookimpl

# name -> (target, options, summary)
_SOURCES = {
    "voc": ("layouts:VocSource", "VocOptions", "Pascal VOC: palette masks and lists of a split"),
    "cityscapes": ("layouts:CityscapesSource", "CityscapesOptions", "Cityscapes, as labelIds or as trainIds"),
    "kitti": ("layouts:KittiSource", "KittiOptions", "KITTI's semantic benchmark and sets in its form"),
    "ade20k": ("layouts:Ade20kSource", "Ade20kOptions", "ADE20K scene parsing, with or without reduced zero label"),
    "coco-stuff": ("layouts:CocoStuffSource", "CocoStuffOptions", "COCO-Stuff's maps of things and stuff"),
    "coco-panoptic": ("coco_panoptic:CocoPanopticSource", "CocoPanopticOptions", "COCO panoptic: segments to classes"),
    "text-list": ("text_list:TextListSource", "TextListOptions", "'image mask' lines as UniMatch and SENSE write them"),
    "labelme": ("labelme:LabelmeSource", "LabelmeOptions", "polygons and masks in labelme's JSON files"),
    "cvat": ("cvat:CvatSource", "CvatOptions", "polygons and masks in a 'CVAT for images 1.1' export"),
}
_WRITERS = {
    "folder": ("FolderWriter", "two folders of pictures and index masks"),
    "voc": ("VocWriter", "Pascal VOC: JPEGImages, SegmentationClass and a list"),
    "coco-panoptic": ("CocoPanopticWriter", "COCO panoptic: RGB segments and a JSON file"),
    "text-list": (
        "TextListWriter",
        "pictures, also without masks, and a list of 'image mask' lines (UniMatch, SENSE)",
    ),
}


@hookimpl
def genaug_components() -> Iterator[Component]:
    """Declare the sources and the writers."""
    for name, (target, options, summary) in _SOURCES.items():
        config = f"genaug_formats.config:{options}"
        yield Component("source", name, f"genaug_formats.{target}", config=config, summary=summary)
    yield Component(
        "source",
        "huggingface",
        "genaug_formats.huggingface:HuggingFaceSource",
        config="genaug_formats.config:HuggingFaceOptions",
        summary="a Hugging Face dataset with columns of pictures",
        requires=("datasets",),
        extra="data",
    )
    for name, (writer, summary) in _WRITERS.items():
        config = f"genaug_formats.writer_config:{writer}Options"
        yield Component("writer", name, f"genaug_formats.writers:{writer}", config=config, summary=summary)
    yield Component(
        "writer",
        "huggingface",
        "genaug_formats.write_huggingface:HuggingFaceWriter",
        config="genaug_formats.writer_config:ShardWriterOptions",
        summary="a Hugging Face dataset: parquet files, a card and class names",
        requires=("datasets",),
        extra="data",
    )
    yield Component(
        "writer",
        "webdataset",
        "genaug_formats.write_webdataset:WebDatasetWriter",
        config="genaug_formats.writer_config:ShardWriterOptions",
        summary="shards of tar files for the webdataset library",
        requires=("webdataset",),
        extra="data",
    )
