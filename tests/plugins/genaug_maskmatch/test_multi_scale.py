"""The labeler ``maskmatch``: averaging over scales, and which pixels it keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug.errors import ConfigError, SampleError
from genaug.predictions import Predictions
from genaug.rng import Rng
from genaug_basics.threshold import ThresholdLabeler
from genaug_maskmatch.functional import average_scales
from genaug_maskmatch.labeler import MaskMatchLabeler
from genaug_maskmatch.mixer import PatchMask

SCALES = (1.0, 0.7, 1.5)


class Teacher:
    """A linear classifier of single pixels; remembers the sizes it was asked at."""

    def __init__(self, kind: str = "logits", classes: int = 4, gain: float = 3.0) -> None:
        generator = torch.Generator().manual_seed(5)
        self.matrix = gain * torch.randn(classes, 3, generator=generator)
        self.kind = kind
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, images: torch.Tensor) -> Predictions:
        self.sizes.append(tuple(images.shape[2:]))
        logits = torch.einsum("kc,bchw->bkhw", self.matrix.to(images), images)
        probs = logits.softmax(1)
        values = {"logits": logits, "log_probs": probs.log(), "probs": probs, "scores": 0.8 * probs}[self.kind]
        return Predictions(values, self.kind)


def pictures(seed: int, count: int = 2, size: tuple[int, int] = (13, 9)) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def bilinear(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize ``[C, h, w]`` pixel by pixel: the mean of four neighbours, weighted by distance."""
    C, h, w = image.shape
    result = torch.zeros(C, *size, dtype=torch.float64)
    for y in range(size[0]):
        for x in range(size[1]):
            v, u = max((y + 0.5) * h / size[0] - 0.5, 0), max((x + 0.5) * w / size[1] - 0.5, 0)
            top, left = min(int(v), h - 1), min(int(u), w - 1)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            b, a = v - top, u - left
            result[:, y, x] = (1 - b) * ((1 - a) * image[:, top, left] + a * image[:, top, right]) + b * (
                (1 - a) * image[:, bottom, left] + a * image[:, bottom, right]
            )
    return result


def slow_mean(teacher: Teacher, image: torch.Tensor, average: str) -> torch.Tensor:
    """Eq. 7 for one image ``[3, H, W]``, in float64, as probabilities."""
    H, W = image.shape[1:]
    total = torch.zeros(len(teacher.matrix), H, W, dtype=torch.float64)
    for scale in SCALES:
        seen = bilinear(image, (round(scale * H), round(scale * W)))
        logits = torch.einsum("kc,chw->khw", teacher.matrix.double(), seen)
        total += bilinear(logits.softmax(0) if average == "probs" else logits, (H, W)) / 3
    return total if average == "probs" else total.softmax(0)


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs", "scores"])
@pytest.mark.parametrize("average", ["probs", "logits"])
def test_equals_a_loop_over_pixels(kind: str, average: str) -> None:
    images, teacher = pictures(0), Teacher(kind)
    mean = MaskMatchLabeler(average=average).predict(teacher, images)
    assert teacher.sizes == [(13, 9), (9, 6), (20, 14)]
    assert mean.kind == average
    assert mean.values.shape == (2, 4, 13, 9)
    expected = torch.stack([slow_mean(teacher, image, average) for image in images]).float()
    torch.testing.assert_close(mean.probs(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(mean.probs().sum(1), torch.ones(2, 13, 9), rtol=0, atol=1e-6)


def test_probabilities_and_logits_average_to_different_labels() -> None:
    images = pictures(1, 4, (20, 20))
    kept = {
        average: (labeler := MaskMatchLabeler(average=average)).label(labeler.predict(Teacher(), images)).weights.mean()
        for average in ("probs", "logits")
    }
    assert kept["probs"] < kept["logits"]


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 3), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_a_teacher_that_ignores_scale_says_on_average_what_it_says_once(seed, count, size) -> None:
    images = pictures(seed, count, (1, 1)).expand(-1, -1, *size).contiguous()  # one colour: no scale changes it
    once = Teacher()(images).probs()
    torch.testing.assert_close(MaskMatchLabeler().predict(Teacher(), images).probs(), once, rtol=0, atol=1e-6)


def test_equal_scales_are_one_scale() -> None:
    images = pictures(2)
    plain = Teacher()(images)
    thrice = MaskMatchLabeler(scales=(1.0, 1.0, 1.0)).predict(Teacher(), images)
    torch.testing.assert_close(thrice.probs(), plain.probs())
    one = MaskMatchLabeler(scales=(1.0,), threshold=0.6, strict=False)
    single = one.predict(Teacher(), images)
    assert torch.equal(single.values, plain.probs())  # nothing was resized
    ours, theirs = one.label(single), ThresholdLabeler(threshold=0.6).label(single)
    assert torch.equal(ours.hard, theirs.hard)
    assert torch.equal(ours.weights, theirs.weights)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.4, 0.9]), st.booleans(), st.integers(1, 4))
def test_labels_are_the_sure_valid_pixels(seed, threshold, strict, classes) -> None:
    images = pictures(seed)
    valid = torch.rand(2, 13, 9, generator=torch.Generator().manual_seed(seed)) < 0.8
    labeler = MaskMatchLabeler(threshold=threshold, strict=strict)
    mean = labeler.predict(Teacher(classes=classes), images)
    targets = labeler.label(mean, valid=valid, ignore_index=254)
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(13), torch.arange(9)).tolist():
        top, best = mean.values[b, :, y, x].max(0)
        sure = (top > threshold if strict else top >= threshold) and valid[b, y, x]
        assert targets.hard[b, y, x] == (best if sure else 254)
        assert targets.weights[b, y, x] == float(sure)
        if valid[b, y, x]:
            assert targets.predicted[b, y, x] == best
            assert targets.confidence[b, y, x] == top


def test_the_threshold_itself_is_not_kept_by_default() -> None:
    values = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1)
    assert MaskMatchLabeler().label(Predictions(values, "probs")).weights.item() == 0
    assert MaskMatchLabeler(strict=False).label(Predictions(values, "probs")).weights.item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_float32(dtype: torch.dtype) -> None:
    images = pictures(3, 2, (16, 16))

    def half(seen: torch.Tensor) -> Predictions:
        answer = Teacher()(seen)
        return Predictions(answer.values.to(dtype), "logits")

    mean = MaskMatchLabeler().predict(half, images)
    assert mean.values.dtype == torch.float32
    full = MaskMatchLabeler().predict(Teacher(), images)
    assert (mean.values - full.values).abs().max() < 0.05
    assert MaskMatchLabeler().label(mean).weights.dtype == torch.float32


def test_classes_that_are_impossible_make_no_nan() -> None:
    def sure(seen: torch.Tensor) -> Predictions:
        left = torch.arange(seen.shape[3]) < seen.shape[3] // 2
        probs = torch.stack([left, ~left]).float().view(1, 2, 1, -1).expand(len(seen), -1, seen.shape[2], -1)
        return Predictions(probs.log(), "log_probs")

    for average in ("probs", "logits"):
        mean = MaskMatchLabeler(average=average).predict(sure, pictures(0))
        assert torch.isfinite(mean.values).all()


def test_the_teachers_own_tensors_stay_untouched() -> None:
    images, fixed = pictures(4), Teacher("probs")
    answers: list[Predictions] = []

    def remembering(seen: torch.Tensor) -> Predictions:
        answers.append(fixed(seen))
        return answers[-1]

    MaskMatchLabeler(scales=(1.0, 1.0)).predict(remembering, images)
    assert torch.equal(answers[0].values, fixed(images).values)


def test_sizes_and_limits() -> None:
    teacher = Teacher()
    MaskMatchLabeler(multiple_of=14).predict(teacher, pictures(0, 1, (28, 56)))
    assert teacher.sizes == [(28, 56), (14, 42), (42, 84)]  # 19.6 is nearest to 14, 39.2 to 42
    asked = Teacher()
    with pytest.raises(SampleError, match=r"scale 1\.5 makes 20x14 of 13x9"):
        MaskMatchLabeler(max_side=19).predict(asked, pictures(0))
    assert asked.sizes == []
    MaskMatchLabeler(max_side=20).predict(asked, pictures(0))
    with pytest.raises(SampleError, match="images' own size"):
        MaskMatchLabeler().predict(lambda seen: Predictions(seen[:, :, ::2], "logits"), pictures(0))
    with pytest.raises(SampleError, match="no scale"):
        average_scales(Teacher(), pictures(0), [])


def test_align_corners_is_that_of_the_host() -> None:
    images, teacher = pictures(6), Teacher()
    mean = MaskMatchLabeler(scales=(1.5,), align_corners=True).predict(teacher, images)
    seen = F.interpolate(images, size=(20, 14), mode="bilinear", align_corners=True)
    expected = F.interpolate(teacher(seen).probs(), size=(13, 9), mode="bilinear", align_corners=True)
    assert torch.equal(mean.values, expected)


def test_a_sure_student_that_is_its_teacher_has_no_local_loss() -> None:
    from genaug.batch import Batch

    images, teacher = pictures(7, 2, (16, 16)), Teacher(gain=1e4)
    labeler = MaskMatchLabeler(scales=(1.0,))
    targets = labeler.label(labeler.predict(teacher, images))
    batch = Batch(images, targets=targets.hard, weights=targets.weights)
    same = PatchMask(patch=4, ratio=0).mix(batch, rng=Rng(0))
    assert F.cross_entropy(teacher(same.images).values, same.targets, ignore_index=255) < 1e-4
    masked = PatchMask(patch=4).mix(batch, rng=Rng(0))
    assert F.cross_entropy(teacher(masked.images).values, masked.targets, ignore_index=255) > 0.1


@pytest.mark.parametrize(
    "bad",
    [{"scales": ()}, {"scales": (1.0, 0.0)}, {"scales": (5.0,)}, {"threshold": -0.1}, {"average": "median"},
     {"multiple_of": 0}, {"max_side": 0}],
)  # fmt: skip
def test_wrong_options_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        MaskMatchLabeler(**bad)
