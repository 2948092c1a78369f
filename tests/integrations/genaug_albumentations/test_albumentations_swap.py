import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_helpers import FILTERS, OFFLINE, make_recipe

from genaug.engine import run
from genaug.errors import ConfigError, SampleError, StoreError
from genaug.labels import LabelSpace
from genaug.store import SampleStore
from genaug_albumentations import SyntheticSwap
from genaug_albumentations.replacement import KnownIds

LABELS = {1: "grass", 4: "road", 7: "car"}
NEW = hasattr(A.BasicTransform, "sample_parameters")


def number_of(image):
    """Which sample of a store an image is; None for the real one, whose red is 0."""
    red = np.unique(image[..., 0]).tolist()
    assert len(red) == 1
    return None if red == [0] else (red[0] - 5) // 10


def pipeline(store, seed=0, **options):
    return A.Compose([SyntheticSwap(store, LABELS, **{"p": 1, **options})], seed=seed)


def test_homologous_samples_are_those_of_the_id(mixed_store, picture):
    image, mask = picture
    swap = pipeline(mixed_store)
    store = SampleStore.open(mixed_store)
    seen = []
    for _ in range(40):
        out = swap(image=image, mask=mask, genaug_metadata={"id": "a"})
        seen.append(number_of(out["image"]))
        sample = store[f"a_{seen[-1]}"]
        assert np.array_equal(out["image"], sample.image)
        assert np.array_equal(out["mask"], sample.mask)
    assert set(seen) == {0, 1, 2}
    assert number_of(swap(image=image, mask=mask, genaug_metadata={"id": "c"})["image"]) == 4
    again = pipeline(mixed_store)
    assert seen == [number_of(again(image=image, mask=mask, genaug_metadata={"id": "a"})["image"]) for _ in range(40)]


def test_random_samples_are_any_and_need_no_id(mixed_store, picture):
    swap = pipeline(mixed_store, draw="random")
    counts = np.bincount([number_of(swap(image=picture[0], mask=picture[1])["image"]) for _ in range(500)])
    assert len(counts) == 5
    assert (abs(counts - 100) < 45).all()  # 5 standard deviations


def test_class_balance_draws_the_class_first(mixed_store, picture):
    """Class 1 is in samples 0 to 3, class 4 in 3 and 4, class 7 in 4 alone."""
    swap = pipeline(mixed_store, draw="random", class_balanced=True)
    counts = np.bincount([number_of(swap(image=picture[0], mask=picture[1])["image"]) for _ in range(600)], minlength=5)
    expected = 600 / 3 * np.array([1 / 4, 1 / 4, 1 / 4, 1 / 4 + 1 / 2, 1 / 2 + 1])
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()
    with pytest.raises(ConfigError, match="class_balanced: set, but samples of one mask"):
        SyntheticSwap(mixed_store, LABELS, class_balanced=True)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_probability(mixed_store, picture, p):
    swap = pipeline(mixed_store, draw="random", p=p)
    count = sum(number_of(swap(image=picture[0], mask=picture[1])["image"]) is not None for _ in range(300))
    assert abs(count - 300 * p) <= 5 * np.sqrt(300 * p * (1 - p))


def test_the_inputs_and_the_store_stay_untouched(mixed_store, picture):
    image, mask = picture
    before = image.copy(), mask.copy()
    swap = pipeline(mixed_store)
    out = swap(image=image, mask=mask, genaug_metadata={"id": "c"})
    out["image"][:], out["mask"][:] = 0, 0
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])
    assert number_of(swap(image=image, mask=mask, genaug_metadata={"id": "c"})["image"]) == 4


def test_sizes_of_the_store_and_what_comes_after(mixed_store, picture):
    image, mask = picture
    swap = SyntheticSwap(mixed_store, LABELS, p=1)
    for sample_id, size in (("a", (12, 16)), ("b", (20, 18)), ("c", (14, 6))):
        for after, expected in (([], size), ([A.RandomCrop(10, 5)], (10, 5)), ([A.Resize(9, 7)], (9, 7))):
            out = A.Compose([swap, *after])(image=image, mask=mask, genaug_metadata={"id": sample_id})
            assert out["image"].shape == (*expected, 3)
            assert out["mask"].shape == expected
    # Geometry sees the new pair: greens and blues are places, and the mask still fits them.
    cropped = A.Compose([swap, A.HorizontalFlip(p=1), A.RandomCrop(10, 5)], seed=1)
    out = cropped(image=image, mask=mask, genaug_metadata={"id": "b"})
    store = SampleStore.open(mixed_store)
    rows, columns = out["image"][..., 1], out["image"][..., 2]
    assert np.array_equal(out["mask"], store["b_0"].mask[rows, columns])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("depth", [False, True])
def test_masks_keep_type_and_dimensions(mixed_store, picture, dtype, depth):
    given = picture[1].astype(dtype)
    given = given[..., None] if depth else given
    out = pipeline(mixed_store)(image=picture[0], mask=given, genaug_metadata={"id": "c"})["mask"]
    assert (out.dtype, out.ndim) == (given.dtype, given.ndim)
    assert np.array_equal(out.squeeze(), SampleStore.open(mixed_store)["c_0"].mask)


def test_filters_are_obeyed(tmp_path, picture):
    """Of the noise plugin's samples a filter drops the dark ones, and another ignores row 2."""
    run(make_recipe(tmp_path, filters=FILTERS), device="cpu", stages=OFFLINE)
    labels = {1: "grass", 4: "road"}
    view = SampleStore.open(tmp_path / "out").training_view()
    images = {sample.image.tobytes(): sample for sample in view}
    swap = A.Compose([SyntheticSwap(tmp_path / "out", labels, draw="random", p=1)], seed=3)
    for _ in range(30):
        out = swap(image=picture[0], mask=picture[1])
        assert np.array_equal(out["mask"], images[out["image"].tobytes()].mask)
        assert (out["mask"][2] == 255).all()


def test_an_id_whose_samples_are_all_dropped_keeps_its_image(tmp_path, picture):
    refuse = ["m_1_0", "m_1_1", "m_1_2"]
    run(make_recipe(tmp_path, generator={"refuse": refuse}), device="cpu", stages=OFFLINE)
    swap = A.Compose([SyntheticSwap(tmp_path / "out", {1: "grass", 4: "road"}, p=1)])
    out = swap(image=picture[0], mask=picture[1], genaug_metadata={"id": "m_1"})
    assert np.array_equal(out["image"], picture[0])
    assert np.array_equal(out["mask"], picture[1])
    assert not np.array_equal(
        swap(image=picture[0], mask=picture[1], genaug_metadata={"id": "m_2"})["image"], picture[0]
    )


def test_ids_the_store_never_heard_of(mixed_store, picture):
    image, mask = picture
    with pytest.raises(SampleError, match=r"the store knows no 'a\.png'\. Allowed: ids of its conditions, such as 'a'"):
        pipeline(mixed_store)(image=image, mask=mask, genaug_metadata={"id": "a.png"})
    keep = pipeline(mixed_store, unknown_ids="keep")
    assert number_of(keep(image=image, mask=mask, genaug_metadata={"id": "z"})["image"]) is None
    with pytest.raises(SampleError, match=r"the id 3 is of type int\. Allowed: text, such as 'a'\. "):
        keep(image=image, mask=mask, genaug_metadata={"id": 3})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"no id of the image\. Call the pipeline with genaug_metadata=\{'id': \.\.\.\}"),
        ({"genaug_metadata": {"donors": []}}, "no id of the image"),
        ({"genaug_metadata": "a"}, "genaug_metadata is a str"),
        ({"genaug_metadata": {"ids": "a"}}, "genaug_metadata has the key 'ids'. Did you mean 'id'?"),
    ],
)
def test_an_id_has_to_be_given(mixed_store, picture, metadata, message):
    with pytest.raises(SampleError, match=message):
        pipeline(mixed_store)(image=picture[0], mask=picture[1], **metadata)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({1: "grass", 4: "road"}, r"names\.7 is absent, was 'car' there"),
        ({1: "grass", 4: "street", 7: "car"}, r"names\.4 is 'street', was 'road' there"),
        ({"names": LABELS, "ignore_index": 0}, r"ignore_index is 0, was 255 there"),
        ("voc21", "the class table is not that of the store"),
    ],
)
def test_another_class_table_than_the_stores(mixed_store, labels, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticSwap(mixed_store, labels)


def test_masks_of_another_table(mixed_store, picture):
    mask = picture[1].copy()
    mask[3, 4] = 2
    with pytest.raises(SampleError, match=r"the mask has ids \[2\], which have no class. Allowed: \[1, 4, 7\]"):
        pipeline(mixed_store)(image=picture[0], mask=mask, genaug_metadata={"id": "a"})


def boxes_of(kind):
    """Parameters of boxes or key points, whose first argument has another name in AlbumentationsX."""
    name = "coord_format" if NEW else "format"
    if kind == "bboxes":
        return {"bbox_params": A.BboxParams(**{name: "pascal_voc"}, label_fields=None)}
    return {"keypoint_params": A.KeypointParams(**{name: "xy"})}


@pytest.mark.filterwarnings("ignore:Got processor for:UserWarning")  # AlbumentationsX warns of it already
@pytest.mark.parametrize("kind", ["bboxes", "keypoints"])
def test_boxes_and_key_points_are_refused(mixed_store, picture, kind):
    swap = A.Compose([SyntheticSwap(mixed_store, LABELS, draw="random", p=1)], **boxes_of(kind))
    given = np.array([[1.0, 1, 5, 5, 0]]) if kind == "bboxes" else np.array([[1.0, 1]])
    with pytest.raises(SampleError, match=rf"SyntheticSwap: called with {kind}\. Allowed: 'image' and 'mask'"):
        swap(image=picture[0], mask=picture[1], **{kind: given})


@pytest.mark.parametrize("name", ["depth", "image2"])
def test_additional_targets_are_refused(mixed_store, name):
    targets = {name: "image" if name == "image2" else "mask"}
    for transforms in ([SyntheticSwap(mixed_store, LABELS)], [A.OneOf([SyntheticSwap(mixed_store, LABELS)])]):
        with pytest.raises(ConfigError, match=rf"additional target '{name}' .* would no longer belong to the image"):
            A.Compose(transforms, additional_targets=targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, r"no mask\. Call the pipeline with image=\.\.\. and mask=\.\.\."),
        ({"masks": [np.zeros((12, 16), np.uint8)]}, "called with masks"),
        ({"image": np.zeros((12, 16, 3), np.float32)}, "Put it before Normalize, ToFloat"),
        ({"image": np.zeros((12, 16), np.uint8)}, "Allowed: uint8 array"),
        ({"mask": np.zeros((12, 16), np.float32)}, "the mask is dtype float32"),
        ({"mask": np.zeros((12, 16), np.int8)}, "a mask of type int8"),
        ({"mask": np.zeros((12, 16, 3), np.uint8)}, "a mask of 3 channels"),
        ({"mask": np.full((12, 16), 300, np.int32)}, "ids from 300 to 300"),
        ({"mask": np.full((12, 16), -1, np.int32)}, "ids from -1 to -1"),
    ],
)
def test_what_a_call_may_not_be(mixed_store, picture, change, message):
    given = {"image": picture[0], "mask": picture[1], **change}
    with pytest.raises(SampleError, match=message):
        pipeline(mixed_store, draw="random")(**given)
    if "mask" in change and change["mask"] is None:
        with pytest.raises(SampleError, match=message):
            pipeline(mixed_store, draw="random")(image=picture[0])


def test_sizes_of_image_and_mask_must_agree(mixed_store, picture):
    swap = A.Compose([SyntheticSwap(mixed_store, LABELS, draw="random", p=1)], is_check_shapes=False)
    with pytest.raises(ValueError, match=r"\(12, 15\)"):  # AlbumentationsX says it itself
        swap(image=picture[0], mask=picture[1][:, 1:])


def test_arguments_are_checked(mixed_store, tmp_path):
    with pytest.raises(ValueError, match="draw"):
        SyntheticSwap(mixed_store, LABELS, draw="any")
    with pytest.raises(StoreError, match="no such folder"):
        SyntheticSwap(tmp_path / "none", LABELS)
    with pytest.warns(UserWarning, match="'balanced' are not valid"):
        SyntheticSwap(mixed_store, LABELS, balanced=True)
    with pytest.raises(ValueError, match="'balanced' are not valid"):
        SyntheticSwap(mixed_store, LABELS, balanced=True, strict=True)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 255), min_size=2), st.lists(st.integers(0, 255), min_size=1))
def test_ids_are_looked_up_in_any_class_table(ids, pixels):
    ignored, *classes = sorted(ids, key=lambda i: i * 37 % 256)
    known = KnownIds(LabelSpace(dict.fromkeys(classes, "x"), ignored), where="here")
    known.check(np.array([sorted(ids)], np.uint8))
    strange = sorted(set(pixels) - ids)
    mask = np.array([pixels], np.uint8)
    if not strange:
        known.check(mask)
        return
    with pytest.raises(SampleError) as caught:
        known.check(mask)
    assert caught.value.found == f"the mask has ids {strange}, which have no class"
