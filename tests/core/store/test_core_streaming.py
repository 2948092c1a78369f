"""Folders and stores are read one sample at a time: four times as many samples need no more memory."""

import numpy as np
import pytest
from noise_helpers import make_recipe
from PIL import Image
from streaming import FEW, MANY, SIDE, assert_streams

from genaug.engine import run
from genaug.labels import LabelSpace
from genaug.sources.config import FolderOptions
from genaug.sources.folder import FolderSource
from genaug.store import SampleStore


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    for count in (FEW, MANY):
        for kind, shape, high in (("images", (SIDE, SIDE, 3), 256), ("masks", (SIDE, SIDE), 2)):
            folder = root / f"{count}" / kind
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, high, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    for count in (FEW, MANY):
        size = {"count": count, "height": SIDE, "width": SIDE, "odd_every": 0}
        recipe = make_recipe(root / f"{count}", data=size, generator={"images_per_mask": 1, "refuse": []})
        run(recipe, device="cpu", stages=["generate"])
    return root


@pytest.mark.parametrize("way", ["iterate", "survey"])
def test_folder(way, folders, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # as many samples at once as there are threads

    def read(count):
        options = FolderOptions(images="images", masks="masks")
        source = FolderSource(options, LabelSpace({0: "a", 1: "b"}), root=folders / f"{count}")
        assert (sum(1 for _ in source) if way == "iterate" else source.survey().images) == count

    assert_streams(read)


@pytest.mark.parametrize("way", ["samples", "training view", "groups", "verify"])
def test_store(way, stores):
    def read(count):
        store = SampleStore.open(stores / f"{count}/out")
        if way == "verify":
            assert store.verify() == []
        else:
            read = {"samples": store, "training view": store.training_view(), "groups": store.groups()}[way]
            assert sum(len(group.samples) if way == "groups" else 1 for group in read) == count

    assert_streams(read)
