"""Unlabelled images as datasets, and batches of several streams."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from genaug.engine import run
from genaug.errors import ConfigError, DataError, SampleError, StoreError
from genaug.export import SampleSet, build_writer, export
from genaug.recipe import load_recipe
from genaug.store import SampleStore
from genaug_tiny.segmenter import SmallUNet
from genaug_torch import SemiSupervisedStep, StoreDataset, UnlabeledImages, UnlabeledStreams

PLUGIN = '''
import numpy as np
from genaug import Component, Generator, hookimpl
from genaug.types import Sample

class Plain(Generator):
    """One grey image a prompt, as bright as the prompt is long."""

    def _generate(self, draws):
        return [Sample(d.key, np.full((*d.condition.size, 3), len(d.condition.prompt.text), np.uint8)) for d in draws]

@hookimpl
def genaug_components():
    yield Component("generator", "plain", "plain_plugin:Plain")
'''


@pytest.fixture
def store(install, write_pairs, monkeypatch) -> SampleStore:
    from importlib import metadata

    from genaug.registry import Registry

    install("plain-dist", {"plain_plugin": PLUGIN}, {"plain": "plain_plugin"})
    wanted = {"plain_plugin", "genaug.sources.plugin", "genaug_text2image.plugin", "genaug_formats.plugin"}
    registry = Registry([e for e in metadata.entry_points(group="genaug") if e.value in wanted])
    root = write_pairs({"a": np.ones((16, 24), np.uint8)})
    lines = [{"file_name": f"{n}.png", "text": "x" * (n + 1)} for n in range(5)]
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = {
        "labels": {1: "a"}, "data": {"images": "images", "masks": "masks"}, "generator": {"use": "plain"},
        "conditions": {"format": "prompts", "path": "prompts.jsonl", "size": [16, 24]}, "output": "store",
    }  # fmt: skip
    run(load_recipe(recipe, root=root, registry=registry), stages=["generate"], device="cpu")
    return SampleStore.open(root / "store")


def test_a_store_of_images_without_masks(store) -> None:
    images = UnlabeledImages(store.path)
    assert images.ids == store.keys() == tuple(f"{n}_0" for n in range(5))
    assert images[3].shape == (3, 16, 24)
    assert images[-2].unique().tolist() == pytest.approx([4 / 255])
    with pytest.raises(IndexError):
        images[5]
    assert UnlabeledImages(store, transform=lambda sample: sample.id)[1] == "1_0"
    with pytest.raises(StoreError, match="UnlabeledImages"):
        StoreDataset(store)


def test_lists_of_unlabelled_images_are_written_and_read(store, tmp_path) -> None:
    from genaug.registry import default_registry

    writer = build_writer("text-list", {"list": "unlabeled.txt"}, store.labels, default_registry())
    export(SampleSet.of_store(store), writer, tmp_path / "out", name="text-list")
    lines = (tmp_path / "out/unlabeled.txt").read_text().splitlines()
    assert lines == [f"images/{n}_0.png None" for n in range(5)]
    (tmp_path / "out/some.txt").write_text("\n".join(lines[::-2]))
    table = {"format": "text-list", "root": str(tmp_path / "out"), "list": str(tmp_path / "out/some.txt")}
    images = UnlabeledImages({**table, "masks": "unused"})
    assert images.ids == ("4_0", "2_0", "0_0")
    assert torch.equal(images[1], UnlabeledImages(store)[2])
    assert len(UnlabeledImages(tmp_path / "out/images")) == 5


def test_what_is_no_set_of_images(tmp_path) -> None:
    with pytest.raises(ConfigError, match="a list"):
        UnlabeledImages([])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="does not exist"):
        UnlabeledImages(tmp_path / "none")


# ---------------------------------------------------------------------- streams


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 3)),
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 3)), max_size=2),
    st.one_of(st.none(), st.integers(1, 6)),
    st.integers(0, 3),
)
def test_every_batch_has_its_share_and_every_image_its_turn(first, more, batches, epoch) -> None:
    parts = [*more, first]
    streams = {f"s{n}": [(n, i) for i in range(count)] for n, (count, _) in enumerate(parts)}
    sizes = {f"s{n}": size for n, (_, size) in enumerate(parts)}
    whole = UnlabeledStreams(streams, sizes, batches=batches)
    whole.set_epoch(epoch)
    taken = [whole.locate(i) for i in range(len(whole))]
    if batches is None:
        assert len(whole) == max(-(-count // size) for count, size in parts if size)
    for batch in taken:
        assert tuple(name for name, _ in batch) == whole.origins
        assert Counter(whole.origins) == {name: size for name, size in sizes.items() if size}
    for name, size in sizes.items():
        counts = Counter(place for batch in taken for stream, place in batch if stream == name)
        seen = [counts[i] for i in range(len(streams[name]))]
        assert sum(seen) == len(whole) * size
        assert not size or max(seen) - min(seen) <= 1


def test_batches_do_not_depend_on_workers_and_change_with_the_epoch() -> None:
    streams = {"real": list(torch.arange(7.0)), "synthetic": list(100 + torch.arange(5.0))}
    batches = UnlabeledStreams(streams, {"real": 2, "synthetic": 3}, seed=1)
    loader = DataLoader(batches, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        here = [batches[i].tolist() for i in range(len(batches))]
        assert [batch.tolist() for batch in loader] == here
        epochs.append(here)
    assert epochs[0] != epochs[1]
    assert len(batches) == 4
    assert all(max(batch[:2]) < 100 <= min(batch[2:]) for epoch in epochs for batch in epoch)


def test_wrong_sizes_are_named() -> None:
    streams = {"real": [1], "synthetic": []}
    for sizes, told in [
        ({"real": 1}, "sizes of"),
        ({"real": 0, "synthetic": 0}, "not all of them 0"),
        ({"real": -1, "synthetic": 0}, "from 0"),
        ({"real": 1.7, "synthetic": 0}, "whole numbers"),
        ({"real": 1, "synthetic": 1}, r"streams\.synthetic: no images"),
    ]:
        with pytest.raises(ConfigError, match=told):
            UnlabeledStreams(streams, sizes)
    assert len(UnlabeledStreams(streams, {"real": 1, "synthetic": 0})) == 1
    with pytest.raises(ConfigError, match="batches"):
        UnlabeledStreams({"real": [1]}, {"real": 1}, batches=0)


def test_images_of_two_sizes_are_named() -> None:
    streams = {"real": [torch.zeros(3, 4, 6)], "synthetic": [torch.zeros(3, 4, 6), torch.zeros(3, 5, 6)]}
    batches = UnlabeledStreams(streams, {"real": 1, "synthetic": 2})
    with pytest.raises(SampleError, match=r"real\[0\] is \[3, 4, 6\], synthetic\[1\] is \[3, 5, 6\].*transform"):
        batches[0]


def two(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(3, 4, 6), torch.zeros(3, 4, size)


@pytest.mark.parametrize(
    ("real", "synthetic", "told"),
    [
        (two(6), two(5), r"real\[0\]\[1\] is \[3, 4, 6\], synthetic\[0\]\[1\] is \[3, 4, 5\].*transform"),
        ({"image": np.zeros((4, 6))}, {"image": np.zeros((4, 5))}, r"real\[0\]\['image'\] is \[4, 6\]"),
        (Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4)), r"items \(Image\) that cannot be stacked.*transform"),
        (two(6), two(6)[0], r"items \(Tensor, tuple\) that cannot be stacked"),
        ({"image": two(6)[0]}, {"picture": two(6)[0]}, r"items \(dict\) that cannot be stacked"),
        (two(6), (*two(6), 1), r"items \(tuple\) that cannot be stacked"),
    ],
)
def test_items_that_do_not_fit_together_are_named(real, synthetic, told) -> None:
    batches = UnlabeledStreams({"real": [real], "synthetic": [synthetic]}, {"real": 1, "synthetic": 1})
    with pytest.raises(SampleError, match=told):
        batches[0]


def test_pairs_of_views_are_stacked_by_view() -> None:
    batches = UnlabeledStreams({"real": [two(6)], "synthetic": [two(6)]}, {"real": 1, "synthetic": 2})
    assert [view.shape for view in batches[0]] == [(3, 3, 4, 6)] * 2


def test_a_step_with_real_and_synthetic_images(store, tmp_path) -> None:
    for n in range(3):
        Image.fromarray(np.full((16, 24, 3), 200 + n, np.uint8)).save(tmp_path / f"r{n}.png")
    streams = {"real": UnlabeledImages(tmp_path), "synthetic": UnlabeledImages(store)}
    loader = DataLoader(UnlabeledStreams(streams, {"real": 1, "synthetic": 2}), batch_size=None)
    step = SemiSupervisedStep(SmallUNet(num_classes=2, width=4), "sense", kind="logits", num_classes=2)
    for others in loader:
        assert others.shape == (3, 3, 16, 24)
        assert others[0].min() > 0.7
        assert others[1:].max() < 0.1
        loss, figures = step(torch.rand(2, 3, 16, 24), torch.zeros(2, 16, 24, dtype=torch.int64), others)
    assert torch.isfinite(loss)
    assert step.batch["unlabeled"] == 3
    assert "loss/transport" in figures
