"""Writers: what was written is read back, by genaug's own sources and by other libraries."""

import io
import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from format_sets import round_trip, sample_sets
from hypothesis import given, settings
from PIL import Image

from genaug.errors import ConfigError
from genaug.export import SampleSet, build_writer, export
from genaug.labels import LabelSpace, default_color
from genaug.recipe import load_recipe
from genaug.registry import default_registry
from genaug.store.files import SOURCE_TYPE
from genaug.types import Sample

LABELS = LabelSpace({0: "sky", 4: "road", 200: "car"}, 255, {4: (1, 2, 3)})
RNG = np.random.default_rng(3)
MASKS = {"one": [[0, 4, 200, 255]], "two": [[4], [4]], "three": [[255, 255]]}
SAMPLES = SampleSet(
    [
        Sample(name, RNG.integers(0, 256, (*np.shape(mask), 3), dtype=np.uint8), np.array(mask, np.uint8))
        for name, mask in MASKS.items()
    ],
    LABELS,
    synthetic=True,
    title="a set",
)


def write(folder, name, what=SAMPLES, **options):
    return export(what, build_writer(name, options, what.labels, default_registry()), folder, name=name)


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


# ---------------------------------------------------------------------- there and back


@settings(max_examples=10)
@given(sample_sets())
def test_folder(what):
    round_trip(what, "folder", {"format": "folder", "images": "out/images", "masks": "out/masks"})


@settings(max_examples=10)
@given(sample_sets())
def test_voc(what):
    round_trip(what, "voc", {"format": "voc", "root": "out", "split": "train"})
    round_trip(
        what, "voc", {"format": "voc", "root": "out", "split": "x"}, split="x", palette=False, image_format="png"
    )


@settings(max_examples=10)
@given(sample_sets())
def test_coco_panoptic(what):
    data = {"format": "coco-panoptic", "images": "out/train", "masks": "out/annotations/panoptic_train"}
    data["annotations"] = "out/annotations/panoptic_train.json"
    round_trip(what, "coco-panoptic", data)
    round_trip(what, "coco-panoptic", data | {"match": "name"}, offset=1)


@settings(max_examples=10)
@given(sample_sets())
def test_text_list(what):
    round_trip(what, "text-list", {"format": "text-list", "root": "out", "list": "out/labeled.txt"})


@settings(max_examples=5)
@given(sample_sets())
def test_huggingface(what):
    data = {"format": "huggingface", "path": "out", "id": "id", "streaming": True}
    round_trip(what, "huggingface", data, samples_per_shard=2)


@settings(max_examples=8)
@given(sample_sets())
# The library opens shards and never closes them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset(tmp_path_factory, what):
    folder = tmp_path_factory.mktemp("shards") / "out"
    write(folder, "webdataset", what, samples_per_shard=2)
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    assert len(shards) == -(-len(what) // 2)
    found = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert len(found) == len(what)
    for sample, row in zip(what.samples, found, strict=True):
        about = json.loads(row["json"])
        assert (about["id"], about["synthetic"], about["height"], about["width"]) == (
            sample.id, what.synthetic, *sample.size,
        )  # fmt: skip
        # Decoded here, since the library's own "pil" decoder turns masks into RGB.
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["mask.png"]))), sample.mask)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["png"]))), sample.image)


# ---------------------------------------------------------------------- what others find


def test_voc_masks_are_8_bit_palettes_in_the_colours_of_the_table(tmp_path):
    write(tmp_path / "out", "voc")
    with Image.open(tmp_path / "out/SegmentationClass/one.png") as picture:
        assert (picture.mode, picture.tile[0][3]) == ("P", "P")
        assert np.asarray(picture).tolist() == MASKS["one"]
        shown = np.asarray(picture.convert("RGB"))[0].tolist()
    assert shown == [[0, 0, 0], [1, 2, 3], list(default_color(200)), list(default_color(255))]
    with Image.open(tmp_path / "out/JPEGImages/one.jpg") as picture:
        assert picture.format == "JPEG"
        assert SOURCE_TYPE.encode() in picture.info["xmp"]
    assert (tmp_path / "out/ImageSets/Segmentation/train.txt").read_text() == "one\ntwo\nthree\n"
    write(tmp_path / "plain", "voc", palette=False)
    with Image.open(tmp_path / "plain/SegmentationClass/one.png") as picture:
        assert np.asarray(picture.convert("L")).tolist() == MASKS["one"]


def test_coco_panoptic_json_describes_its_pictures(tmp_path):
    write(tmp_path / "out", "coco-panoptic", split="val")
    content = json.loads((tmp_path / "out/annotations/panoptic_val.json").read_text())
    assert [(c["id"], c["name"], c["isthing"], c["color"]) for c in content["categories"]] == [
        (0, "sky", 0, [0, 0, 0]), (4, "road", 0, [1, 2, 3]), (200, "car", 0, list(default_color(200))),
    ]  # fmt: skip
    assert [(i["file_name"], i["height"], i["width"]) for i in content["images"]] == [
        ("one.png", 1, 4), ("two.png", 2, 1), ("three.png", 1, 2),
    ]  # fmt: skip
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        assert annotation["image_id"] == image["id"]
        with Image.open(tmp_path / "out/annotations/panoptic_val" / annotation["file_name"]) as picture:
            segments = np.asarray(picture).astype(int) @ [1, 256, 65536]
        mask = np.array(MASKS[annotation["file_name"].removesuffix(".png")])
        assert {s["id"] for s in annotation["segments_info"]} == set(np.unique(segments).tolist()) - {0}
        for segment in annotation["segments_info"]:
            covered = segments == segment["id"]
            assert (covered == (mask == segment["category_id"])).all()
            assert segment["area"] == covered.sum()
            x, y, width, height = segment["bbox"]
            assert covered[y : y + height, x : x + width].sum() == covered.sum()
            assert covered[y].any()
            assert covered[:, x].any()
            assert covered[y + height - 1].any()
            assert covered[:, x + width - 1].any()


def test_huggingface_datasets_opens_the_folder_and_finds_names_once(tmp_path):
    write(tmp_path / "out", "huggingface", samples_per_shard=2)
    found = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert found.features == datasets.Features(
        {"image": datasets.Image(), "mask": datasets.Image(), "id": datasets.Value("string")}
    )
    assert found["id"] == ["one", "two", "three"]
    for row, sample in zip(found, SAMPLES.samples, strict=True):
        assert row["mask"].mode == "L"
        np.testing.assert_array_equal(np.asarray(row["mask"]), sample.mask)
        np.testing.assert_array_equal(np.asarray(row["image"]), sample.image)
    assert json.loads((tmp_path / "out/id2label.json").read_text()) == {"0": "sky", "4": "road", "200": "car"}
    header = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---")[1])
    schemas = [pq.read_schema(path).metadata[b"genaug"] for path in sorted((tmp_path / "out/data").iterdir())]
    assert len(schemas) == 2
    for table in (header["genaug"], *(json.loads(schema)["labels"] for schema in schemas)):
        assert LabelSpace.from_config(table) == LABELS
    assert "synthetic" in header["tags"]


def test_lists_say_none_for_samples_without_mask_and_other_formats_refuse_them(tmp_path):
    image = np.zeros((1, 1, 3), np.uint8)
    what = SampleSet([Sample("a", image), Sample("b c", image, np.array([[4]], np.uint8))], LABELS, synthetic=False)
    write(tmp_path / "out", "text-list", what, list="all.txt")
    assert (tmp_path / "out/all.txt").read_text() == "images/a.png None\nimages/b c.png\tmasks/b c.png\n"
    data = {"format": "text-list", "root": "out", "list": "out/all.txt", "masks": "optional"}
    found = list(load_recipe({"labels": "out/classes.json", "data": data}, root=tmp_path).source())
    assert [s.mask is None for s in found] == [True, False]
    for name in ("folder", "voc", "coco-panoptic", "huggingface", "webdataset"):
        with pytest.raises(ValueError, match="sample 'a': there is no mask"):
            write(tmp_path / name, name, what)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["folder", "voc", "coco-panoptic", "text-list", "huggingface", "webdataset"])
def test_equal_samples_give_equal_bytes_and_synthetic_pictures_say_so(tmp_path, name):
    reports = [write(tmp_path / place, name) for place in ("first", "second")]
    files = [sorted(p for p in (tmp_path / place).rglob("*") if p.is_file()) for place in ("first", "second")]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    assert reports[0]["files"] == len(files[0]) - 1  # less the record
    assert any(SOURCE_TYPE.encode() in p.read_bytes() for p in files[0])
    write(tmp_path / "real", name, SampleSet(SAMPLES.samples, LABELS, synthetic=False))
    assert not any(SOURCE_TYPE.encode() in p.read_bytes() for p in (tmp_path / "real").rglob("*") if p.is_file())


def test_options_are_checked(tmp_path):
    for name, options, told in (
        ("folder", {"image_format": "gif"}, "image_format"),
        ("voc", {"split": "../x"}, "split"),
        ("huggingface", {"samples_per_shard": 0}, "samples_per_shard"),
        ("text-list", {"list": "sub/x.txt"}, "list"),
    ):
        with pytest.raises(ConfigError, match=f"--to {name}.*{told}|{told}"):
            write(tmp_path / "out", name, **options)
