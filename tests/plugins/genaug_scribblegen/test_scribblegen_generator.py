"""Sampling with the real pipeline on the tiny base: seeds, batches, levels, sizes, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genaug import LabelSpace, Rng, Sample
from genaug.errors import AdapterError, ConfigError, SampleError
from genaug.testing import GeneratorContract
from genaug.types import Draw, Refused
from genaug_diffusion.testing import make_pipeline
from genaug_scribblegen import generator as module
from genaug_scribblegen.checkpoint import save_adapter
from genaug_scribblegen.codec import make_codec
from genaug_scribblegen.generator import ScribbleGenGenerator


def save(network, folder: Path, labels: LabelSpace, hint: str = "rgb") -> Path:
    about = {
        "labels": labels.to_dict(), "hint": make_codec(hint, labels).describe(), "null_shape": "spatial",
        "prompt": "a high-quality, detailed, and professional image", "resolution": 64,
        "training": {"samples": 4, "steps": 7},
    }  # fmt: skip
    save_adapter(network, folder, base="some/base", revision=None, about=about)
    return folder


@pytest.fixture(scope="module")
def adapter_folder(make_network, labels, tmp_path_factory) -> Path:
    return save(make_network(make_pipeline()), tmp_path_factory.mktemp("adapter"), labels)


@pytest.fixture
def make(make_generator, adapter_folder, labels):
    def make(**options):
        generator = make_generator(**{"adapter": str(adapter_folder), "encode_ratio": (0.3, 0.6, 1.0), **options})
        generator.prepare(labels)
        return generator

    return make


def draws_of(samples: list[Sample], count: int) -> list[Draw]:
    return [Draw(s, k, Rng(7).child(s.id, k).integer()) for s in samples for k in range(count)]


def difference(a: Sample | Refused, b: Sample | Refused) -> int:
    assert isinstance(a, Sample)
    assert isinstance(b, Sample)
    return int(np.abs(a.image.astype(int) - b.image.astype(int)).max())


class TestScribbleGenContract(GeneratorContract):
    count = 3  # every encode ratio, in one batch

    @pytest.fixture(autouse=True)
    def _make(self, make, labels) -> None:
        self.make, self.labels = make, labels

    def make_generator(self) -> ScribbleGenGenerator:
        return self.make()


def test_the_mask_is_the_unchanged_scribble(make, samples) -> None:
    draws = draws_of(samples[:2], 3)
    made = make().generate(draws, ignore_index=255)
    assert [s.id for s in made] == ["s0_0", "s0_1", "s0_2", "s1_0", "s1_1", "s1_2"]
    assert all(np.array_equal(s.mask, draw.condition.mask) for s, draw in zip(made, draws, strict=True))


def test_every_level_gets_its_images(make, samples) -> None:
    generator = make(images_per_scribble=2)
    assert generator.samples_per_condition == 6
    made = generator.generate(draws_of(samples[:1], 6), ignore_index=255)
    assert [s.meta["encode_ratio"] for s in made] == [0.3, 0.3, 0.6, 0.6, 1.0, 1.0]
    assert made[0].meta["prompt"].startswith("a high-quality, detailed, and professional image of ")
    assert [made[0].meta[key] for key in ("unnamed", "dropped", "lost_strokes")] == [[], [], 0]
    assert difference(made[0], made[1]) > 5
    real = generator.pipe.vae.decode(
        module.encode_moments(generator.pipe.vae, np.asarray(Image.fromarray(samples[0].image).resize((64, 64))))[0][
            None
        ]
    ).sample[0]
    real = np.asarray(
        Image.fromarray(((real.detach().permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).byte().numpy()).resize((80, 64))
    )
    far = [np.abs(s.image.astype(float) - real).mean() for s in made]
    assert max(far[:2]) < min(far[4:])  # a low encode ratio stays near the real image


def test_the_image_is_what_the_equations_say(make, samples, labels) -> None:
    """From the scribble and its image to pixels, step by step."""
    generator = make(encode_ratio=0.5, guidance_scale=3.0)
    (made,) = generator.generate([Draw(samples[1], 0, 11)], ignore_index=255)
    network, pipe, sample = generator.network, generator.pipe, samples[1]
    pixels = torch.from_numpy(
        np.asarray(Image.fromarray(sample.image).resize((64, 64), Image.Resampling.BICUBIC)).copy()
    )
    columns = np.arange(64) * 80 // 64
    palette = np.array([(224, 224, 192) if i == 255 else labels.color(i) for i in range(256)], np.uint8)
    hint = torch.from_numpy(palette[sample.mask[:, columns]]).permute(2, 0, 1)[None] / 255
    ids = pipe.tokenizer(made.meta["prompt"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    signal = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
    with torch.no_grad():
        text = pipe.text_encoder(ids)[0]
        z = pipe.vae.encode(pixels.permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
        noise = torch.randn((4, 16, 16), generator=torch.Generator().manual_seed(11))
        x = signal[499].sqrt() * z + (1 - signal[499]).sqrt() * noise
        for t, before in [(499, 249), (249, 0)]:
            steps = torch.tensor([t])
            null, scribbled = (network(x, steps, text, hint, torch.tensor([dropped])) for dropped in (True, False))
            eps = 3.0 * scribbled - 2.0 * null
            image = (x - (1 - signal[t]).sqrt() * eps) / signal[t].sqrt()
            x = signal[before].sqrt() * image + (1 - signal[before]).sqrt() * eps
        decoded = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample[0]
    small = ((decoded.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).round().byte().numpy()
    expected = np.asarray(Image.fromarray(small).resize((80, 64), Image.Resampling.BICUBIC))
    assert np.abs(expected.astype(int) - made.image).max() <= 1


def test_the_scribble_decides_the_image(make, samples) -> None:
    generator, mask = make(guidance_scale=6.0, encode_ratio=1.0), samples[0].mask
    other = np.where(mask == mask[mask != 255][0], np.uint8(255), mask)
    images = [generator.generate([Draw(Sample("m", None, m), 0, 5)], ignore_index=255)[0] for m in (mask, other)]
    assert difference(*images) > 2


def test_at_encode_ratio_1_no_image_is_needed_and_below_it_is(make, samples) -> None:
    bare = Sample("bare", None, samples[0].mask)
    (made,) = make(encode_ratio=1).generate([Draw(bare, 0, 3)], ignore_index=255)
    (same,) = make(encode_ratio=1).generate([Draw(samples[0], 0, 3)], ignore_index=255)
    assert np.array_equal(made.image, same.image)
    (leaked,) = make(encode_ratio=1, leak_at_one=True).generate([Draw(samples[0], 0, 3)], ignore_index=255)
    assert difference(leaked, made) > 0
    for options in ({"encode_ratio": 0.5}, {"encode_ratio": 1.0, "leak_at_one": True}):
        with pytest.raises(SampleError, match=r"sample bare_0: no real image, which encode ratio .*encode_ratio: 1.0"):
            make(**options).generate([Draw(bare, 0, 3)], ignore_index=255)


def test_real_images_are_encoded_once(make, samples, monkeypatch) -> None:
    calls, real = [], module.encode_moments
    monkeypatch.setattr(module, "encode_moments", lambda vae, image: calls.append(image) or real(vae, image))
    generator = make(encode_ratio=(0.3, 0.6))
    generator.generate(draws_of(samples[:2], 2), ignore_index=255)
    assert len(calls) == 2
    generator.generate([Draw(samples[1], 1, 9)], ignore_index=255)  # the latest batch's are kept
    assert len(calls) == 2
    generator.generate([Draw(samples[0], 1, 9)], ignore_index=255)
    assert len(calls) == 3
    copy = Sample("s0", samples[0].image.copy(), samples[0].mask)
    generator.generate([Draw(copy, 1, 9)], ignore_index=255)
    assert len(calls) == 4


@pytest.mark.parametrize("mode", ["square", "keep_aspect"])
def test_any_size(make, mode: str) -> None:
    generator = make(size_mode=mode, resolution=32)
    mask = np.full((37, 61), 255, np.uint8)
    mask[10:20, 5:50] = 4
    sample = Sample("odd", np.full((37, 61, 3), 90, np.uint8), mask)
    made = generator.generate(draws_of([sample], 3), ignore_index=255)
    assert all(s.image.shape == (37, 61, 3) and s.image.std() > 0 for s in made)
    assert all(np.array_equal(s.mask, mask) for s in made)
    wide = Sample("wide", np.zeros((16, 64, 3), np.uint8), np.ones((16, 64), np.uint8))
    both = [Draw(sample, 0, 1), Draw(wide, 0, 1)]
    if mode == "square":
        assert [s.image.shape[:2] for s in generator.generate(both, ignore_index=255)] == [(37, 61), (16, 64)]
    else:
        with pytest.raises(SampleError, match="draws of one size"):
            generator.generate(both, ignore_index=255)


def test_a_generator_that_has_sampled_can_still_adapt(make, samples, labels, tmp_path) -> None:
    """Prompt embeddings are shared, and tensors of inference mode cannot be trained with."""
    generator = make(training={"steps": 1}, encode_ratio=1.0)
    (before,) = generator.generate([Draw(samples[0], 0, 1)], ignore_index=255)
    generator.adapt(samples, tmp_path / "a", labels=labels, rng=Rng(0))
    (after,) = generator.generate([Draw(samples[0], 0, 1)], ignore_index=255)
    assert np.array_equal(before.image, after.image)  # with the adapter it had


def test_options_of_the_sampler(make, samples) -> None:
    draw = Draw(samples[0], 1, 5)  # encode ratio 0.6
    plain = make().generate([draw], ignore_index=255)[0]
    scaled = {"steps_mode": "scaled", "steps": 5}
    for options, steps in [({"grid": "released"}, 2), (scaled, 3), ({"guidance_scale": 5.0}, 2)]:
        generator = make(**options)
        rows = []
        generator.pipe.unet.register_forward_pre_hook(lambda m, a, rows=rows: rows.append(len(a[0])))
        (made,) = generator.generate([draw], ignore_index=255)
        assert difference(made, plain) > 0
        assert rows == [2] * steps  # null and scribble in one batch
    for key, value in make(guidance_scale=5.0).describe().items():
        assert value is not None or key == "revision"


def test_nothing_scribbled_is_refused_or_made(make, samples) -> None:
    empty = Sample("e", np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 255, np.uint8))
    draws = [Draw(empty, 0, 1), Draw(samples[0], 0, 1)]
    refused, made = make().generate(draws, ignore_index=255)
    assert refused == Refused("nothing is scribbled")
    assert isinstance(made, Sample)
    both = make(skip_unlabelled=False).generate(draws, ignore_index=255)
    assert both[0].meta["prompt"] == "a high-quality, detailed, and professional image"
    assert (both[0].mask == 255).all()
    unmasked = Sample("u", np.zeros((64, 64, 3), np.uint8))
    assert make().generate([Draw(unmasked, 0, 1)], ignore_index=255) == [Refused("the condition has no scribble")]


def test_strokes_that_vanish_on_the_way_to_the_size_of_the_image_label_nothing(make) -> None:
    """256 pixels to 64 take every fourth row and column; strokes of three pixels may lie between."""
    generator, image = make(encode_ratio=1.0), np.zeros((256, 256, 3), np.uint8)
    cat = np.full((256, 256), 255, np.uint8)
    cat[:, 120:123] = 4
    both = cat.copy()
    both[97:100] = np.where(both[97:100] == 255, 1, both[97:100])
    neither = np.full((256, 256), 255, np.uint8)
    neither[97:100], neither[:, 121:124] = 1, 4
    draws = [Draw(Sample(name, image, mask), 0, 1) for name, mask in (("c", cat), ("b", both), ("n", neither))]
    plain, made, refused = generator.generate(draws, ignore_index=255)
    assert (made.meta["dropped"], made.meta["lost_strokes"]) == ([1], 2)  # the cat's cuts the dog's in two
    assert made.meta["prompt"].endswith(" of cat")
    assert np.array_equal(made.mask, cat)
    assert difference(made, plain) == 0
    assert refused == Refused("no stroke is left of the scribble at 64x64 pixels")
    (empty,) = make(encode_ratio=1.0, skip_unlabelled=False).generate(draws[2:], ignore_index=255)
    assert empty.meta["dropped"] == [1, 4]
    assert (empty.mask == 255).all()


def test_one_class_only_is_fine(make) -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[30] = 0  # background alone: no name in the prompt, but a colour in the hint
    sample = Sample("b", np.zeros((64, 64, 3), np.uint8), mask)
    (made,) = make().generate([Draw(sample, 0, 1)], ignore_index=255)
    assert made.meta["prompt"] == "a high-quality, detailed, and professional image"
    assert np.array_equal(made.mask, mask)


def test_unknown_ids_are_an_error_or_ignored(make, samples) -> None:
    mask = samples[0].mask.copy()
    mask[:2] = 77
    strange = Draw(Sample("u", samples[0].image, mask), 0, 1)
    with pytest.raises(SampleError, match=r"sample u_0.*ids without a name: \[77\]"):
        make().generate([strange], ignore_index=255)
    (made,) = make(unknown_class="ignore").generate([strange], ignore_index=255)
    assert np.array_equal(made.mask, np.where(mask == 77, 255, mask))
    only = Sample("o", samples[0].image, np.full((64, 80), 77, np.uint8))
    assert make(unknown_class="ignore").generate([Draw(only, 0, 1)], ignore_index=255) == [
        Refused("nothing is scribbled")
    ]


class _NoFeatures:
    def __call__(self, images, return_tensors):
        return self

    def to(self, device):
        self.pixel_values = torch.zeros(1)
        return self


def test_flagged_images_are_refused_and_the_rest_is_kept(make, samples) -> None:
    generator, draws = make(), draws_of(samples[:1], 2)
    plain = generator.generate(draws, ignore_index=255)

    def checker(images, clip_input):
        return images, [False, True]

    generator.pipe.safety_checker, generator.pipe.feature_extractor = checker, _NoFeatures()
    results = generator.generate(draws, ignore_index=255)
    assert difference(results[0], plain[0]) == 0
    assert results[1] == Refused("the base's safety checker flagged the image")


def test_an_image_that_is_not_finite_is_refused(make, samples) -> None:
    generator = make()
    generator.pipe.vae.decoder.conv_out.bias.data[0] = float("nan")
    assert generator.generate(draws_of(samples[:1], 1), ignore_index=255) == [Refused("the image is not finite")]


def test_adapters_that_do_not_fit(make, make_generator, adapter_folder, labels, caplog) -> None:
    with pytest.raises(ConfigError, match=r"generator.adapter: no adapter.*genaug adapt"):
        make_generator().prepare(labels)
    with pytest.raises(AdapterError, match="trained with hint rgb, the recipe says onehot"):
        make(hint="onehot")
    generator = make(prompt="a photo", resolution=32)
    assert (
        "trained with prompt 'a high-quality, detailed, and professional image', the recipe says 'a photo'"
        in caplog.text
    )
    assert "trained with resolution 64, the recipe says 32" in caplog.text
    network = generator.network
    generator.prepare(labels)
    assert generator.network is network
    generator.prepare(LabelSpace({0: "background", 1: "dog", 2: "unicorn"}))
    assert "not trained on these class names: unicorn" in caplog.text
    assert generator.network is not network
    generator.load_adapted(adapter_folder)
    assert generator.network is None


def test_a_base_that_cannot_have_a_controlnet_is_a_clear_error(make_generator, tmp_path, labels) -> None:
    make_pipeline(time_cond_proj_dim=8).save_pretrained(tmp_path / "odd", safe_serialization=True)
    with pytest.raises(ConfigError, match=r"generator.base: .*cannot have a ControlNet.*time_cond_proj_dim=8"):
        make_generator(base=str(tmp_path / "odd")).load_base(labels)


def test_velocity_bases_sample(make_generator, make_network, samples, labels, tmp_path) -> None:
    pipe = make_pipeline()
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    pipe.save_pretrained(tmp_path / "v", safe_serialization=True)
    folder = save(make_network(make_pipeline()), tmp_path / "adapter", labels)
    generator = make_generator(base=str(tmp_path / "v"), adapter=str(folder), encode_ratio=0.5)
    generator.prepare(labels)
    assert generator.schedule.kind == "v_prediction"
    (made,) = generator.generate([Draw(samples[0], 0, 1)], ignore_index=255)
    assert made.image.std() > 0
