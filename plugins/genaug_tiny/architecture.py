"""The parts of genaug-tiny, untrained: tokenizer, text encoder, VAE, UNet and scheduler of a small Stable Diffusion.

Two choices make rectified attention work on so small a model. The text encoder has no transformer layer and
no positions, so a token carries the meaning of its own word only: CLIP's causal layers would copy every class
into EOS and the padding, which rectification leaves visible to all pixels. And all class words are single tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from genaug_tiny.scenes import CLASSES

MAX_TOKENS = 77
LATENT_CHANNELS = 6
COMMON_WORDS = ("a", "of", "the", "and", "in", "on", "photo", "street", "park", "scene", "day", "night", "fog",
                "fence", "sidewalk", "person", "people", "bus", "truck", "bicycle", "dog", "cat")  # fmt: skip


def _byte_symbols() -> list[str]:
    """One printable character per byte, in the order of GPT-2 and CLIP (printable bytes stand for themselves)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def build_tokenizer(words: Sequence[str] = (*CLASSES.values(), *COMMON_WORDS)) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of `words` is one token and any other text falls back to bytes.

    Args:
        words: lower-case words. The merges of a word start from what those of earlier words make of it (the "tr" of
            "tree" is in "pedestrian" too) and then go left to right, so they never undo an earlier word.
    """
    symbols = _byte_symbols()
    tokens = dict.fromkeys([*symbols, *(symbol + "</w>" for symbol in symbols)])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        parts = _merged([*word[:-1], word[-1] + "</w>"], merges)
        while len(parts) > 1:
            merges[parts[0], parts[1]] = None
            parts = [parts[0] + parts[1], *parts[2:]]
            tokens[parts[0]] = None
    for special in ("<|startoftext|>", "<|endoftext|>"):
        tokens[special] = None
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=MAX_TOKENS)


def _merged(parts: list[str], merges: Iterable[tuple[str, str]]) -> list[str]:
    """Apply merges in their order, as byte-pair encoding does."""
    for left, right in merges:
        index = 0
        while index < len(parts) - 1:
            if (parts[index], parts[index + 1]) == (left, right):
                parts = [*parts[:index], left + right, *parts[index + 2 :]]
            index += 1
    return parts


def build_text_encoder(tokenizer: CLIPTokenizer, *, width: int = 64) -> CLIPTextModel:
    """A CLIP text model of word embeddings and a final layer norm: no layers, positions fixed at zero."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        projection_dim=width,
        num_hidden_layers=0,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "position_embedding" in name:
                parameter.zero_().requires_grad_(False)
            elif "token_embedding" in name:
                parameter.normal_()  # the layer norm behind it wants spread-out words
    return encoder


def build_vae(*, channels: Sequence[int] = (24, 48, 80), latent_channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """A VAE with three levels and no attention: 64 x 64 pixels become 16 x 16 latents.

    One normalisation group: more of them would take the absolute colour of a patch away from so few channels.
    """
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=latent_channels,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        sample_size=64,
    )


@torch.no_grad()
def set_linear_encoder(vae: AutoencoderKL, basis: Tensor, mean: Tensor, *, anchor: float = 50.0) -> None:
    """Make a VAE's encoder compute `basis @ (patch - mean)` of every 4 x 4 patch, for example principal components.

    A few hundred training steps leave an encoder of this size far behind principal components, so it is built instead
    of trained. Residual branches are silenced, the two strided convolutions unfold the patch, and the final
    normalisation and SiLU are undone: values travel in pairs (v, -v), because SiLU(v) - SiLU(-v) = v, and beside
    a large constant pair, which pins the normalisation's standard deviation whatever the image is.

    Args:
        vae: from `build_vae`; its encoder's weights are overwritten, its posterior becomes nearly deterministic.
        basis: [C, 48] float, C latent channels; a patch is flattened as (row, column, colour).
        mean: [48] float, for pixels in [-1, 1].
        anchor: the constant; large against the latents.
    """
    encoder, count = vae.encoder, len(basis)
    for module in [*encoder.modules(), vae.quant_conv]:
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
    for colour in range(3):
        encoder.conv_in.weight[colour, colour, 1, 1] = 1
    unfold, project = (encoder.down_blocks[level].downsamplers[0].conv for level in (0, 1))
    for row, column, colour in itertools.product(range(2), range(2), range(3)):
        unfold.weight[(2 * row + column) * 3 + colour, colour, row, column] = 1
    # Channels of the first unfolding, at the four places of the second, give the 48 values of the patch.
    patches = basis.view(count, 2, 2, 2, 2, 3).permute(0, 2, 4, 5, 1, 3).reshape(count, 12, 2, 2)
    offset = basis @ mean
    for sign, first in ((1, 0), (-1, count)):
        project.weight[first : first + count, :12, :2, :2] = sign * patches
        project.bias[first : first + count] = -sign * offset
    project.bias[2 * count], project.bias[2 * count + 1] = anchor, -anchor
    for block in encoder.down_blocks:
        shortcut = block.resnets[0].conv_shortcut
        if shortcut is not None:
            shortcut.weight.copy_(torch.eye(*shortcut.weight.shape[:2])[..., None, None])
    # Standard deviation over all channels when the values are small beside the anchor.
    channels = encoder.conv_norm_out.num_channels
    spread = anchor * (2 / channels) ** 0.5
    for index in range(count):
        encoder.conv_out.weight[index, index, 1, 1] = spread
        encoder.conv_out.weight[index, count + index, 1, 1] = -spread
    encoder.conv_out.bias[count:] = -20.0
    vae.quant_conv.weight.copy_(torch.eye(2 * count)[..., None, None])


def build_unet(
    *, channels: Sequence[int] = (64, 96, 128), latent_channels: int = LATENT_CHANNELS, text_width: int = 64
) -> UNet2DConditionModel:
    """A UNet with Stable Diffusion's structure: cross-attention on two levels and in the middle."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        layers_per_block=1,
        block_out_channels=tuple(channels),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> PNDMScheduler:
    """The scheduler of Stable Diffusion 1.x."""
    options: dict[str, Any] = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return PNDMScheduler(**options)
