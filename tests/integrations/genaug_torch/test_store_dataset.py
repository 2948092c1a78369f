import numpy as np
import pytest
import torch
from noise_helpers import FILTERS, OFFLINE, make_recipe
from torch.utils.data import DataLoader

from genaug.engine import run
from genaug.errors import ConfigError, SampleError, StoreError
from genaug.labels import LabelSpace
from genaug.store import SampleStore
from genaug_torch import StoreDataset
from genaug_torch.store_dataset import index_table, to_indices

# More workers than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    run(make_recipe(root, filters=FILTERS, data={"odd_every": 0}), device="cpu", stages=OFFLINE)
    return root / "out"


def test_items_are_tensors_of_the_training_view(out):
    dataset = StoreDataset(out)
    view = SampleStore.open(out).training_view()
    assert dataset.keys == view.keys
    assert len(dataset) == len(view) > 0
    for (image, mask), sample in zip((dataset[i] for i in range(len(dataset))), view, strict=True):
        assert (image.dtype, image.shape) == (torch.float32, (3, 32, 24))
        assert (mask.dtype, mask.shape) == (torch.int64, (32, 24))
        assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), sample.image)
        assert np.array_equal(mask.numpy(), sample.mask)
        assert (mask[2] == 255).all()
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_all_samples_with_original_masks(out):
    dataset = StoreDataset(SampleStore.open(out), view="all")
    assert len(dataset) == 11 > len(StoreDataset(out))
    assert (dataset[0][1][2] != 255).any()


def test_indices(out):
    ids, indices = StoreDataset(out), StoreDataset(out, targets="indices")
    assert indices.labels.ids == (1, 4)
    for position in range(len(ids)):
        mask, mapped = ids[position][1], indices[position][1]
        assert set(mapped.unique().tolist()) == {0, 1, 255}
        assert torch.equal(mapped == 255, mask == 255)
        assert torch.equal(mapped == 1, mask == 4)


def test_an_ignore_index_that_is_also_an_index():
    labels = LabelSpace({1: "a", 2: "b", 3: "c"}, ignore_index=0)
    table = index_table(labels, 255)
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    assert to_indices(mask, table, "x").tolist() == [[255, 0], [1, 2]]
    with pytest.raises(SampleError, match=r"mask of x: ids \[7\] have no class"):
        to_indices(np.array([[7]], np.uint8), table, "x")


def test_a_store_whose_ignore_index_is_zero(tmp_path):
    labels = {"names": {1: "a", 4: "b", 255: "c"}, "ignore_index": 0}
    run(make_recipe(tmp_path, labels=labels), device="cpu", stages=OFFLINE)
    dataset = StoreDataset(tmp_path / "out", targets="indices")
    assert dataset.ignore_index == 255
    assert set(dataset[0][1].unique().tolist()) == {0, 1, 2}
    assert StoreDataset(tmp_path / "out").ignore_index == 0


def test_transform_gets_the_sample(out):
    dataset = StoreDataset(out, targets="indices", transform=lambda s: (s.id, s.image.dtype, int(s.mask.max())))
    assert dataset[0] == (dataset.keys[0], np.uint8, 255)


def test_nothing_to_train_with(tmp_path):
    run(make_recipe(tmp_path / "a", filters=[{"use": "dark", "below": 999}]), device="cpu", stages=OFFLINE)
    with pytest.raises(StoreError, match=r"11 were made, the filters \(dark\) keep none"):
        StoreDataset(tmp_path / "a/out")
    assert len(StoreDataset(tmp_path / "a/out", view="all")) == 11
    refuse = [f"m_{i}_{k}" for i in range(4) for k in range(3)]
    run(make_recipe(tmp_path / "b", generator={"refuse": refuse}), device="cpu", stages=OFFLINE)
    with pytest.raises(StoreError, match=r"0 were made\. Run 'genaug run'"):
        StoreDataset(tmp_path / "b/out")
    with pytest.raises(StoreError, match="no such folder"):
        StoreDataset(tmp_path / "c")


def test_no_item_is_without_a_labelled_pixel(tmp_path):
    """The mean of a loss over no pixel is NaN, and one such batch ruins a training."""
    lower = {"use": "dark", "name": "lower", "below": 0, "ignore_rows": [16, 32]}
    upper = {"use": "dark", "name": "upper", "below": 0, "ignore_rows": [0, 16], "only": "m_2_1"}
    recipe = make_recipe(tmp_path / "a", filters=[lower, upper], data={"odd_every": 0})
    run(recipe, device="cpu", stages=OFFLINE)
    store = SampleStore.open(tmp_path / "a/out")
    dataset = StoreDataset(store, targets="indices")
    assert dataset.keys == tuple(sample.id for sample in store if sample.id != "m_2_1")
    for _, mask in DataLoader(dataset, batch_size=1):
        loss = torch.nn.functional.cross_entropy(torch.zeros(1, 2, 32, 24), mask, ignore_index=dataset.ignore_index)
        assert torch.isfinite(loss)
    assert "m_2_1" in StoreDataset(store, view="all").keys
    everything = {"use": "dark", "name": "upper", "below": 0, "ignore_rows": [0, 16]}
    run(make_recipe(tmp_path / "b", filters=[lower, everything]), device="cpu", stages=OFFLINE)
    with pytest.raises(StoreError, match=r"filters \(lower, upper\) keep 11, and every pixel of those is ignored\."):
        StoreDataset(tmp_path / "b/out")


def test_wrong_options(out):
    with pytest.raises(ConfigError, match="view: 'kept'"):
        StoreDataset(out, view="kept")
    with pytest.raises(ConfigError, match="targets: 'index'"):
        StoreDataset(out, targets="index")


def test_damage_reaches_the_main_process(out, tmp_path):
    import shutil

    shutil.copytree(out, tmp_path / "out")
    dataset = StoreDataset(tmp_path / "out")
    (tmp_path / f"out/images/{dataset.keys[1]}.png").write_bytes(b"broken")
    with pytest.raises(StoreError, match=rf"{dataset.keys[1]}\.png"):
        list(DataLoader(dataset, num_workers=1, batch_size=1))


@pytest.mark.parametrize(("workers", "method"), [(2, "fork"), (2, "spawn")])
def test_workers_read_the_same(out, workers, method):
    dataset = StoreDataset(out)
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, multiprocessing_context=method)
    expected = list(DataLoader(dataset, batch_size=3))
    for (image, mask), (wanted, wanted_mask) in zip(loader, expected, strict=True):
        assert torch.equal(image, wanted)
        assert torch.equal(mask, wanted_mask)
