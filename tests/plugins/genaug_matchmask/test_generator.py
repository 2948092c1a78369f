"""Sampling with the real pipeline on the tiny base: seeds, batches, sizes, conditions, presets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from genaug import LabelSpace, Registry, Rng, Sample
from genaug.errors import ConfigError, SampleError
from genaug.testing import GeneratorContract
from genaug.types import Draw, Refused
from genaug_diffusion.base import vae_factor
from genaug_diffusion.sizes import generation_size
from genaug_diffusion.testing import make_pipeline
from genaug_matchmask.adapter import LTAdapter
from genaug_matchmask.checkpoint import save_adapter
from genaug_matchmask.config import MatchMaskOptions
from genaug_matchmask.generator import MatchMaskGenerator

LABELS = LabelSpace({1: "dog", 4: "cat", 9: "potted plant", 12: "zebra"})


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = LTAdapter(make_pipeline().unet)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters().items():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=Rng(0).child(name).torch()))
    folder = tmp_path_factory.mktemp("adapter")
    about = {"labels": LABELS.to_dict(), "training": {"samples": 1, "steps": 1}}
    save_adapter(adapter, folder, base="base", revision=None, about=about)
    return folder


@pytest.fixture
def make(base_folder: Path, adapter_folder: Path):
    def make(labels: LabelSpace = LABELS, **options) -> MatchMaskGenerator:
        options = {"steps": 4, "preset": "fast", "batch_size": 8, **options}
        chosen = MatchMaskOptions(base=str(base_folder), adapter=str(adapter_folder), **options)
        generator = MatchMaskGenerator(chosen, registry=Registry([]))
        generator.prepare(labels)
        return generator

    return make


def draws_of(samples: list[Sample], count: int) -> list[Draw]:
    return [Draw(s, k, Rng(7).child(s.id, k).integer()) for s in samples for k in range(count)]


def difference(a: Sample | Refused, b: Sample | Refused) -> int:
    assert isinstance(a, Sample)
    assert isinstance(b, Sample)
    return int(np.abs(a.image.astype(int) - b.image.astype(int)).max())


class TestMatchMaskContract(GeneratorContract):
    labels = LABELS
    sizes = ((64, 80), (37, 61))

    @pytest.fixture(autouse=True)
    def _make(self, make) -> None:
        self.make = make

    def make_generator(self) -> MatchMaskGenerator:
        return self.make()


def test_the_mask_decides_the_image(make, samples) -> None:
    generator = make(guidance_scale=7.0)
    mask = samples[0].mask
    other = np.where(mask == 1, np.uint8(9), mask)
    images = [generator.generate([Draw(Sample("m", None, m), 0, 5)], ignore_index=255)[0] for m in (mask, other)]
    assert difference(*images) > 2
    assert np.array_equal(images[1].mask, other)


def test_unconditional_half_is_independent_of_the_layout(make, samples) -> None:
    """With a guided batch, the first half's prediction must not change with the mask."""
    generator = make()
    seen = []
    generator.pipe.unet.register_forward_hook(lambda m, i, o: seen.append(o[0][: len(o[0]) // 2].clone()))
    for mask in (samples[0].mask, np.full_like(samples[0].mask, 12)):
        generator.generate([Draw(Sample("m", None, mask), 0, 5)], ignore_index=255)
    assert len(seen) == 8
    assert torch.equal(seen[0], seen[4])  # the first step sees the same noise


@pytest.mark.parametrize("preset", ["plms", "fast", "ddim"])
@pytest.mark.parametrize("mode", ["square", "keep_aspect"])
def test_presets_and_any_size(make, preset: str, mode: str) -> None:
    generator = make(preset=preset, size_mode=mode, resolution=32, images_per_mask=2)
    mask = np.ones((37, 61), np.uint8)
    mask[10:20] = 4
    sample = generator.generate([Draw(Sample("odd", None, mask), 0, 1)], ignore_index=255)[0]
    assert sample.image.shape == (37, 61, 3)
    assert sample.image.std() > 0
    assert np.array_equal(sample.mask, mask)


def test_default_steps_are_the_papers(make) -> None:
    generator = make(preset="plms", steps=None)
    assert generator.steps == 50
    calls = []
    generator.pipe.unet.register_forward_pre_hook(lambda m, a: calls.append(1))
    generator.generate([Draw(Sample("x", None, np.ones((64, 64), np.uint8)), 0, 1)], ignore_index=255)
    assert len(calls) == 51  # PLMS repeats one step to start


@pytest.mark.parametrize("preset", ["plms", "fast", "ddim"])
def test_late_guidance_is_a_loop_without_and_then_with_guidance(make, preset: str) -> None:
    mask = np.ones((64, 64), np.uint8)
    mask[20:] = 9
    draw = Draw(Sample("m", None, mask), 0, 5)
    generator = make(preset=preset, steps=5, guidance_scale=6.0, guidance_start=0.4)
    rows = []
    generator.pipe.unet.register_forward_pre_hook(lambda m, a: rows.append(len(a[0])))
    made = generator.generate([draw], ignore_index=255)[0]
    assert rows == [1] * 2 + [2] * (len(rows) - 2)
    assert len(rows) == (6 if preset == "plms" else 5)

    pipe, conditioner = generator.pipe, generator.conditioner
    prompt = conditioner.prompt(mask, where="test")
    both = torch.stack([conditioner.empty(), conditioner.embed(prompt.input_ids)])
    factor = vae_factor(pipe)
    layout = conditioner.masks([mask], [prompt], (64, 64), factor)
    scheduler, noise = pipe.scheduler, torch.Generator().manual_seed(5)
    scheduler.set_timesteps(5)
    x = torch.randn(1, 4, 64 // factor, 64 // factor, generator=noise) * scheduler.init_noise_sigma
    with torch.inference_mode():
        for number, t in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, t)
            kwargs = {"cross_attention_kwargs": {"layout": layout}}
            guided = pipe.unet(scaled.expand(2, -1, -1, -1), t, both, **kwargs).sample
            scale = 6.0 if number >= 2 else 1.0
            x = scheduler.step(guided[:1] + scale * (guided[1:] - guided[:1]), t, x).prev_sample
        image = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample[0].permute(1, 2, 0)
    expected = (image / 2 + 0.5).clamp(0, 1).mul(255).round().numpy()
    assert np.abs(expected - made.image).max() <= 1
    all_guided = make(preset=preset, steps=5, guidance_scale=6.0).generate([draw], ignore_index=255)
    assert difference(made, all_guided[0]) > 5


def test_batches_of_masks_of_different_sizes_are_fine_when_images_are_square(make) -> None:
    generator = make()
    small, wide = np.ones((20, 20), np.uint8), np.full((30, 50), 4, np.uint8)
    one, two = generator.generate(
        [Draw(Sample("a", None, small), 0, 1), Draw(Sample("b", None, wide), 0, 2)], ignore_index=255
    )
    assert (one.image.shape, two.image.shape) == ((20, 20, 3), (30, 50, 3))
    keep = make(size_mode="keep_aspect")
    with pytest.raises(SampleError, match="at most 8 draws of one size"):
        keep.generate([Draw(Sample("a", None, small), 0, 1), Draw(Sample("b", None, wide), 0, 2)], ignore_index=255)


def test_unknown_ids_are_an_error_or_ignored(make) -> None:
    mask = np.ones((64, 64), np.uint8)
    mask[:10] = 77
    with pytest.raises(SampleError, match=r"sample u_0.*ids without a name: \[77\]"):
        make().generate([Draw(Sample("u", None, mask), 0, 1)], ignore_index=255)
    sample = make(unknown_class="ignore").generate([Draw(Sample("u", None, mask), 0, 1)], ignore_index=255)[0]
    assert (sample.mask[:10] == 255).all()
    assert (sample.mask[10:] == 1).all()


def test_classes_that_do_not_fit_do_not_supervise(make) -> None:
    labels = LabelSpace(dict.fromkeys(range(20), "zebra crossing sign number plate"))
    mask = np.zeros((40, 40), np.uint8)
    for i in range(1, 20):
        mask[2 * i : 2 * i + 2, : 2 * i] = i  # larger ids are larger regions; 0 is the largest
    sample = make(labels).generate([Draw(Sample("m", None, mask), 0, 1)], ignore_index=255)[0]
    dropped = set(sample.meta["dropped"])
    assert dropped
    assert 0 not in dropped
    assert dropped == set(range(1, max(dropped) + 1))
    assert np.array_equal(sample.mask == 255, np.isin(mask, list(dropped)))
    whole = make(labels, overflow="chunk").generate([Draw(Sample("m", None, mask), 0, 1)], ignore_index=255)[0]
    assert np.array_equal(whole.mask, mask)
    assert whole.meta["dropped"] == ()


def test_nothing_to_condition_on_is_refused_with_its_reason(make) -> None:
    labels = LabelSpace({0: "background", 1: "dog"})
    empty, plain = np.full((32, 32), 255, np.uint8), np.zeros((32, 32), np.uint8)
    draws = [Draw(Sample("e", None, empty), 0, 1), Draw(Sample("p", None, plain), 0, 1)]
    refused, background = make(labels).generate(draws, ignore_index=255)
    assert refused == Refused("every pixel of the mask is ignored")
    assert isinstance(background, Sample)
    both = make(labels, skip_no_foreground=True).generate(draws, ignore_index=255)
    assert [r.reason for r in both] == ["every pixel of the mask is ignored", "the mask shows nothing but background"]


def test_background_without_a_token_keeps_its_labels(make) -> None:
    labels = LabelSpace({0: "background", 1: "dog"})
    mask = np.zeros((32, 32), np.uint8)
    mask[:9] = 1
    bound, free = (make(labels, background=b) for b in ("token", "global"))
    samples = [g.generate([Draw(Sample("m", None, mask), 0, 1)], ignore_index=255)[0] for g in (bound, free)]
    assert samples[0].meta["prompt_classes"] == [0, 1]
    assert samples[1].meta["prompt_classes"] == [1]
    assert np.array_equal(samples[1].mask, mask)
    assert difference(*samples) > 0


def test_flagged_images_are_refused_and_the_rest_is_kept(make, samples) -> None:
    generator = make()

    def checker(images, clip_input):
        return images, [False, True]

    generator.pipe.safety_checker, generator.pipe.feature_extractor = checker, _NoFeatures()
    results = generator.generate(draws_of(samples[:1], 2), ignore_index=255)
    assert isinstance(results[0], Sample)
    assert results[1] == Refused("the base's safety checker flagged the image")


class _NoFeatures:
    def __call__(self, images, return_tensors):
        return self

    def to(self, device):
        self.pixel_values = torch.zeros(1)
        return self


def test_an_image_that_is_not_finite_is_refused(make, samples) -> None:
    generator = make()
    generator.pipe.vae.decoder.conv_out.bias.data[0] = float("nan")
    assert generator.generate(draws_of(samples[:1], 1), ignore_index=255) == [Refused("the image is not finite")]


def test_nothing_to_supervise_is_refused(make) -> None:
    only_unknown = np.full((32, 32), 77, np.uint8)
    (result,) = make(unknown_class="ignore").generate([Draw(Sample("u", None, only_unknown), 0, 1)], ignore_index=255)
    assert result == Refused("no class of the mask could be conditioned")


def test_a_small_object_reaches_the_attention_only_with_any(make) -> None:
    mask = np.ones((512, 512), np.uint8)
    mask[101:104, 301:304] = 4
    for mode, seen in (("nearest", False), ("any", True)):
        conditioner = make(mask_downsample=mode).conditioner
        prompt = conditioner.prompt(mask, where="test")
        masks = conditioner.masks([mask], [prompt], (64, 64), 4)
        cat = (prompt.token_class == 4).nonzero()[0, 0]
        assert all(bool(m[..., cat].any()) == seen for m in masks.values()), mode


def test_ddim_does_not_clip_latents(make, samples) -> None:
    """The spec's trap: DDIM made from a PNDM config clips to [-1, 1] unless told not to."""
    generator = make(preset="ddim", steps=3)
    latents = []
    decode = generator.pipe.vae.decode
    generator.pipe.vae.decode = lambda z, **kw: latents.append(z) or decode(z, **kw)
    generator.generate(draws_of(samples[:1], 2), ignore_index=255)
    assert generator.pipe.scheduler.config.clip_sample is False
    assert (latents[0] * generator.pipe.vae.config.scaling_factor).abs().max() > 1.5


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [
        ((90, 120), "square", (112, 112)),
        ((90, 120), "keep_aspect", (96, 128)),
        ((1, 1000), "keep_aspect", (8, 3544)),
        ((375, 500), "keep_aspect", (96, 128)),
    ],
)
def test_generation_size(size, mode, expected) -> None:
    assert generation_size(size, 112, mode) == expected


def test_another_adapter_or_class_table_takes_effect(make, samples, tmp_path) -> None:
    generator = make()
    first = generator.generate(draws_of(samples[:1], 1), ignore_index=255)[0]
    other = LTAdapter(make_pipeline().unet)
    other.initialize(Rng(0))
    about = {"labels": LABELS.to_dict(), "training": {"samples": 1, "steps": 1}, "resolution": 128}
    save_adapter(other, tmp_path / "other", base="base", revision=None, about=about)
    before = generator.describe()["adapter"]
    generator.load_adapted(tmp_path / "other")
    generator.prepare(LABELS)
    assert generator.describe()["adapter"] != before
    assert difference(generator.generate(draws_of(samples[:1], 1), ignore_index=255)[0], first) > 3
    generator.prepare(LabelSpace({1: "dog"}))
    with pytest.raises(SampleError, match="ids without a name"):
        generator.generate(draws_of(samples[:1], 1), ignore_index=255)


def test_settings_that_differ_from_the_training_are_warned_about(make, tmp_path, caplog) -> None:
    adapter = LTAdapter(make_pipeline().unet)
    about = {"labels": LABELS.to_dict(), "training": {"samples": 1, "steps": 1}, "mask_downsample": "any"}
    about["overflow"] = "drop"
    save_adapter(adapter, tmp_path / "a", base="base", revision=None, about=about)
    generator = make()
    generator.load_adapted(tmp_path / "a")
    generator.prepare(LABELS)
    assert "trained with mask_downsample 'any', the recipe says 'nearest'" in caplog.text
    assert "overflow" not in caplog.text


def test_provenance_names_everything_that_decides_the_pixels(make, base_folder) -> None:
    about = make(preset="plms", steps=None).describe()
    harmless = {"adapter", "images_per_mask", "batch_size", "skip_no_foreground", "rank", "target_modules"}
    harmless |= {"alpha_pool", "safety_checker", "training"}  # in the adapter's own files, or no matter of pixels
    assert set(MatchMaskOptions.model_fields) - harmless <= set(about)
    assert about["base"] == str(base_folder)
    assert (about["steps"], about["guidance_scale"], about["resolution"], about["dtype"]) == (50, 2.0, 64, "float32")
    assert len(about["adapter"]) == 16


def test_without_an_adapter_it_says_what_to_run(base_folder) -> None:
    generator = MatchMaskGenerator(MatchMaskOptions(base=str(base_folder)), registry=Registry([]))
    with pytest.raises(ConfigError, match="genaug adapt"):
        generator.prepare(LABELS)


@pytest.mark.parametrize("base", ["nowhere/", "../x", "not-a-base"])
def test_a_base_that_is_nothing_is_a_clear_error(base: str) -> None:
    generator = MatchMaskGenerator(MatchMaskOptions(base=base), registry=Registry([]))
    with pytest.raises(ConfigError, match=r"generator.base"):
        generator.load_base(LABELS)


def test_a_folder_that_is_no_pipeline_is_a_clear_error(tmp_path) -> None:
    generator = MatchMaskGenerator(MatchMaskOptions(base="."), root=tmp_path, registry=Registry([]))
    with pytest.raises(ConfigError, match=r"no model_index.json.*Stable Diffusion"):
        generator.load_base(LABELS)


class _Online(Dataset):
    def __init__(self, generator: MatchMaskGenerator, draw: Draw) -> None:
        self.generator, self.draw = generator, draw

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> str:
        try:
            self.generator.generate([self.draw], ignore_index=255)
        except SampleError as error:
            return str(error)
        return "generated"


def test_generating_in_a_dataloader_worker_is_refused(make, samples) -> None:
    loader = DataLoader(_Online(make(), draws_of(samples[:1], 1)[0]), num_workers=1)
    (message,) = next(iter(loader))
    assert "inside a DataLoader worker" in message
    assert "genaug generate" in message
