"""Strong views: colours against Pillow and the standard library, streams of their own for every sample."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from genaug.errors import ConfigError, SampleError
from genaug.rng import Rng
from genaug.step_config import ViewsConfig
from genaug_torch import StrongView, colour

IMAGES = torch.rand(4, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def pillow(tensor):
    return Image.fromarray((tensor.movedim(0, -1).numpy() * 255).round().astype(np.uint8))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.adjust_brightness, ImageEnhance.Brightness),
        (colour.adjust_contrast, ImageEnhance.Contrast),
        (colour.adjust_saturation, ImageEnhance.Color),
    ],
)
def test_jitter_agrees_with_pillow(ours, theirs):
    factors = torch.tensor([0.5, 0.9, 1.2, 1.5])
    found = ours(IMAGES, factors)
    for image, factor, result in zip(IMAGES, factors.tolist(), found, strict=True):
        expected = np.asarray(theirs(pillow(image)).enhance(factor), np.float64)
        assert np.abs(result.movedim(0, -1).numpy() * 255 - expected).max() < 2.5  # Pillow rounds in between


def test_hue_agrees_with_the_standard_library():
    shifts = torch.tensor([-0.25, 0.0, 0.1, 0.25])
    found = colour.adjust_hue(IMAGES, shifts)
    for i, y, x in ((0, 0, 0), (1, 5, 7), (2, 19, 23), (3, 10, 3), (3, 0, 1)):
        h, s, v = colorsys.rgb_to_hsv(*IMAGES[i, :, y, x].tolist())
        expected = colorsys.hsv_to_rgb((h + float(shifts[i])) % 1, s, v)
        torch.testing.assert_close(found[i, :, y, x], torch.tensor(expected), atol=1e-5, rtol=0)
    gray = torch.full((4, 3, 2, 2), 0.4)
    torch.testing.assert_close(colour.adjust_hue(gray, shifts), gray)


def test_blur_agrees_with_a_sum_over_neighbours_and_keeps_constants():
    sigmas = torch.tensor([0.1, 0.7, 1.3, 2.0])
    found = colour.gaussian_blur(IMAGES, sigmas)
    for i, y, x in ((0, 3, 4), (1, 9, 9), (2, 10, 11), (3, 10, 12)):
        ys, xs = torch.meshgrid(torch.arange(-6, 7), torch.arange(-6, 7), indexing="ij")
        weights = torch.exp(-(ys**2 + xs**2) / (2 * sigmas[i] ** 2))
        weights[torch.maximum(ys.abs(), xs.abs()) > np.ceil(3 * float(sigmas[i]))] = 0
        rows, columns = (y + ys).abs(), (x + xs).abs()  # mirrored at the upper left; far enough from the others
        values = IMAGES[i][:, rows.clamp(max=19), columns.clamp(max=23)]
        inside = (rows <= 19) & (columns <= 23)
        assert inside.all()
        torch.testing.assert_close(found[i, :, y, x], (values * weights).sum((1, 2)) / weights.sum())
    constant = torch.full((4, 3, 9, 9), 0.3)
    torch.testing.assert_close(colour.gaussian_blur(constant, sigmas), constant)
    assert colour.gaussian_blur(IMAGES[..., :1], sigmas).shape == (4, 3, 20, 1)
    big = np.asarray(pillow(IMAGES[3]).filter(ImageFilter.GaussianBlur(2.0)), np.float64)
    assert np.abs(found[3].movedim(0, -1).numpy() * 255 - big)[6:-6, 6:-6].mean() < 8  # Pillow's is an approximation


def test_a_view_depends_on_its_own_stream_alone(library):
    view = StrongView(ViewsConfig(strong=library))
    before, state = IMAGES.clone(), torch.random.get_rng_state()
    whole = view(IMAGES, rng=Rng(3))
    assert torch.equal(IMAGES, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(whole, view(IMAGES, rng=Rng(3)))
    assert not torch.equal(whole, view(IMAGES, rng=Rng(4)))
    cut = torch.cat(
        [view(IMAGES[:1], rng=Rng(3)), view(IMAGES[1:3], rng=Rng(3), first=1), view(IMAGES[3:], rng=Rng(3), first=3)]
    )
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=0)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1 + 1e-6
    assert len({tuple(v.flatten()[:5].tolist()) for v in view(IMAGES[:1].expand(4, -1, -1, -1), rng=Rng(0))}) > 1


@pytest.mark.parametrize("sigma", [0.1, 0.4, 0.7, 1.3])
def test_blur_does_not_depend_on_the_other_images(sigma):
    alone = colour.gaussian_blur(IMAGES[:1], torch.tensor([sigma]))
    beside = colour.gaussian_blur(IMAGES[:2], torch.tensor([sigma, 2.0]))[:1]
    torch.testing.assert_close(beside, alone, atol=5e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_changed_in_full_precision(dtype):
    view = StrongView(ViewsConfig(strong="builtin", jitter=1, blur=1))
    images = IMAGES.to(dtype)
    images[0] = 0.5  # gray pixels have no hue to divide by
    expected = view(images.float(), rng=Rng(3))
    found = view(images, rng=Rng(3))
    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view(images.float(), rng=Rng(3)), expected)


def test_probabilities_and_normalisation(library):
    never = ViewsConfig(strong=library, jitter=0, gray=0, blur=0)
    torch.testing.assert_close(StrongView(never)(IMAGES, rng=Rng(0)), IMAGES, atol=1e-6, rtol=0)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    normalised = (IMAGES - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    always = ViewsConfig(strong=library, gray=1.0)
    plain = StrongView(always)(IMAGES, rng=Rng(1))
    found = StrongView(always, mean=mean, std=std)(normalised, rng=Rng(1))
    torch.testing.assert_close(found * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1), plain,
                               atol=1e-5, rtol=0)  # fmt: skip
    torch.testing.assert_close(plain[:, 0], plain[:, 1], atol=1e-5, rtol=0)


def test_images_that_are_not_in_the_unit_range_are_noticed_once():
    view = StrongView(ViewsConfig(strong="builtin"))
    with pytest.warns(UserWarning, match=r"from -2\.\d+ to 2\.\d+: pass the mean and std"):
        view(5 * IMAGES - 2.5, rng=Rng(0))
    view(5 * IMAGES - 2.5, rng=Rng(0))
    normalised = StrongView(ViewsConfig(strong="builtin"), mean=np.full(3, 0.5), std=np.full(3, 0.2))
    normalised(5 * IMAGES - 2.5, rng=Rng(0))  # no warning


def test_wrong_normalisations_are_named():
    with pytest.raises(ConfigError, match=r"mean: 1 numbers.*one a channel"):
        StrongView(mean=[0.5])
    with pytest.raises(ConfigError, match=r"std.*numbers above 0"):
        StrongView(std=[0.2, 0.0, 0.2])


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (6, 1)])
def test_small_images_are_blurred_as_far_as_they_go(library, size):
    if library == "albumentations" and 1 in size:
        pytest.skip("albumentations drops axes of length 1")
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    found = StrongView(ViewsConfig(strong=library, blur=1))(images, rng=Rng(0))
    assert found.shape == images.shape
    assert found.dtype == torch.float64


def test_factors_of_large_ranges_stay_above_zero(library):
    wide = ViewsConfig(strong=library, brightness=1.5, contrast=2, saturation=3, hue=0.5, jitter=1)
    found = StrongView(wide)(IMAGES, rng=Rng(0))
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-6


def test_libraries_change_brightness_over_the_same_range(library):
    config = ViewsConfig(strong=library, jitter=1, gray=0, blur=0, contrast=0, saturation=0, hue=0, brightness=0.5)
    images = torch.full((200, 3, 4, 4), 0.5)
    factors = StrongView(config)(images, rng=Rng(2)).amax((1, 2, 3)) / 0.5
    assert 0.49 < float(factors.min()) < 0.6
    assert 1.4 < float(factors.max()) < 1.51


def test_one_library_may_be_named_for_every_device():
    view = StrongView(ViewsConfig(strong="builtin"))
    assert view.library("cpu") == view.library("cuda") == "builtin"
    assert StrongView(ViewsConfig(strong="none")).library() == "none"
    assert StrongView(transform=lambda image: image).library("cuda") == "transform"


def test_transforms_of_the_user_are_seeded_for_every_sample():
    def noisy(image):
        return image + torch.rand(()) * np.float32(0.1)

    state = torch.random.get_rng_state()
    view = StrongView(transform=noisy)
    whole = view(IMAGES, rng=Rng(5))
    assert torch.equal(torch.cat([view(IMAGES[:2], rng=Rng(5)), view(IMAGES[2:], rng=Rng(5), first=2)]), whole)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(SampleError, match=r"gave \(1, 3, 10, 24\)"):
        StrongView(transform=lambda image: image[:, :, ::2])(IMAGES, rng=Rng(0))
    with pytest.raises(SampleError, match=r"\[B, 3, H, W\]"):
        view(IMAGES[0], rng=Rng(0))
    assert StrongView(ViewsConfig(strong="none"))(IMAGES, rng=Rng(0)) is IMAGES
