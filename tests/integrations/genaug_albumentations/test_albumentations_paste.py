import albumentations as A
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genaug.errors import ConfigError, SampleError, StoreError
from genaug.store import SampleStore
from genaug_albumentations import CopyPasteFromStore
from genaug_albumentations.copy_paste import _overlap

LABELS = {1: "grass", 4: "road", 7: "car"}


def pipeline(store, classes, **options):
    return A.Compose([CopyPasteFromStore(store, LABELS, classes, **{"p": 1, **options})], seed=2)


def slow_paste(image, mask, donor, classes, top, left):
    """Lay the donor at (top, left) of the image, which may be negative, and copy the pixels of some classes."""
    image, mask = image.copy(), mask.copy()
    for row in range(donor.mask.shape[0]):
        for column in range(donor.mask.shape[1]):
            y, x = row + top, column + left
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and donor.mask[row, column] in classes:
                image[y, x], mask[y, x] = donor.image[row, column], donor.mask[row, column]
    return image, mask


def places(own, other):
    return range(min(own - other, 0), max(own - other, 0) + 1)


@pytest.mark.parametrize(("classes", "donors"), [([4], ["b_0", "c_0"]), (["car"], ["c_0"]), ([1, "car"], None)])
def test_pixels_of_the_classes_are_pasted(mixed_store, picture, classes, donors):
    """Every result is one of those that the slow reference can make, and all donors come up."""
    image, mask = picture
    ids = {1 if c == 1 else 4 if c == 4 else 7 for c in classes}
    store = SampleStore.open(mixed_store)
    donors = donors or [*store.keys()]
    possible = {}
    for key in donors:
        donor = store[key]
        for top in places(12, donor.mask.shape[0]):
            for left in places(16, donor.mask.shape[1]):
                result = slow_paste(image, mask, donor, ids, top, left)
                possible.setdefault((result[0].tobytes(), result[1].tobytes()), set()).add(key)
    paste = pipeline(mixed_store, classes)
    seen = set()
    for _ in range(60):
        out = paste(image=image, mask=mask)
        drawn = possible[out["image"].tobytes(), out["mask"].tobytes()]
        seen |= drawn if len(drawn) == 1 else set()
    assert seen == set(donors)


def test_equal_sizes_keep_every_place(mixed_store, picture):
    out = pipeline(mixed_store, ["grass"], class_balanced=True)
    store = SampleStore.open(mixed_store)
    whole = 0
    for _ in range(20):
        result = out(image=picture[0], mask=picture[1])
        for key in ("a_0", "a_1", "a_2"):
            whole += np.array_equal(result["image"], store[key].image) and (result["mask"] == 1).all()
    assert whole > 5


def test_class_balance_pastes_one_class(mixed_store, picture):
    """Cars are in one sample of five, and still in half of the draws; roads of that sample stay away then."""
    paste = pipeline(mixed_store, ["grass", "car"], class_balanced=True)
    image, mask = np.zeros((14, 6, 3), np.uint8), np.full((14, 6), 255, np.uint8)
    cars = 0
    for _ in range(200):
        found = set(np.unique(paste(image=image, mask=mask)["mask"]).tolist()) - {255}
        assert found in ({1}, {7}, set())  # a larger donor's grass may lie outside, never both at once
        cars += found == {7}
    assert abs(cars - 100) < 36


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_types_stay(mixed_store, picture, dtype):
    out = pipeline(mixed_store, ["car"])(image=picture[0], mask=picture[1].astype(dtype))
    assert out["mask"].dtype == dtype
    assert set(np.unique(out["mask"]).tolist()) <= {1, 4, 7, 255}


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_lengths_overlap_as_far_as_they_can(own, other, seed):
    here, there = _overlap(own, other, np.random.default_rng(seed))
    assert here.stop - here.start == there.stop - there.start == min(own, other)
    assert 0 <= here.start <= here.stop <= own
    assert 0 <= there.start <= there.stop <= other


def test_all_places_come_up():
    generator = np.random.default_rng(0)
    assert {_overlap(5, 3, generator)[0].start for _ in range(60)} == {0, 1, 2}
    assert {_overlap(3, 5, generator)[1].start for _ in range(60)} == {0, 1, 2}


def test_wrong_classes(mixed_store, make_store, tmp_path):
    with pytest.raises(ConfigError, match=r"'raod'. Allowed: ids \[1, 4, 7\] or their names. Did you mean 'road'"):
        CopyPasteFromStore(mixed_store, LABELS, ["raod"])
    with pytest.raises(ConfigError, match="classes: 5"):
        CopyPasteFromStore(mixed_store, LABELS, [5])
    with pytest.raises(ConfigError, match="classes: none"):
        CopyPasteFromStore(mixed_store, LABELS, [])
    store = make_store(tmp_path, {"a": [np.ones((4, 4), np.uint8)]})
    with pytest.raises(StoreError, match=r"no sample holds any of \['car'\]"):
        CopyPasteFromStore(store, LABELS, ["car"])


def test_calls_are_checked(mixed_store, picture):
    paste = pipeline(mixed_store, ["car"])
    with pytest.raises(SampleError, match="CopyPasteFromStore: no mask"):
        paste(image=picture[0])
    with pytest.raises(SampleError, match=r"ids \[9\]"):
        paste(image=picture[0], mask=np.full((12, 16), 9, np.uint8))
    with pytest.raises(ConfigError, match="additional target 'depth'"):
        A.Compose([CopyPasteFromStore(mixed_store, LABELS, ["car"])], additional_targets={"depth": "mask"})
