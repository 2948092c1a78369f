import numpy as np
import pytest

from genaug.errors import SampleError
from genaug.types import Draw, Prompt, Sample, check_image, check_mask

IMAGE = np.zeros((4, 6, 3), np.uint8)
MASK = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (IMAGE.astype(np.float32), "dtype float32"),
        (IMAGE[..., :2], r"shape \(4, 6, 2\)"),
        (MASK, r"shape \(4, 6\)"),
        (np.zeros((0, 6, 3), np.uint8), "empty"),
        ([[1]], "list"),
    ],
)
def test_images_are_uint8_rgb(image: object, told: str) -> None:
    with pytest.raises(SampleError, match=told):
        check_image(image, where="here")


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (MASK.astype(np.int64), "dtype int64"),
        (MASK.astype(bool), "dtype bool"),
        (IMAGE, r"shape \(4, 6, 3\)"),
        (np.zeros((4, 0), np.uint8), "empty"),
        (None, "NoneType"),
    ],
)
def test_masks_are_uint8_ids(mask: object, told: str) -> None:
    with pytest.raises(SampleError, match=told):
        check_mask(mask, where="here")


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a\\b", "a\0"])
def test_sample_ids_are_file_stems(bad: str) -> None:
    with pytest.raises(SampleError, match="sample id"):
        Sample(bad, IMAGE)


def test_a_sample_has_an_image_or_a_mask_of_one_size() -> None:
    assert Sample("a", IMAGE, MASK).size == Sample("a", mask=MASK).size == Sample("a", IMAGE).size == (4, 6)
    with pytest.raises(SampleError, match="neither"):
        Sample("a")
    with pytest.raises(SampleError, match="equal height and width"):
        Sample("a", IMAGE, MASK.T.copy())


def test_a_prompt_stands_alone_and_says_its_size() -> None:
    assert Sample("a", prompt=Prompt("a road", (3, 5))).size == (3, 5)
    for more in ({"image": IMAGE}, {"mask": MASK}):
        with pytest.raises(SampleError, match="a prompt beside an image or mask"):
            Sample("a", **more, prompt=Prompt("a road", (4, 6)))
    with pytest.raises(SampleError, match="blank"):
        Prompt(" ", (3, 5))
    with pytest.raises(SampleError, match="at least one pixel"):
        Prompt("a road", (0, 5))


def test_samples_cannot_be_changed_by_accident() -> None:
    sample = Sample("a", IMAGE)
    with pytest.raises(AttributeError):
        sample.id = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        sample.meta["x"] = 1  # type: ignore[index]


def test_the_key_of_a_draw_is_the_file_stem_of_its_result() -> None:
    assert Draw(Sample("street_01", mask=MASK), k=3, seed=1).key == "street_01_3"
