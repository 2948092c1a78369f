"""Items of every kind in one batch, and labelled items that bring unlabelled ones along."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, DistributedSampler

from genaug import Rng
from genaug.batch import Batch
from genaug.errors import ConfigError, SampleError
from genaug.step_config import ViewsConfig
from genaug.types import Sample
from genaug_torch import MixedDataset, UnlabeledStreams, WeakView
from genaug_transformers import Pair, SegmentationCollator, WithUnlabeled

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
MASK = np.array([[0, 1, 2, 255, 0, 1]] * 4, np.uint8)
FLOATS = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255
NORMAL = (FLOATS - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def palette(mask):
    image = Image.fromarray(mask)
    image.putpalette([7] * 768)  # every class of one colour: only the indices tell them apart
    return image


ITEMS = {
    "sample": Sample("a", PIXELS, MASK),
    "tensors": (FLOATS, torch.from_numpy(MASK).long()),
    "arrays": (PIXELS, MASK.astype(np.int32)),
    "hub": {"image": Image.fromarray(PIXELS), "annotation": palette(MASK), "id": 3},
    "sidewalk": {"pixel_values": Image.fromarray(PIXELS), "label": Image.fromarray(MASK)},
    "bytes": {"image": torch.from_numpy(PIXELS).permute(2, 0, 1), "mask": MASK},
    "ready": {"pixel_values": NORMAL, "labels": torch.from_numpy(MASK)},
    "batch": Batch(FLOATS[None], torch.from_numpy(MASK).long()[None]),
}


def test_all_forms_of_an_item_are_one_batch():
    batch = SegmentationCollator(mean=MEAN, std=STD)(list(ITEMS.values()))
    assert set(batch) == {"pixel_values", "labels"}
    assert batch["labels"].dtype == torch.int64
    for name, image, labels in zip(ITEMS, batch["pixel_values"], batch["labels"], strict=True):
        torch.testing.assert_close(image, NORMAL, msg=name)
        assert torch.equal(labels, torch.from_numpy(MASK).long()), name


def test_unlabelled_items_and_padding():
    view = WeakView(ViewsConfig(weak="builtin", crop=(8, 8), scale=(1, 1)))
    crop = view(Batch(FLOATS[None], torch.from_numpy(MASK).long()[None]), rng=Rng(0))
    big = {"image": np.zeros((8, 8, 3), np.uint8), "mask": np.zeros((8, 8), np.uint8)}
    strange = {**big, "mask": Image.new("RGB", (8, 8))}  # masks of unlabelled images are not looked at
    batch = SegmentationCollator()([Pair(big, (crop, strange)), Pair(big, (big["image"], crop))])
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "pixel_values": (2, 3, 8, 8), "labels": (2, 8, 8), "unlabeled": (4, 3, 8, 8), "valid": (4, 8, 8),
    }  # fmt: skip
    assert [int(value.sum()) for value in batch["valid"]] == [24, 64, 64, 24]
    assert torch.equal(batch["valid"][0], crop.valid[0])
    labelled = SegmentationCollator()([Pair(crop, (big,))])
    assert torch.equal(labelled["labeled_valid"][0], crop.valid[0])
    assert set(SegmentationCollator()([PIXELS, PIXELS])) == {"pixel_values"}


def gray(value, form):
    image = torch.full((3, 8, 8), float(value))
    mask = torch.zeros(8, 8, dtype=torch.int64)
    return {"image": image, "pair": (image, mask), "dict": {"pixel_values": image, "label": mask, "id": "x"}}[form]


@pytest.mark.parametrize("form", ["image", "pair", "dict"])
def test_batches_of_real_and_synthetic_streams(form):
    real, synthetic = ([gray(base + 0.01 * i, form) for i in range(4)] for base in (0.2, 0.6))
    streams = UnlabeledStreams({"real": real, "synthetic": synthetic}, {"real": 1, "synthetic": 2}, seed=3)
    labelled = [(torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.int64))] * 6
    dataset = WithUnlabeled(labelled, streams, seed=1)
    dataset.set_epoch(2)
    loader = DataLoader(dataset, batch_size=2, collate_fn=SegmentationCollator())
    drawn = []
    for number, batch in enumerate(loader):
        assert {name: tuple(value.shape) for name, value in batch.items()} == {
            "pixel_values": (2, 3, 8, 8), "labels": (2, 8, 8), "unlabeled": (6, 3, 8, 8),
        }  # fmt: skip
        values = batch["unlabeled"].mean((1, 2, 3))
        assert (values > 0.5).tolist() == [False, True, True] * 2
        places = [p for item in (2 * number, 2 * number + 1) for n in dataset.numbers(item) for p in streams.locate(n)]
        expected = [(0.2 if name == "real" else 0.6) + 0.01 * place for name, place in places]
        assert values.tolist() == pytest.approx(expected, abs=1e-5)
        drawn += places
    assert len(set(drawn)) == 8


def test_views_of_unlabelled_images_are_refused():
    for views in [(FLOATS, FLOATS), [FLOATS[None], FLOATS[None]]]:  # the second would pass for a mask
        with pytest.raises(SampleError, match=r"2 views of an unlabelled image.*views\.strong"):
            SegmentationCollator()([Pair((PIXELS, MASK), (views,))])


def turned(array):
    picture = Image.fromarray(array)
    picture.getexif()[0x0112] = 6  # cameras held upright write it
    return picture


def test_gray_and_palette_images_have_their_colours():
    gray, index = PIXELS[..., 0], Image.fromarray(PIXELS[..., 0] % 3)
    index.putpalette([1, 2, 3, 40, 50, 60, 255, 254, 253])
    images = SegmentationCollator()([Image.fromarray(gray), index, Image.fromarray(gray > 99)])["pixel_values"] * 255
    wanted = [
        gray[None].repeat(3, 0),
        np.array([[1, 2, 3], [40, 50, 60], [255, 254, 253]])[gray % 3].transpose(2, 0, 1),
    ]
    for image, want in zip(images, [*wanted, (gray > 99)[None].repeat(3, 0) * 255], strict=True):
        np.testing.assert_array_equal(image.round().numpy(), want)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([(Image.fromarray(MASK.astype(np.uint16) * 257), MASK)], "an image of mode I;16.*scaled to 8"),
        ([(Image.fromarray(MASK.astype(np.int32) * 257), MASK)], "an image of mode I[.]"),
        ([(Image.fromarray(MASK.astype(np.float32)), MASK)], "an image of mode F"),
        ([Image.fromarray(PIXELS).convert("RGBA")], "an image of mode RGBA"),
        ([(turned(PIXELS), MASK)], r"EXIF asks to rotate \(orientation 6\).*exif_transpose"),
        ([(PIXELS, turned(MASK))], "EXIF asks to rotate"),
        ([(PIXELS, MASK), (PIXELS[:2], MASK[:2])], r"sizes \[\(2, 6\), \(4, 6\)\].*WeakView"),
        ([(PIXELS, MASK[:2])], "sizes"),
        ([], "no item"),
        ([(PIXELS, MASK), PIXELS, PIXELS], r"item 1 of the batch has no mask, 1 of 3 have one.*WithUnlabeled"),
        ([(PIXELS, MASK), Sample("b7", PIXELS)], r"item 1 of the batch \(b7\) has no mask"),
        ([(FLOATS * 255, MASK)], r"a float image with values up to 2\d\d.*Divide by 255"),
        ([{"picture": PIXELS}], "a dict with picture.*remove_unused_columns"),
        ([(PIXELS, MASK, "x")], "a tuple of 3"),
        ([PIXELS[..., :1]], r"uint8 of shape \(4, 6, 1\)"),
        ([(PIXELS, Image.fromarray(PIXELS))], "mask of mode RGB.*class indices"),
        ([(PIXELS, MASK.astype(float))], "a mask torch.float64"),
        (["a.png"], "a str"),
    ],
)
def test_other_items_are_refused(items, told):
    with pytest.raises(SampleError, match=told):
        SegmentationCollator()(items)


# ---------------------------------------------------------------------- unlabelled ones beside labelled ones


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
def test_unlabelled_items_take_turns(n, m, per_item, seed, epochs):
    dataset = WithUnlabeled(range(n), range(m), per_item=per_item, seed=seed)
    drawn = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        assert [item.labeled for item in (dataset[i] for i in range(n))] == list(range(n))
        drawn += [number for i in range(n) for number in dataset[i].unlabeled]
        again = WithUnlabeled(range(n), range(m), per_item=per_item, seed=seed)
        again.set_epoch(epoch)
        assert again[n - 1] == dataset[n - 1] == dataset[-1]
    counts = Counter(drawn)
    assert sum(counts.values()) == n * per_item * epochs
    assert max(counts.values(), default=0) - min((counts[i] for i in range(m)), default=0) <= 1


def test_wrong_unlabelled_data():
    with pytest.raises(ConfigError, match="no unlabelled items"):
        WithUnlabeled([1], [])
    with pytest.raises(ConfigError, match="per_item: 0"):
        WithUnlabeled([1], [1], per_item=0)


def loaded(dataset, epochs=2, **options):
    loader = DataLoader(dataset, batch_size=2, collate_fn=list, **options)
    found = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        found.append([item for batch in loader for item in batch])
    return found


def test_workers_that_persist_and_mixed_data_inside():
    def build():
        mixed = MixedDataset([("real", i) for i in range(6)], [("made", i) for i in range(4)], ratio=0.5, seed=1)
        return pickle.loads(pickle.dumps(WithUnlabeled(mixed, range(5), per_item=2, seed=1)))

    plain = loaded(build())
    assert plain[0] != plain[1]
    assert loaded(build(), num_workers=2, persistent_workers=True, multiprocessing_context="fork") == plain


def test_processes_share_the_items_of_an_epoch():
    dataset = WithUnlabeled(range(8), range(8), seed=1)
    parts = []
    for rank in range(2):
        sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=4)
        sampler.set_epoch(1)
        parts.append(loaded(dataset, sampler=sampler)[1])
    dataset.set_epoch(1)
    assert sorted(parts[0] + parts[1]) == sorted(dataset[i] for i in range(8))
