"""A frozen UNet under a trainable ControlNet, and which bases can have one."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from genaug.errors import ConfigError
from genaug.rng import Rng
from genaug_diffusion.base import vae_factor
from genaug_scribblegen.null_condition import NullCondition
from genaug_scribblegen.place import ALLOWED, WHERE

#: Channels of the hint encoder; every one after the first halves the resolution.
HINT_WIDTHS = (16, 32, 96, 256)

#: Settings of a UNet that a ControlNet copied from it does not have -> the value it takes instead.
_PLAIN = {
    "addition_embed_type": None, "class_embed_type": None, "num_class_embeds": None, "encoder_hid_dim_type": None,
    "time_cond_proj_dim": None, "time_embedding_type": "positional", "conv_in_kernel": 3, "dual_cross_attention": False,
}  # fmt: skip

#: Settings that a ControlNet and the UNet under it have in common.
_SHARED = ("in_channels", "down_block_types", "block_out_channels", "layers_per_block", "cross_attention_dim",
           "attention_head_dim", "use_linear_projection")  # fmt: skip


class ScribbleNetwork(nn.Module):
    """Predicts noise under a hint: ControlNet and UNet in one call, null condition included.

    Args:
        unet: The base's, frozen.
        controlnet: diffusers' own.
        null: The null condition.
    """

    def __init__(self, unet: Any, controlnet: Any, null: NullCondition) -> None:
        super().__init__()
        # The UNet first: `AdapterTrainer` takes the base's dtype from the first frozen parameter.
        self.unet, self.controlnet, self.null = unet, controlnet, null

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return what is learned."""
        found = {f"controlnet.{name}": parameter for name, parameter in self.controlnet.named_parameters()}
        return found | ({"null_condition": self.null.value} if self.null.value.requires_grad else {})

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, hints: Tensor, dropped: Tensor) -> Tensor:
        """Return the UNet's prediction ``[B, C, h, w]``, in its dtype.

        Args:
            latents: ``[B, C, h, w]``, noisy.
            timesteps: int64 ``[B]``.
            text: ``[B, T, D]``.
            hints: ``[B, C_hint, H, W]``, of the size of the images.
            dropped: bool ``[B]``: rows that see the null condition instead of their hint.
        """
        # `where` keeps the null condition in the graph when no row is dropped, as several processes need.
        null = self.null(tuple(hints.shape[2:])).to(hints.dtype)
        hints = torch.where(dropped[:, None, None, None], null, hints)
        inner, outer = self.controlnet.dtype, self.unet.dtype
        down, middle = self.controlnet(latents.to(inner), timesteps, text.to(inner), hints.to(inner), return_dict=False)
        prediction: Tensor = self.unet(
            latents.to(outer),
            timesteps,
            text.to(outer),
            down_block_additional_residuals=tuple(each.to(outer) for each in down),
            mid_block_additional_residual=middle.to(outer),
        ).sample
        return prediction


def check_base_takes_controlnet(pipe: Any, base: str) -> None:
    """Raise `ConfigError` unless a ControlNet can be started from the UNet of `pipe`."""
    config = pipe.unet.config
    strange = [f"{key}={config.get(key)!r}" for key, plain in _PLAIN.items() if config.get(key, plain) != plain]
    if config.in_channels != pipe.vae.config.latent_channels:
        strange.append(f"{config.in_channels} input channels for {pipe.vae.config.latent_channels} of the autoencoder")
    if strange:
        raise ConfigError(
            f"{base!r} cannot have a ControlNet: its UNet has {', '.join(strange)}",
            where="generator.base",
            allowed="a text-to-image Stable Diffusion 1.x or 2.x model, no inpainting or SDXL variant",
        )


def load_controlnet(pipe: Any, place: str, channels: int, *, local: bool) -> Any:
    """Return a float32 ControlNet that goes on from one that was trained before.

    Args:
        pipe: The base pipeline.
        place: Folder or Hub id of a diffusers ControlNet.
        channels: Of the hint.
        local: Whether it is a folder.

    Raises:
        ConfigError: It cannot be loaded, or it does not fit the base's UNet or the hint.
    """
    from diffusers import ControlNetModel

    try:
        controlnet = ControlNetModel.from_pretrained(
            place, torch_dtype=torch.float32, use_safetensors=True, local_files_only=local
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{place} could not be loaded: {why}", where=WHERE, allowed=ALLOWED) from error
    unet, config = pipe.unet.config, controlnet.config
    found = {key: (config.get(key), unet.get(key)) for key in _SHARED}
    found["conditioning_channels"] = (config.conditioning_channels, channels)
    halvings = vae_factor(pipe).bit_length() - 1
    found["halvings of the hint"] = (len(config.conditioning_embedding_out_channels) - 1, halvings)
    strange = [f"{key} {has} instead of {wants}" for key, (has, wants) in found.items() if _plain(has) != _plain(wants)]
    if strange:
        raise ConfigError(
            f"the ControlNet in {place} does not fit: {', '.join(strange)}",
            where=WHERE,
            allowed="one that was trained for the same base and for hints of as many channels",
            hint="Leave the option out to start from the base's UNet",
        )
    return controlnet.to(pipe.unet.device).requires_grad_(True)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def start_controlnet(pipe: Any, channels: int, rng: Rng, *, base: str) -> Any:
    """Return a float32 ControlNet that starts from the base's UNet; its zero convolutions change nothing yet.

    The hint encoder brings hints from image size to latent size: eight times smaller with diffusers' four widths, and
    with one width less or more for each halving that the base's autoencoder has less or more.

    Args:
        pipe: The base pipeline.
        channels: Of the hint.
        rng: Of the hint encoder's first weights; the global random state stays as it is.
        base: Its name, for errors.

    Raises:
        ConfigError: diffusers cannot start one from this UNet.
    """
    from diffusers import ControlNetModel

    halvings = vae_factor(pipe).bit_length() - 1
    widths = (HINT_WIDTHS + HINT_WIDTHS[-1:] * halvings)[: halvings + 1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.integer())
        try:
            controlnet = ControlNetModel.from_unet(
                pipe.unet, conditioning_channels=channels, conditioning_embedding_out_channels=widths
            )
        except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise ConfigError(f"{base!r} cannot have a ControlNet: {why}", where="generator.base") from error
    return controlnet.to(pipe.unet.device).requires_grad_(True)  # float32, as it was made


@torch.no_grad()
def scale_hint_encoder(encoder: Any, hints: Tensor) -> None:
    """Rescale the first weights of a hint encoder so that every layer's features differ between hints and places.

    With torch's own first weights the features of a hint that is one colour nearly everywhere are nearly constant after
    six layers: on genaug-tiny, 300 steps of training then leave the prediction 2,117 times less sensitive to the
    scribble than after the scaling done here (`benchmarks/results/scribblegen_hints.json`): every channel gets mean 0
    and deviation 1 over `hints`, layer by layer (Krähenbühl et al., "Data-dependent Initializations of Convolutional
    Neural Networks", ICLR 2016). The last layer stays zero, so the ControlNet still changes nothing at first, and its
    architecture is diffusers' own.

    Args:
        encoder: ``controlnet_cond_embedding`` of a ControlNet that was not trained yet.
        hints: ``[B, C_hint, H, W]``, a few labelled ones.
    """
    features = hints.to(encoder.conv_in.weight.dtype)
    for layer in (encoder.conv_in, *encoder.blocks):
        out = layer(features)
        mean, deviation = out.mean((0, 2, 3)), out.std((0, 2, 3)).clamp_min(1e-4)
        layer.weight.div_(deviation[:, None, None, None])
        layer.bias.sub_(mean).div_(deviation)
        features = F.silu(layer(features))
