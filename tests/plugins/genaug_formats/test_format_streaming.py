"""Readers and writers hold one sample at a time: four times as many of them need no more memory."""

import base64
import io
import json

import datasets
import numpy as np
import pytest
from PIL import Image
from streaming import FEW, MANY, SIDE, assert_streams

from genaug.export import SampleSet, build_writer, export
from genaug.labels import LabelSpace
from genaug.recipe import load_recipe
from genaug.registry import default_registry
from genaug.types import Sample

LABELS = LabelSpace({0: "sky", 1: "road", 2: "car"})
TABLE = dict(LABELS.names)


class Drawn:
    """Pictures of noise, each drawn when its turn comes."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        for number in range(self.count):
            rng = np.random.default_rng(number)
            image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            yield Sample(f"s{number}", image, rng.choice(np.array([0, 1, 2, 255], np.uint8), (SIDE, SIDE)))


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    # Parquet is written and read 100 rows at once, whatever the number of samples.
    monkeypatch.setattr("genaug_formats.write_huggingface._GROUP", 1)


# ---------------------------------------------------------------------- out

WRITERS = ["folder", "voc", "coco-panoptic", "text-list", "webdataset", "huggingface"]


def write(folder, name, count):
    writer = build_writer(name, {"image_format": "png"}, LABELS, default_registry())
    export(SampleSet(Drawn(count), LABELS, synthetic=False), writer, folder, name=name)


@pytest.mark.parametrize("name", WRITERS)
def test_writers(name, tmp_path):
    assert_streams(lambda count: write(tmp_path / f"{count}", name, count))


# ---------------------------------------------------------------------- in

# Readers whose files a writer makes: what the recipe says of them.
WRITTEN = {
    "folder": {"images": "images", "masks": "masks"},
    "voc": {"root": ".", "split": "train"},
    "coco-panoptic": {
        "images": "train",
        "masks": "annotations/panoptic_train",
        "annotations": "annotations/panoptic_train.json",
    },
    "text-list": {"root": ".", "list": "labeled.txt"},
    "huggingface": {"path": "."},
}
# Readers of two folders: the same, and where the files of a sample lie.
LAID_OUT = {
    "cityscapes": (
        {"root": ".", "split": "train", "ids": "labelIds"},
        "leftImg8bit/train/a/{}_leftImg8bit.png",
        "gtFine/train/a/{}_gtFine_labelIds.png",
    ),
    "kitti": ({"root": ".", "ids": "labelIds"}, "training/image_2/{}.png", "training/semantic/{}.png"),
    "ade20k": (
        {"root": ".", "reduce_zero_label": False},
        "images/training/{}.png",
        "annotations/training/{}.png",
    ),
    "coco-stuff": ({"images": "images", "masks": "maps", "ids": "stored"}, "images/{}.png", "maps/{}.png"),
}


def lay_out(root, images, masks, count):
    for sample in Drawn(count):
        for place, pixels in ((images, sample.image), (masks, np.minimum(sample.mask, 2))):
            file = root / place.format(sample.id)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)


def write_labelme(root, count):
    lay_out(root, "photos/{}.png", "masks/{}.png", count)
    for file in sorted((root / "masks").iterdir()):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(Image.open(file)) == 2).save(buffer, "PNG")
        corners = [[0, 0], [SIDE - 1, SIDE - 1]]
        box = {"label": "road", "points": corners, "shape_type": "rectangle"}
        mask = {"label": "car", "points": corners, "shape_type": "mask"}
        mask["mask"] = base64.b64encode(buffer.getvalue()).decode()
        content = {"imageHeight": SIDE, "imageWidth": SIDE, "shapes": [box, mask]}
        (root / f"photos/{file.stem}.json").write_text(json.dumps(content), "utf-8")


def write_cvat(root, count):
    lay_out(root, "images/{}.png", "masks/{}.png", count)
    shape = f'<polygon label="road" points="1,1;{SIDE},1;{SIDE},{SIDE - 1}"/>'
    images = [f'<image name="s{n}.png" width="{SIDE}" height="{SIDE}">{shape}</image>' for n in range(count)]
    (root / "annotations.xml").write_text(f"<annotations>{''.join(images)}</annotations>", "utf-8")


def prepare(root, name, count):
    """Write `count` samples as the source `name` reads them; return what a recipe says of them."""
    if name in WRITTEN:
        write(root, name, count)
        return WRITTEN[name]
    if name in LAID_OUT:
        data, images, masks = LAID_OUT[name]
        lay_out(root, images, masks, count)
        return data
    if name == "labelme":
        write_labelme(root, count)
        return {"images": "photos"}
    write_cvat(root, count)
    return {"images": "images", "annotations": "annotations.xml"}


@pytest.mark.parametrize("name", [*WRITTEN, *LAID_OUT, "labelme", "cvat", "huggingface streamed"])
def test_readers(name, tmp_path):
    kind, _, streamed = name.partition(" ")

    def read(count):
        data = {"format": kind, **said[count], **({"streaming": True} if streamed else {})}
        source = load_recipe({"labels": TABLE, "data": data}, root=tmp_path / f"{count}").source()
        assert sum(1 for _ in source) == count

    said = {count: prepare(tmp_path / f"{count}", kind, count) for count in (FEW, MANY)}
    assert_streams(read)
