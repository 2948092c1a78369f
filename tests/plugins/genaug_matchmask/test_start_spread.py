"""Option start_spread: the first noise has the labelled images' light and colours, and comes with the adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genaug import Registry, Rng
from genaug.batch import image_tensor
from genaug.errors import AdapterError, ConfigError
from genaug.types import Draw
from genaug_diffusion.base import vae_factor
from genaug_diffusion.config import TrainingOptions
from genaug_diffusion.images import resize_image, to_model_range
from genaug_diffusion.starting_noise import StartingNoise, first_signal
from genaug_matchmask.config import MatchMaskOptions
from genaug_matchmask.generator import MatchMaskGenerator

STARTING, CONFIG = "starting_noise.safetensors", "genaug_config.json"
TRAINING = TrainingOptions(steps=2, checkpoint_every=1, preview_images=1, batch_size=2, flip_probability=0)


def make(base: Path, **options) -> MatchMaskGenerator:
    chosen = MatchMaskOptions(base=str(base), **{"preset": "fast", "steps": 4, "training": TRAINING, **options})
    return MatchMaskGenerator(chosen, registry=Registry([]))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("made") / "adapter"


@pytest.fixture
def folder(made, base_folder, samples, labels) -> Path:
    """A finished adapter, made once."""
    if not made.exists():
        make(base_folder, start_spread=1.0).adapt(samples, made, labels=labels, rng=Rng(1))
    return made


def prepared(base: Path, folder: Path, labels, **options) -> MatchMaskGenerator:
    generator = make(base, **options)
    generator.load_adapted(folder)
    generator.prepare(labels)
    return generator


def test_adapting_describes_the_labelled_images(folder, base_folder, samples, labels) -> None:
    pipe = prepared(base_folder, folder, labels).pipe
    images = [image_tensor(resize_image(s.image, (64, 64))) for s in samples]
    with torch.no_grad():
        latents = [pipe.vae.encode(to_model_range(x)[None]).latent_dist.mean[0] for x in images]
    expected = StartingNoise.fit([z * pipe.vae.config.scaling_factor for z in latents])
    found = StartingNoise(**load_file(folder / STARTING))
    assert found.directions.shape == expected.directions.shape == (len(samples) - 1, *expected.mean.shape)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.directions, expected.directions, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("preset", ["plms", "fast", "ddim"])
def test_images_start_from_the_drawn_noise(folder, base_folder, samples, labels, preset: str) -> None:
    generator = prepared(base_folder, folder, labels, preset=preset, start_spread=2.0)
    made = generator.generate([Draw(samples[0], 0, 11)], ignore_index=255)[0].image
    pipe, conditioner = generator.pipe, generator.conditioner
    start = StartingNoise(**load_file(folder / STARTING))
    cells = 64 // vae_factor(pipe)
    seeded = torch.Generator().manual_seed(11)
    latents = start.draw((cells, cells), seeded, signal=first_signal(pipe.scheduler, 4), spread=2.0)[None]
    prompt = conditioner.prompt(samples[0].mask, where="test")
    layout = conditioner.masks([samples[0].mask], [prompt], (64, 64), vae_factor(pipe))
    with torch.inference_mode():
        by_hand = pipe(
            prompt_embeds=conditioner.embed(prompt.input_ids)[None],
            negative_prompt_embeds=conditioner.empty()[None],
            latents=latents, height=64, width=64, num_inference_steps=4, guidance_scale=2.0, output_type="np",
            cross_attention_kwargs={"layout": layout},
        ).images[0]  # fmt: skip
    resized = np.asarray(generator.sample_images([samples[0].mask], [prompt], (64, 64), [11])[0][0])
    assert np.abs(np.rint(by_hand * 255) - resized).max() <= 1
    assert made.shape == samples[0].image.shape


def test_seed_mask_and_spread_decide_and_nothing_else(folder, base_folder, samples, labels) -> None:
    # The random base's latents hardly differ, so their spread is exaggerated.
    generator = prepared(base_folder, folder, labels, start_spread=300.0)
    draws = [Draw(samples[i], k, Rng(7).child(i, k).integer()) for i in (0, 1) for k in (0, 1)]
    together = [s.image.astype(int) for s in generator.generate(draws, ignore_index=255)]
    for draw, image in zip(draws, together, strict=True):
        alone = generator.generate([draw], ignore_index=255)[0].image
        assert np.abs(image - alone).max() <= 1
    plain = prepared(base_folder, folder, labels).generate(draws, ignore_index=255)
    assert np.abs(together[0] - plain[0].image).max() > 10
    assert generator.describe()["start_spread"] == 300


def test_another_spread_needs_no_other_adapter(folder, base_folder) -> None:
    assert make(base_folder, start_spread=0.0).adapted(folder)
    assert make(base_folder, start_spread=1.5).adapted(folder)


def test_an_adapter_without_it_serves_plain_noise_only(folder, base_folder, labels, tmp_path) -> None:
    old = shutil.copytree(folder, tmp_path / "old")
    (old / STARTING).unlink()
    config = json.loads((old / CONFIG).read_text())
    del config["starting_noise_sha256"]
    (old / CONFIG).write_text(json.dumps(config))
    assert make(base_folder).adapted(old)
    prepared(base_folder, old, labels)
    with pytest.raises(AdapterError, match=r"no starting noise.*Adapt again"):
        prepared(base_folder, old, labels, start_spread=1.0)


def test_lost_or_damaged_it_is_made_again_with_the_same_bytes(folder, base_folder, samples, labels, tmp_path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = (copy / STARTING).read_bytes()
    (copy / STARTING).write_bytes(content[:-4])
    generator = make(base_folder, start_spread=1.0)
    with pytest.raises(AdapterError, match=r"starting_noise.*damaged"):
        generator.adapted(copy)
    with pytest.raises(AdapterError, match=r"starting_noise.*damaged"):
        prepared(base_folder, copy, labels, start_spread=1.0)
    (copy / STARTING).unlink()
    assert not generator.adapted(copy)
    generator.adapt(samples, copy, labels=labels, rng=Rng(1))
    assert (copy / STARTING).read_bytes() == content
    assert generator.adapted(copy)


def test_a_negative_spread_is_refused() -> None:
    from genaug.config import validate

    with pytest.raises(ConfigError, match="start_spread"):
        validate(MatchMaskOptions, {"start_spread": -1.0}, where="generator")
