"""Tiny random pipelines of four families, built offline and saved once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    IFPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from genaug import LabelSpace
from genaug_diffusion.testing import make_pipeline, make_tokenizer

torch.set_num_threads(1)

WORDS = ("sky", "road", "car", "tree")


def text_config(tokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, projection_dim=32,
    )  # fmt: skip


def t5_tokenizer() -> T5Tokenizer:
    letters = [(c, -5.0) for c in "abcdefghijklmnopqrstuvwxyz.,'"] + [("\u2581" + w, -3.0) for w in WORDS]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_ff=37, d_kv=8, num_layers=2, num_heads=4)
    return T5EncoderModel(config).eval()


def make_flux(*, guidance_embeds: bool = True) -> FluxPipeline:
    """A Flux that works in steps of 16 pixels, as the real one: 8 by the VAE, 2 by packing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = make_tokenizer(WORDS)
        t5 = t5_tokenizer()
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=AutoencoderKL(
                sample_size=32, block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=1, norm_num_groups=1,
                use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5,
            ).eval(),
            text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
            tokenizer=tokenizer,
            text_encoder_2=t5_encoder(t5),
            tokenizer_2=t5,
            transformer=FluxTransformer2DModel(
                patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
                num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
                guidance_embeds=guidance_embeds,
            ).eval(),
        )  # fmt: skip


def make_sdxl() -> StableDiffusionXLPipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = make_tokenizer(WORDS)
        config = text_config(tokenizer)
        return StableDiffusionXLPipeline(
            vae=AutoencoderKL(
                block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=1,
                up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=32,
            ).eval(),
            text_encoder=CLIPTextModel(config).eval(),
            text_encoder_2=CLIPTextModelWithProjection(config).eval(),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=16, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=(2, 4),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
                transformer_layers_per_block=(1, 1), addition_embed_type="text_time", addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=80, cross_attention_dim=64,
            ).eval(),
            scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
            add_watermarker=False,
        )  # fmt: skip


def make_if() -> IFPipeline:
    """DeepFloyd IF, which works on pixels and has no autoencoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = t5_tokenizer()
        return IFPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(tokenizer),
            unet=UNet2DConditionModel(
                sample_size=32, in_channels=3, out_channels=6, layers_per_block=1, block_out_channels=(16, 32),
                norm_num_groups=8, attention_head_dim=8, cross_attention_dim=32, encoder_hid_dim=32,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ).eval(),
            scheduler=DDPMScheduler(variance_type="learned_range"),
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from ``sd``, ``sdxl``, ``flux``, ``schnell`` or ``if`` to a folder."""
    makers = {
        "sd": make_pipeline, "sdxl": make_sdxl, "flux": make_flux, "schnell": lambda: make_flux(guidance_embeds=False),
        "if": make_if,
    }  # fmt: skip
    root = tmp_path_factory.mktemp("bases")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            makers[name]().save_pretrained(root / name, safe_serialization=True)
        return root / name

    return folder


@pytest.fixture(scope="session")
def labels() -> LabelSpace:
    return LabelSpace({0: "background", 1: "sky", 2: "road", 5: "traffic_sign", 7: "tree"})
