"""Pipelines as files and in strict mode."""

import importlib.util
import json
import os
import pickle
import sys

import albumentations as A
import numpy as np
import pytest

import genaug_albumentations
from genaug.errors import ConfigError, MissingDependencyError, SampleError, StoreError
from genaug.labels import LabelSpace
from genaug_albumentations import (
    CopyPasteFromStore,
    PatchCutMix,
    PatchMask,
    SyntheticSwap,
    host,
    load_pipeline,
    seed_sample,
)

LABELS = {1: "grass", 4: "road", 7: "car"}
TARGETS = {"uncertainty": "mask"}


def all_four(store):
    """Every transform, twice: with other arguments than by default, and with the defaults. Two pipelines."""
    table = LabelSpace(LABELS)
    drawing = [
        SyntheticSwap(
            store, table, draw="random", class_balanced=True, unknown_ids="keep", metadata_key="about", p=0.9
        ),
        CopyPasteFromStore(store, table.to_dict(), ("road", 7), class_balanced=True, p=0.8),
        A.HorizontalFlip(p=0.5),
        PatchMask(patch=4, ratio=0.5, sampling="block", grid="round", fill=(1, 2, 3), p=0.7),
        SyntheticSwap(store, LABELS),
        CopyPasteFromStore(store, LABELS, [4]),
        PatchMask(),
    ]
    mixing = [PatchCutMix("random", 2, (1,), 7, "uncertainty", "about", p=0.6), PatchCutMix()]
    return A.Compose(drawing), A.Compose(mixing, additional_targets=TARGETS)


def without_versions(table):
    return {**table, "__version__": None}


def test_tables_are_json_and_come_back(mixed_store):
    for pipeline in all_four(mixed_store):
        table = A.to_dict(pipeline)
        assert json.loads(json.dumps(table)) == table  # a tuple, a path, a number as a key would differ
        assert A.to_dict(A.from_dict(table)) == table
    names = {
        part["__class_fullname__"] for p in all_four(mixed_store) for part in A.to_dict(p)["transform"]["transforms"]
    }
    ours = ("SyntheticSwap", "CopyPasteFromStore", "PatchMask", "PatchCutMix")
    assert names - {"HorizontalFlip"} == {f"genaug_albumentations.{name}" for name in ours}


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_files_come_back_and_draw_the_same(mixed_store, picture, tmp_path, suffix):
    drawing, mixing = all_four(mixed_store)
    for number, pipeline in enumerate((drawing, mixing)):
        path = tmp_path / f"{number}.{suffix}"
        A.save(pipeline, path, data_format=suffix)
        for loaded in (load_pipeline(path), A.load(path, data_format=suffix)):
            assert A.to_dict(loaded) == A.to_dict(pipeline)
    loaded = load_pipeline(tmp_path / f"0.{suffix}")
    image, mask = picture
    for epoch in range(5):
        for pipeline in (drawing, loaded):
            seed_sample(pipeline, seed=1, sample_id="a", epoch=epoch)
        one, two = (p(image=image, mask=mask, genaug_metadata={"id": "a"}) for p in (drawing, loaded))
        assert np.array_equal(one["image"], two["image"])
        assert np.array_equal(one["mask"], two["mask"])


def test_files_that_cannot_be_read(mixed_store, tmp_path):
    path = tmp_path / "p.json"
    A.save(A.Compose([SyntheticSwap(mixed_store, LABELS)]), path)
    text = path.read_text()
    for old, new, message in (
        ("genaug_albumentations.SyntheticSwap", "elsewhere.Swap", r"no transform is called 'elsewhere\.Swap'"),
        ('"draw"', '"drawn"', "drawn"),
        ('"is_check_shapes"', '"newer_argument"', "newer_argument.* written by another albumentations"),
    ):
        path.write_text(text.replace(old, new))
        if new == '"drawn"':  # as albumentations has it for all transforms
            with pytest.warns(UserWarning, match=message):
                load_pipeline(path)
        else:
            with pytest.raises(ConfigError, match=message):
                load_pipeline(path)
    path.write_text(text.replace(str(mixed_store), str(tmp_path / "moved")))
    with pytest.raises(StoreError, match="no such folder"):
        load_pipeline(path)
    with pytest.raises(ConfigError, match=r"the suffix '\.txt'"):
        load_pipeline("p.txt")


def test_strict_pipelines_know_the_metadata(mixed_store, picture):
    image, mask = picture
    swap = A.Compose([SyntheticSwap(mixed_store, LABELS, p=1)], strict=True)
    assert swap(image=image, mask=mask, genaug_metadata={"id": "b"})["image"].shape == (20, 18, 3)
    mix = A.Compose([PatchCutMix(p=1)], strict=True, additional_targets=TARGETS)
    uncertainty = np.random.default_rng(0).random((12, 16)).astype(np.float32)
    donors = [(image + 1, np.full((12, 16), 3, np.uint8))]
    assert 3 in mix(image=image, mask=mask, uncertainty=uncertainty, genaug_metadata={"donors": donors})["mask"]
    with pytest.raises(ValueError, match="other"):
        swap(image=image, mask=mask, other=3)


@pytest.mark.parametrize("kind", ["paste", "cutmix", "swap"])
def test_replays_give_another_image_the_same_pixels(mixed_store, picture, kind):
    """New pixels are told from those of real images by red, which is 0 in the latter."""
    image, mask = picture
    donor = np.full_like(image, 200), np.full_like(mask, 7)
    transform = {
        "paste": lambda: CopyPasteFromStore(mixed_store, LABELS, ["road"], p=1),
        "cutmix": lambda: PatchCutMix("random", p=1),
        "swap": lambda: SyntheticSwap(mixed_store, LABELS, draw="random", p=1),
    }[kind]()
    pipeline = A.ReplayCompose([transform])
    seed_sample(pipeline, seed=0, sample_id="a", epoch=0)
    first = pipeline(image=image, mask=mask, genaug_metadata={"donors": [donor]})
    new = first["image"][..., 0] > 0
    assert new.any()
    other, other_mask = image[::-1].copy(), np.where(mask[::-1] == 1, 4, 1)[..., None].astype(np.int32)
    for _ in range(2):  # the first replay leaves the record as it was
        again = A.ReplayCompose.replay(first["replay"], image=other, mask=other_mask)
        if kind == "swap":
            wanted, labels = first["image"], first["mask"]
        else:
            assert not new.all()
            wanted = np.where(new[..., None], first["image"], other)
            labels = np.where(new, first["mask"], other_mask[..., 0])
        np.testing.assert_array_equal(again["image"], wanted)
        np.testing.assert_array_equal(again["mask"], labels[..., None])
        assert again["mask"].dtype == np.int32
        again["image"][:] = 0
    small = {"image": other[:8], "mask": other_mask[:8]}
    if kind == "swap":
        assert A.ReplayCompose.replay(first["replay"], **small)["image"].shape == first["image"].shape
    else:
        with pytest.raises(SampleError, match=r"replayed on \(8, 16\).*Allowed: \(12, 16\)"):
            A.ReplayCompose.replay(first["replay"], **small)
    with pytest.raises(SampleError, match=r"float32.*uint8"):
        A.ReplayCompose.replay(first["replay"], image=other.astype(np.float32), mask=other_mask)


def test_replays_hide_the_same_patches(picture):
    image, _ = picture
    first = A.ReplayCompose([PatchMask(patch=4, fill=3, p=1)])(image=image)
    hidden = (first["image"] == 3).all(axis=2)
    again = A.ReplayCompose.replay(first["replay"], image=image // 2 + 100)["image"]
    np.testing.assert_array_equal(again, np.where(hidden[..., None], 3, image // 2 + 100))
    with pytest.raises(SampleError, match=r"replayed on \(8, 16\).*Allowed: \(12, 16\)"):
        A.ReplayCompose.replay(first["replay"], image=image[:8])


def test_transforms_within_others(mixed_store, picture):
    """``OneOf`` takes p as weights, ``SomeOf`` as well, and both apply the one that they chose."""
    image, mask = picture
    one_of = A.OneOf([SyntheticSwap(mixed_store, LABELS, p=0.2), PatchMask(patch=4, p=0.2)], p=1)
    pipeline = A.Compose([one_of], seed=0)
    outs = [pipeline(image=image, mask=mask, genaug_metadata={"id": "b"}) for _ in range(60)]
    swapped = sum(out["image"].shape[0] == 20 for out in outs)
    assert 15 < swapped < 45
    assert all(out["image"].shape[0] == 20 or (out["image"] != image).any() for out in outs)


def test_pickled_transforms_draw_the_same(mixed_store, picture):
    pipeline = all_four(mixed_store)[0]
    copy = pickle.loads(pickle.dumps(pipeline))
    for one in (pipeline, copy):
        seed_sample(one, seed=0, sample_id=3, epoch=0)
    outs = [one(image=picture[0], mask=picture[1], genaug_metadata={"id": "a"}) for one in (pipeline, copy)]
    assert np.array_equal(outs[0]["image"], outs[1]["image"])


def test_everything_public_is_documented():
    for name in genaug_albumentations.__all__:
        assert getattr(genaug_albumentations, name).__doc__


def test_without_albumentations_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE")
    spec = importlib.util.spec_from_file_location("host_again", host.__file__)
    with pytest.raises(MissingDependencyError, match=r"pip install 'genaug\[albumentations\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"  # set before the import, which would use the network
