import io
import re

import datasets
import numpy as np
import pytest
from PIL import Image

from genaug.errors import ConfigError, DataError, MissingDependencyError
from genaug.export import build_writer
from genaug.labels import LabelSpace, default_color
from genaug.registry import default_registry
from genaug_formats.config import HuggingFaceOptions
from genaug_formats.huggingface import HuggingFaceSource

LABELS = {0: "sky", 1: "road", 15: "person"}
DATA = {"format": "huggingface", "path": "set"}
MASKS = [[[0, 1, 255]], [[15, 15, 0]], [[1], [1]]]


def png(array, palette=False):
    picture = Image.fromarray(np.asarray(array, dtype=np.uint8))
    if palette:
        picture.putpalette([v for i in range(256) for v in default_color(i)])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def rows(masks=MASKS, **more):
    images = [png(np.full((*np.shape(m), 3), 50)) for m in masks]
    return {"image": images, "mask": [png(m, palette=True) for m in masks], **more}


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a dataset as one of the forms the library knows."""

    def write(content, form="parquet"):
        features = {
            c: datasets.Image() if isinstance(v[0], dict) else datasets.Value("string") for c, v in content.items()
        }
        data = datasets.Dataset.from_dict(content, features=datasets.Features(features))
        folder = tmp_path / "set"
        if form == "parquet":
            folder.mkdir(exist_ok=True)
            data.to_parquet(folder / "train.parquet")
        elif form == "disk":
            data.save_to_disk(folder)
        else:
            datasets.DatasetDict({"train": data}).save_to_disk(folder)

    return write


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["parquet", "disk", "disk of splits"])
def test_palette_masks_are_read_by_index_in_any_order(write, source, form, streaming):
    write(rows(), form)
    read = source(LABELS, streaming=streaming, **DATA)
    assert read.ids() == ("000000", "000001", "000002")
    assert [s.mask.tolist() for s in read] == MASKS
    assert [read.load(f"{i:06d}").mask.tolist() for i in (2, 0, 1, 1)] == [MASKS[i] for i in (2, 0, 1, 1)]
    assert read.check() == []
    assert read.load("000002").image.shape == (2, 1, 3)


def test_names_come_from_a_column(write, source):
    write(rows(key=["c", "a", "b"]))
    read = source(LABELS, id="key", **DATA)
    assert read.ids() == ("c", "a", "b")
    assert read.load("a").mask.tolist() == MASKS[1]
    with pytest.raises(DataError, match="no sample is called 'd'"):
        read.load("d")
    with pytest.raises(ConfigError, match=r"data.id: no column 'name'. Allowed: image, mask, key"):
        source(LABELS, id="name", **DATA).ids()
    assert source(LABELS, mask=None, **DATA).load("000000").mask is None


@pytest.mark.parametrize("name", [None, "", "street/a", "a\\b"])
def test_names_that_no_sample_can_have_are_told_with_their_row(write, source, name):
    write(rows(key=["c", "a", name]))
    with pytest.raises(DataError, match=re.escape(f"set, column 'key': row 2 has the name {name!r}.")):
        source(LABELS, id="key", **DATA).ids()


def test_columns_that_are_no_pictures_are_told(write, source):
    write(rows(key=["a", "a", "b"]))
    with pytest.raises(ConfigError, match=r"column 'label' is not there. Allowed: a column of pictures: image, mask"):
        source(LABELS, mask="label", **DATA).ids()
    with pytest.raises(ConfigError, match="column 'key' is Value"):
        source(LABELS, mask="key", **DATA).ids()
    with pytest.raises(DataError, match="names that occur twice in column 'key': a"):
        source(LABELS, id="key", **DATA).ids()


def test_wrong_rows_are_told_by_number(write, source):
    content = rows([[[0, 1]], [[0, 9]], [[0, 0]], [[0, 0]], [[0, 0]]])
    content["mask"][2] = png(np.zeros((1, 2, 3)))
    content["mask"][3] = {"bytes": b"no picture", "path": None}
    content["image"][4] = png(np.zeros((1, 2)))
    write(content)
    problems = source(LABELS, **DATA).check()
    for row, told in (
        (1, r"ids outside the class table \(9\)"),
        (2, "the mask is RGB: colours, not class ids"),
        (3, "the file cannot be read"),
        (4, "the image is gray"),
    ):
        (problem,) = [p for p in problems if f"row {row}," in p]
        with pytest.raises(DataError, match=told):
            source(LABELS, **DATA).load(f"{row:06d}")
        assert "column" in problem


def test_unknown_ids_are_ignored_and_noted_where_the_generator_asks(tmp_path, write):
    write(rows([[[0, 9]], [[9, 1]]]))
    read = HuggingFaceSource(HuggingFaceOptions(path="set"), LabelSpace(LABELS), root=tmp_path, ignore_unknown_ids=True)
    survey = read.survey()
    assert survey.problems == []
    assert "id 9 is not in the class table: 2x: row 0, row 1. Ignored" in str(survey.notes[0])
    assert read.load("000000").mask.tolist() == [[0, 255]]


def test_black_and_white_masks_are_told(write, source):
    write(rows([[[0, 255]], [[255, 0]]]))
    assert "0 and 255 only" in source(LABELS, **DATA).check()[0]


def test_what_is_not_there_is_told(tmp_path, write, source):
    with pytest.raises(DataError, match=r"the dataset cannot be opened.*without network"):
        source(LABELS, format="huggingface", path="somebody/nothing").ids()
    write(rows())
    with pytest.raises(DataError, match="the dataset cannot be opened"):
        source(LABELS, split="val", **DATA).ids()
    saved = datasets.Dataset.from_dict(rows(), split="train")
    for column in ("image", "mask"):
        saved = saved.cast_column(column, datasets.Image())
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="it holds the split train, not 'val'"):
        source(LABELS, format="huggingface", path="saved", split="val").ids()
    assert len(source(LABELS, format="huggingface", path="saved")) == 3


@pytest.mark.parametrize("kind", ["source", "writer"])
def test_without_the_library_the_pip_command_is_told(tmp_path, monkeypatch, source, kind):
    monkeypatch.setattr("genaug.registry.is_installed", lambda module: False)
    build = {
        "source": lambda: source(LABELS, **DATA),
        "writer": lambda: build_writer("huggingface", {}, LabelSpace(LABELS), default_registry()),
    }
    with pytest.raises(MissingDependencyError, match=r"'datasets' is not installed.*pip install 'genaug\[data\]'"):
        build[kind]()


def test_colours_become_ids_where_the_table_has_them(write, source):
    content = rows()
    content["mask"] = [png(np.full((*np.shape(m), 3), 7)) for m in MASKS]
    write(content)
    labels = {"names": {3: "road"}, "colors": {3: [7, 7, 7]}}
    assert source(labels, color_map=True, **DATA).load("000002").mask.tolist() == [[3], [3]]
    with pytest.raises(ConfigError, match=r"no colour for 0 \(sky\), 1 \(road\), 15 \(person\)"):
        source(LABELS, color_map=True, **DATA)
