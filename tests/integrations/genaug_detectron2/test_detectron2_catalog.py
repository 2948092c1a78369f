import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2_helpers import config, register, scene, write_toys
from noise_helpers import FILTERS, OFFLINE, make_recipe
from PIL import Image

from genaug.engine import run
from genaug.errors import ConfigError, DataError, SampleError, StoreError
from genaug.labels import default_color
from genaug_detectron2 import SyntheticMapper, check_dataset, register_store
from genaug_torch import StoreDataset

VOC = [value for number in range(256) for value in default_color(number)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of ids 1 and 4 whose filter ignores one row of every mask."""
    root = tmp_path_factory.mktemp("store")
    run(make_recipe(root, filters=FILTERS, data={"odd_every": 0}), device="cpu", stages=OFFLINE)
    register_store("noise", root / "out")
    return root / "out"


def read(file):
    with Image.open(file) as image:
        return image.mode, np.array(image)


def test_a_store_is_a_dataset(store):
    expected = StoreDataset(store, targets="indices")
    dicts = DatasetCatalog.get("noise")
    assert [entry["image_id"] for entry in dicts] == list(expected.keys)
    assert [entry["condition_id"] for entry in dicts] == list(expected.ids)
    for number, entry in enumerate(dicts):
        sample = expected.sample(number)
        assert np.array_equal(read(entry["file_name"])[1], sample.image)
        mode, mask = read(entry["sem_seg_file_name"])
        assert mode == "L"
        assert np.array_equal(mask, sample.mask)
        assert (entry["height"], entry["width"]) == sample.size
    assert DatasetCatalog.get("noise") == dicts
    check_dataset("noise")


def test_its_metadata(store):
    metadata = MetadataCatalog.get("noise")
    assert metadata.stuff_classes == ["grass", "road"]
    assert metadata.stuff_dataset_id_to_contiguous_id == {1: 0, 4: 1}
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.ignore_label == 255
    assert len(metadata.stuff_colors) == 2


def test_the_mapper_reads_its_masks_as_they_are(store, tmp_path):
    cfg = config(tmp_path)
    cfg.INPUT.MIN_SIZE_TRAIN = (24,)  # their own size
    mapped = DatasetMapper(cfg, is_train=True)(DatasetCatalog.get("noise")[0])
    truth = torch.from_numpy(StoreDataset(store, targets="indices").sample(0).mask).long()
    assert mapped["sem_seg"].shape == truth.shape
    assert torch.equal(mapped["sem_seg"], truth) or torch.equal(mapped["sem_seg"].flip(1), truth)


def test_masks_that_can_be_used_stay_where_they_are(tmp_path):
    names = dict(enumerate(["sky", "grass", "tree", "wall", "road"]))
    run(make_recipe(tmp_path, labels=names, data={"odd_every": 0}), device="cpu", stages=OFFLINE)
    register_store("plain", tmp_path / "out")
    entry = DatasetCatalog.get("plain")[0]
    assert entry["sem_seg_file_name"] == str(tmp_path / "out/masks" / f"{entry['image_id']}.png")
    assert not (tmp_path / "out-detectron2").exists()


def test_written_masks_lie_beside_the_store_or_where_told(store, tmp_path):
    assert DatasetCatalog.get("noise")[0]["sem_seg_file_name"].startswith(f"{store}-detectron2/")
    register_store("elsewhere", store, masks=tmp_path / "masks")
    assert not (tmp_path / "masks").exists()  # nothing is written before it is read
    assert DatasetCatalog.get("elsewhere")[0]["sem_seg_file_name"].startswith(str(tmp_path / "masks"))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_processes_that_write_the_same_masks(store, tmp_path, monkeypatch, moment):
    """While the first process writes a mask, the second writes them all and tidies up."""
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / ".tmp-detectron2-elsewhere-1-00").write_bytes(b"of a killed process")
    name = f"shared-{moment}"
    register_store(name, store, masks=folder)
    expected = {Path(entry["sem_seg_file_name"]).name for entry in DatasetCatalog.get("noise")}
    owner = os if moment == "fsync" else Path
    original, other = getattr(owner, moment), []

    def interrupted(*args):
        monkeypatch.setattr(owner, moment, original)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            other.append(DatasetCatalog.get(name))
        return original(*args)

    monkeypatch.setattr(owner, moment, interrupted)
    dicts = DatasetCatalog.get(name)
    assert other == [dicts]
    assert {file.name for file in folder.iterdir()} == expected
    for entry, plain in zip(dicts, DatasetCatalog.get("noise"), strict=True):
        assert Path(entry["sem_seg_file_name"]).read_bytes() == Path(plain["sem_seg_file_name"]).read_bytes()


def test_a_mask_that_cannot_be_written_is_an_error(store, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    register_store("full", store, masks=tmp_path / "masks")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        DatasetCatalog.get("full")


def test_errors(store, tmp_path):
    with pytest.raises(ConfigError, match="'noise' already"):
        register_store("noise", store)
    with pytest.raises(StoreError):
        register_store("nothing", tmp_path)
    assert "nothing" not in DatasetCatalog.list()
    dropped = [{"use": "dark", "below": 300.0}]
    run(make_recipe(tmp_path, filters=dropped, data={"odd_every": 0}), device="cpu", stages=OFFLINE)
    with pytest.raises(StoreError, match=r"11 were made, 0 of them can be trained with\. .*what the filters dropped"):
        register_store("dropped", tmp_path / "out")


# ---------------------------------------------------------------------- palettes and other wrong masks


@pytest.fixture(scope="module")
def palette(tmp_path_factory):
    """A dataset whose masks have a palette, as PASCAL VOC's."""
    dicts = write_toys(tmp_path_factory.mktemp("palette"), range(2))
    for entry in dicts:
        mask = Image.fromarray(scene(int(entry["image_id"]))[1])
        mask.putpalette(VOC)
        mask.save(entry["sem_seg_file_name"])
    register("palette", dicts)
    return dicts


def test_a_palette_does_not_pass_the_check(palette):
    with pytest.raises(DataError, match="2 of 2 masks") as caught:
        check_dataset("palette")
    assert all(entry["sem_seg_file_name"] in str(caught.value) for entry in palette)
    assert "palette" in str(caught.value)


def test_a_palette_does_not_pass_the_mapper(palette, tmp_path):
    inner = DatasetMapper(config(tmp_path), is_train=True)
    assert set(inner(palette[0])["sem_seg"].unique().tolist()) != {0, 1, 2, 255}  # it is silent
    with pytest.raises(ValueError, match=r"_mask\.png: values"):
        SyntheticMapper(inner, num_classes=3)(palette[0])
    with pytest.raises(ValueError, match="palette, of which DatasetMapper reads brightnesses"):
        SyntheticMapper(inner)(palette[0])
    with pytest.raises(ValueError, match="palette"):  # 38 and 75 could be classes here
        SyntheticMapper(inner, num_classes=150)(palette[0])


@pytest.mark.parametrize("colors", [(0, 255), (1, 0), (0, 0)], ids=["becomes the ignore index", "swapped", "one class"])
def test_brightnesses_that_are_classes_do_not_pass(tmp_path, colors):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:5] = 1
    image = Image.fromarray(pixels).convert("P")
    image.putpalette([value for color in (*colors, *[0] * 254) for value in [color] * 3])
    image.save(tmp_path / "mask.png")
    given = {"file_name": "image.png", "sem_seg_file_name": str(tmp_path / "mask.png")}

    def mapper(convert):
        def read(_):
            with Image.open(tmp_path / "mask.png") as opened:
                return {"sem_seg": torch.as_tensor(np.array(opened.convert("L") if convert else opened).astype("long"))}

        return SyntheticMapper(read, num_classes=2)

    with pytest.raises(ValueError, match=r"brightnesses: .* need not be its indices \[0, 1\]"):
        mapper(convert=True)(given)
    if colors == (0, 255):  # a 1 cannot be a brightness
        assert mapper(convert=False)(given)["sem_seg"].unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("dtype", "value", "found"),
    [(bool, 1, "1-bit"), (np.uint16, 256, "above 255"), (np.uint16, 65535, "above 255"), (np.int32, 300, "above 255")],
    ids=["1 bit", "16 bits", "16 bits, all set", "32 bits"],
)
def test_values_that_grey_cannot_hold_do_not_pass(tmp_path, dtype, value, found):
    pixels = np.zeros((8, 8), dtype)
    pixels[2:5] = value
    file = tmp_path / ("mask.tif" if dtype is np.int32 else "mask.png")
    Image.fromarray(pixels).save(file)
    name = f"{np.dtype(dtype)}-{value}"
    register(name, [{"file_name": str(tmp_path / "image.png"), "sem_seg_file_name": str(file)}])
    for ignored in (255, value):  # whichever number the user calls the ignore index
        with pytest.raises(DataError, match=rf"mask\....: .*{found}.*DatasetMapper reads"):
            check_dataset(name, num_classes=2, ignore_index=ignored)
    with Image.open(file) as opened:
        grey, plain = (torch.as_tensor(np.array(i).astype("long")) for i in (opened.convert("L"), opened))
    assert set(grey.unique().tolist()) == {0, 255}
    given = DatasetCatalog.get(name)[0]
    with pytest.raises(ValueError, match=rf"{found}.*: \[255\] need not be its indices \[0, {value}\]"):
        SyntheticMapper(lambda _: {"sem_seg": grey}, num_classes=2)(given)
    read = SyntheticMapper(lambda _: {"sem_seg": plain}, num_classes=2, ignore_index=value)(given)
    assert read["sem_seg"].unique().tolist() == [0, value]


def test_a_palette_does_not_pass_a_mapper_that_changes_what_it_gets(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 4
    mask = Image.fromarray(pixels)
    mask.putpalette(VOC)
    mask.save(tmp_path / "mask.png")

    def changing(entry):
        with Image.open(entry.pop("sem_seg_file_name")) as opened:
            return {"sem_seg": torch.as_tensor(np.array(opened.convert("L")).astype("long"))}

    given = {"file_name": "image.png", "sem_seg_file_name": str(tmp_path / "mask.png")}
    assert changing(dict(given))["sem_seg"].unique().tolist() == [0, 15]  # a valid class
    with pytest.raises(SampleError, match=r"mask\.png: .*brightnesses"):
        SyntheticMapper(changing, num_classes=21)(given)


def cropping(convert):
    """A mapper that shows a random quarter of its mask, padded, read as indices or as 8-bit grey."""

    def read(entry):
        with Image.open(entry["sem_seg_file_name"]) as opened:
            mask = np.array(opened.convert("L") if convert else opened).astype("long")
        top, left = np.random.randint(0, 5, 2)  # noqa: NPY002 -- as the real ones
        return {"sem_seg": torch.nn.functional.pad(torch.as_tensor(mask[top:, left:][:4, :4]), (0, 2), value=255)}

    return read


def unsafe(file, kind):
    """Write a mask of classes of which crops may tell nothing, or the wrong thing."""
    pixels = np.full((8, 8), 15, np.uint8)
    pixels[5:, 5:] = 4  # of VOC's colours, 4 is as bright as 15
    image = Image.fromarray(pixels)
    if kind == "palette":
        image.putpalette(VOC)
    elif kind == "1 bit":
        image = Image.fromarray(pixels == 15)
    else:
        pixels = pixels.astype(np.uint16)
        pixels[0, 0] = 300
        image = Image.fromarray(pixels)
    image.save(file)
    return {"file_name": "image.png", "sem_seg_file_name": str(file)}


@pytest.mark.parametrize("kind", ["palette", "1 bit", "16 bits"])
def test_a_crop_does_not_decide_what_a_mapper_reads(tmp_path, kind):
    given = unsafe(tmp_path / "mask.png", kind)
    seen = set()
    for seed in range(20):
        np.random.seed(seed)  # noqa: NPY002
        alone = cropping(convert=False)(given)["sem_seg"]
        np.random.seed(seed)  # noqa: NPY002
        made = SyntheticMapper(cropping(convert=False))(given)["sem_seg"]
        assert torch.equal(made, alone)
        seen.add(tuple(made.unique().tolist()))
        draw = np.random.rand()  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        cropping(convert=False)(given)
        assert np.random.rand() == draw  # noqa: NPY002 -- the probe has not moved the stream
        with pytest.raises(SampleError, match="need not be its indices"):
            SyntheticMapper(cropping(convert=True), num_classes=None if kind == "16 bits" else 256)(given)
    assert len(seen) > 1


def test_a_mapper_is_probed_once(tmp_path):
    calls = []

    def counting(entry):
        calls.append(entry["sem_seg_file_name"])
        return cropping(convert=False)(entry)

    dicts = [unsafe(tmp_path / f"{number}.png", "palette") for number in range(3)]
    mapper = SyntheticMapper(counting, num_classes=21)
    for given in dicts * 2:
        mapper(given)
    assert len(calls) == 7
    assert [Path(name).name for name in calls if str(tmp_path) != str(Path(name).parent)] == ["probe.png"]


def test_16_bits_of_small_values_pass(tmp_path):
    pixels = np.zeros((8, 8), np.uint16)
    pixels[2:5], pixels[5] = 1, 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    dicts = [{"file_name": str(tmp_path / "image.png"), "sem_seg_file_name": str(tmp_path / "mask.png")}]
    register("16 small bits", dicts)
    check_dataset("16 small bits", num_classes=2)
    mask = torch.as_tensor(pixels.astype("long"))
    assert SyntheticMapper(lambda _: {"sem_seg": mask}, num_classes=2)(dicts[0])["sem_seg"] is mask


def test_a_mapper_that_reads_indices_may_have_palettes(palette):
    def indices(entry):
        return {"sem_seg": torch.from_numpy(read(entry["sem_seg_file_name"])[1]).long()}

    made = SyntheticMapper(indices, num_classes=3)(palette[0])
    assert torch.equal(made["sem_seg"], torch.from_numpy(scene(0)[1]).long())


def test_other_wrong_masks(tmp_path):
    dicts = write_toys(tmp_path, range(4))
    mask = scene(0)[1]
    Image.fromarray(mask + (mask == 1) * np.uint8(6)).save(dicts[0]["sem_seg_file_name"])
    Image.fromarray(np.stack([mask] * 3, -1)).save(dicts[1]["sem_seg_file_name"])
    Image.fromarray(mask[:-3]).save(dicts[2]["sem_seg_file_name"])
    del dicts[3]["sem_seg_file_name"]
    register("wrong", dicts)
    with pytest.raises(DataError) as caught:
        check_dataset("wrong")
    text = str(caught.value)
    for told in ("values [7] are no class of 0 to 2", "is of mode RGB", "37 x 56 pixels instead of 40 x 56", "no sem_"):
        assert told in text
    with pytest.raises(DataError):
        check_dataset("wrong", num_classes=8)
    DatasetCatalog.register("nameless", list)
    with pytest.raises(ConfigError, match="num_classes"):
        check_dataset("nameless")
