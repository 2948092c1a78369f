"""The shipped model: small enough for a wheel, loads offline, draws the same image for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from genaug_tiny import weights
from genaug_tiny.architecture import (
    LATENT_CHANNELS,
    MAX_TOKENS,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
    set_linear_encoder,
)
from genaug_tiny.scenes import CLASSES
from genaug_tiny.short_attention import ShortAttention, prompt_keys

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(weights.model_folder(), local_files_only=True)
    loaded.to(dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_class_words_are_single_tokens_and_any_word_tokenises() -> None:
    tokenizer = build_tokenizer()
    for name in CLASSES.values():
        assert len(tokenizer(name, add_special_tokens=False)["input_ids"]) == 1
    ids = tokenizer("zebra crossing, Ångström", add_special_tokens=False)["input_ids"]
    assert len(ids) > 3
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids[:5]
    assert tokenizer.model_max_length == MAX_TOKENS
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_tokens_carry_their_own_word_only() -> None:
    # The design point: neither position nor neighbours reach EOS and PAD, so rectification has a hold.
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer).eval()
    ids = torch.tensor(tokenizer(["sky car", "car tree person"], padding="max_length")["input_ids"])
    with torch.no_grad():
        states = encoder(ids)[0]
    assert torch.equal(states[0, 2], states[1, 1])
    assert torch.equal(states[0, 3], states[1, 76])


def test_linear_encoder_is_the_projection_it_was_given() -> None:
    torch.manual_seed(0)
    vae, basis, mean = build_vae(), torch.randn(LATENT_CHANNELS, 48) / 7, torch.randn(48) / 10
    set_linear_encoder(vae, basis, mean)
    images = torch.rand(2, 3, 32, 24) * 2 - 1
    cut = images.view(2, 3, 8, 4, 6, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 8, 6, 48)
    expected = ((cut - mean) @ basis.T).permute(0, 3, 1, 2)
    with torch.no_grad():
        posterior = vae.eval().encode(images).latent_dist
    assert torch.allclose(posterior.mean, expected, atol=0.01)
    assert float(posterior.std.max()) < 1e-4


def test_shipped_encoder_is_exact_on_flat_images(pipeline: StableDiffusionPipeline) -> None:
    # Flat grey goes through encoder and decoder nearly unchanged: normalisation was really undone.
    for level in (-0.6, 0.0, 0.5):
        images = torch.full((1, 3, 64, 64), level)
        with torch.no_grad():
            back = pipeline.vae.decode(pipeline.vae.encode(images).latent_dist.mean).sample
        assert float((back - images).abs().mean()) < 0.15


def test_ten_keys_with_biases_equal_the_77_tokens_they_stand_for() -> None:
    torch.manual_seed(0)
    tokenizer, names = build_tokenizer(), list(CLASSES.values())
    encoder, unet = build_text_encoder(tokenizer).eval(), build_unet().eval()
    present = torch.zeros(2, len(names), dtype=torch.bool)
    present[0, [0, 2, 5]] = True
    prompts = [" ".join(name for name, shown in zip(names, row, strict=True) if shown) for row in present.tolist()]
    full = torch.tensor(tokenizer(prompts, padding="max_length")["input_ids"])
    ids = [tokenizer(name, add_special_tokens=False)["input_ids"][0] for name in names]
    short = torch.tensor([[*ids, tokenizer.bos_token_id, tokenizer.eos_token_id]])
    x, t = torch.randn(2, LATENT_CHANNELS, 8, 8), torch.tensor([100, 900])
    with torch.no_grad():
        expected = unet(x, t, encoder(full)[0]).sample
        unet.set_attn_processor(ShortAttention())
        biases = {"key_bias": prompt_keys(present)}
        got = unet(x, t, encoder(short)[0].expand(2, -1, -1), cross_attention_kwargs=biases).sample
    assert torch.allclose(got, expected, atol=1e-4)


def test_size_and_contents_of_the_folder() -> None:
    folder = weights.model_folder()
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*.safetensors")}
    scribbles = {name for name in sizes if name.startswith(("controlnet/", "null_condition"))}
    assert len(scribbles) == 2
    assert sum(sizes[name] for name in scribbles) <= 5e6
    assert len(sizes) == 2 + 3
    assert sum(sizes[name] for name in sizes.keys() - scribbles) <= 12e6
    assert (folder / "README.md").is_file()
    rows = [json.loads(line) for line in (folder / "training_log.jsonl").read_text("utf-8").splitlines()]
    assert {row["stage"] for row in rows} >= {"vae", "unet"}
    log = (folder / "controlnet" / "training_log.jsonl").read_text("utf-8").splitlines()
    steps = json.loads(log[-1])["step"]
    assert f"--steps {steps}" in (folder / "controlnet" / "README.md").read_text("utf-8")


def test_it_has_the_structure_of_stable_diffusion(pipeline: StableDiffusionPipeline) -> None:
    names = [name for name, _ in pipeline.unet.named_modules()]
    for part in ("attn2.to_k", "time_emb_proj", "time_embedding.linear_1", "mid_block.attentions.0"):
        assert any(part in name for name in names), part
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    assert pipeline.vae_scale_factor == 4
    assert pipeline.safety_checker is None
    ids = pipeline.tokenizer("sky road", padding="max_length")["input_ids"]
    assert len(ids) == MAX_TOKENS


def test_an_image_is_finite_and_follows_from_its_seed(pipeline: StableDiffusionPipeline) -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        images = pipeline(
            "sky road car", num_inference_steps=4, guidance_scale=2.0, height=64, width=64, output_type="pt",
            generator=generator,
        ).images  # fmt: skip
        return torch.as_tensor(images)

    first = draw(0)
    assert first.shape == (1, 3, 64, 64)
    assert bool(torch.isfinite(first).all())
    assert torch.equal(first, draw(0))
    assert not torch.equal(first, draw(1))


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match="train_tiny"):
        weights.model_folder()
