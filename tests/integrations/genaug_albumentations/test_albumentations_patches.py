import albumentations as A
import numpy as np
import pytest

from genaug.errors import ConfigError, SampleError
from genaug_albumentations import PatchCutMix, PatchMask

TARGETS = {"uncertainty": "mask"}


@pytest.fixture
def scene():
    rng = np.random.default_rng(5)
    image = rng.integers(0, 100, (16, 24, 3), np.uint8)
    donors = [(rng.integers(100, 256, (16, 24, 3), np.uint8), np.full((16, 24), i, np.uint8)) for i in range(3)]
    return image, np.full((16, 24), 9, np.uint8), rng.random((16, 24)).astype(np.float32), donors


def most_uncertain(uncertainty, k, grid=4):
    """The pixels of the k patches of the largest sum, patch after patch."""
    height, width = (side // grid for side in uncertainty.shape)
    sums = {}
    for row in range(grid):
        for column in range(grid):
            patch = slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)
            sums[row, column] = uncertainty[patch].sum(), patch
    chosen = np.zeros(uncertainty.shape, bool)
    for _, patch in sorted(sums.values(), key=lambda s: -s[0])[:k]:
        chosen[patch] = True
    return chosen


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_the_most_uncertain_patches_are_the_donors(scene, dtype):
    image, mask, uncertainty, donors = scene
    mix = A.Compose([PatchCutMix(p=1)], additional_targets=TARGETS, seed=4)
    seen = set()
    for _ in range(30):
        given = {"image": image, "mask": mask.astype(dtype), "uncertainty": uncertainty}
        out = mix(**given, genaug_metadata={"donors": donors})
        assert out["mask"].dtype == dtype
        pasted = out["mask"] != 9
        k, (donor,) = int(pasted.sum()) // 24, np.unique(out["mask"][pasted]).tolist()
        assert np.array_equal(pasted, most_uncertain(uncertainty, k))
        assert np.array_equal(out["image"], np.where(pasted[..., None], donors[donor][0], image))
        assert np.array_equal(out["uncertainty"], uncertainty)
        seen.add((k, donor))
    assert {k for k, _ in seen} == {2, 3, 5}
    assert {donor for _, donor in seen} == {0, 1, 2}


def test_flips_before_it_move_the_map(scene):
    image, mask, uncertainty, donors = scene
    mix = A.Compose([A.HorizontalFlip(p=1), PatchCutMix(ks=[3], p=1)], additional_targets=TARGETS)
    out = mix(image=image, mask=mask, uncertainty=uncertainty, genaug_metadata={"donors": donors})
    assert np.array_equal(out["mask"] != 9, most_uncertain(uncertainty[:, ::-1], 3))


def test_a_map_that_nobody_moves_is_refused(scene):
    image, mask, uncertainty, donors = scene
    mix = A.Compose([A.HorizontalFlip(p=1), PatchCutMix(p=1)])
    with pytest.raises(SampleError, match=r"additional_targets=\{'uncertainty': 'mask'\}"):
        mix(image=image, mask=mask, uncertainty=uncertainty, genaug_metadata={"donors": donors})
    with pytest.raises(ConfigError, match=r"declared as 'image'\. Allowed: 'mask'"):
        A.Compose([PatchCutMix()], additional_targets={"uncertainty": "image"})
    with pytest.raises(ConfigError, match="additional target 'depth'"):
        A.Compose([PatchCutMix()], additional_targets={**TARGETS, "depth": "mask"})


def test_random_patches_need_no_map(scene):
    image, mask, _, donors = scene
    mix = A.Compose([PatchCutMix("random", ks=[1], p=1)], seed=0)
    counts = np.zeros((4, 4), int)
    for _ in range(320):
        pasted = mix(image=image, mask=mask, genaug_metadata={"donors": donors})["mask"] != 9
        assert pasted.sum() == 24
        counts += pasted[::4, ::6]
    assert (abs(counts - 20) < 23).all()
    assert (counts > 0).all()


def test_only_drawn_donors_are_loaded(scene):
    image, mask, uncertainty, donors = scene
    asked = []

    class Lazy:
        def __len__(self):
            return 1000

        def __getitem__(self, number):
            asked.append(number)
            return {"image": donors[0][0], "mask": donors[0][1].astype(np.int32)}

    mix = A.Compose([PatchCutMix(p=1)], additional_targets=TARGETS)
    mix(image=image, mask=mask, uncertainty=uncertainty, genaug_metadata={"donors": Lazy()})
    assert len(asked) == 1


def test_a_donor_that_is_mostly_ignored_is_drawn_again(scene):
    image, mask, uncertainty, donors = scene
    empty = donors[0][0], np.full((16, 24), 255, np.uint8)
    mix = A.Compose([PatchCutMix(p=1)], additional_targets=TARGETS, seed=0)
    for _ in range(10):
        out = mix(image=image, mask=mask, uncertainty=uncertainty, genaug_metadata={"donors": [empty, donors[1]]})
        assert (out["mask"] != 255).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genaug_metadata": None}, "no donors"),
        ({"genaug_metadata": {"donors": 3}}, "donors are a int"),
        ({"genaug_metadata": {"donors": []}}, "no labelled images"),
        ({"genaug_metadata": {"donors": [3]}}, "donor 0: a int"),
        ({"genaug_metadata": {"donors": [{"image": np.zeros((16, 24, 3), np.uint8)}]}}, "the mask is a NoneType"),
        ({"genaug_metadata": {"donors": [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))]}}, r"\(16, 24\)"),
        ({"uncertainty": None}, "no uncertainty map"),
        ({"uncertainty": np.zeros((16, 24), np.uint8)}, "the uncertainty map is dtype uint8"),
        ({"masks": [np.zeros((16, 24), np.uint8)]}, "called with masks"),
    ],
)
def test_what_a_call_of_cutmix_may_not_be(scene, change, message):
    image, mask, uncertainty, donors = scene
    given = {"image": image, "mask": mask, "uncertainty": uncertainty, "genaug_metadata": {"donors": donors}, **change}
    mix = A.Compose([PatchCutMix(p=1)], additional_targets=TARGETS)
    with pytest.raises(SampleError, match=message):
        mix(**given)


def test_cutmix_needs_a_mask(scene):
    image, _, uncertainty, donors = scene
    with pytest.raises(SampleError, match="PatchCutMix: no mask"):
        A.Compose([PatchCutMix("random", p=1)])(image=image, mask=None, genaug_metadata={"donors": donors})
    mix = A.Compose([PatchCutMix(p=1)], additional_targets=TARGETS)
    with pytest.raises(ValueError, match="mask"):  # AlbumentationsX: the map is aligned to no mask
        mix(image=image, mask=None, uncertainty=uncertainty, genaug_metadata={"donors": donors})


def test_options_of_cutmix():
    with pytest.raises(ConfigError, match="17 patches of 4x4"):
        PatchCutMix(ks=[17])
    with pytest.raises(ValueError, match="patches"):
        PatchCutMix(patches="some")


# ---------------------------------------------------------------------- PatchMask


def test_whole_patches_are_hidden_and_the_mask_stays():
    rng = np.random.default_rng(1)
    image, mask = rng.integers(1, 256, (40, 64, 3), np.uint8), rng.integers(0, 3, (40, 64))
    hide = A.Compose([PatchMask(patch=8, p=1)], seed=0)
    shares = []
    for _ in range(50):
        out = hide(image=image, mask=mask)
        assert np.array_equal(out["mask"], mask)
        hidden = (out["image"] == 0).all(2)
        cells = hidden[::8, ::8]
        assert np.array_equal(hidden, cells.repeat(8, 0).repeat(8, 1))
        assert np.array_equal(out["image"][~hidden], image[~hidden])
        shares.append(cells.mean())
    assert abs(np.mean(shares) - 0.7) < 0.05
    assert len(set(shares)) > 5


def test_what_hidden_pixels_hold():
    image = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    hide = A.Compose([A.Normalize(max_pixel_value=1.0), PatchMask(patch=8, fill=[0.5, -1, 2], p=1)])
    out = hide(image=image)["image"]
    hidden = (out == np.float32([0.5, -1, 2])).all(2)
    assert 0.3 < hidden.mean() < 1
    gray = A.Compose([PatchMask(patch=8, fill=7, p=1)])(image=(image[..., 0] * 255).astype(np.uint8))["image"]
    assert gray.shape[:2] == (32, 32)
    assert (gray == 7).mean() > 0.3
    for fill in (-1, 127.5, 256):
        with pytest.raises(SampleError, match="Allowed: values that uint8 images can have"):
            A.Compose([PatchMask(fill=fill, p=1)])(image=np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(SampleError, match="2 values of fill for 3 channels"):
        A.Compose([PatchMask(fill=[1, 2], p=1)])(image=np.zeros((32, 32, 3), np.uint8))


@pytest.mark.filterwarnings("ignore:Got processor for:UserWarning")  # there is nothing to do for boxes
def test_boxes_pass():
    name = "coord_format" if hasattr(A.BasicTransform, "sample_parameters") else "format"
    hide = A.Compose([PatchMask(patch=8, p=1)], bbox_params=A.BboxParams(**{name: "pascal_voc"}))
    boxes = np.array([[1.0, 2, 9, 11, 5]])
    out = hide(image=np.full((32, 32, 3), 200, np.uint8), bboxes=boxes)
    assert np.allclose(out["bboxes"], boxes)
    assert (out["image"] == 0).any()


def test_images_of_the_same_scene_are_hidden_alike():
    image = np.full((32, 32, 3), 200, np.uint8)
    hide = A.Compose([PatchMask(patch=8, p=1)], additional_targets={"infrared": "image"})
    out = hide(image=image, infrared=image)
    assert np.array_equal(out["image"], out["infrared"])
    assert (out["image"] == 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ratio": 1.0}, r"ratio 1 hides every image entirely\. Allowed: below 1\.$"), ({"patch": 0}, "patch")],
)
def test_options_of_patch_mask(options, message):
    with pytest.raises(ConfigError, match=message):
        PatchMask(**options)
