"""Tiny random models of the families that the Trainer is to train; nothing is downloaded."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

K = 3
SWIN = {
    "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 4, "image_size": 32,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip


def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_labels=K, hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8, semantic_loss_ignore_index=255,
    )  # fmt: skip
    return SegformerForSemanticSegmentation(config)


def dpt() -> nn.Module:
    from transformers import DPTConfig, DPTForSemanticSegmentation

    config = DPTConfig(
        num_labels=K, hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=8, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4, 4, 8, 8], fusion_hidden_size=8,
    )  # fmt: skip
    return DPTForSemanticSegmentation(config)


def upernet() -> nn.Module:
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    backbone = ConvNextConfig(
        hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = UperNetConfig(
        backbone_config=backbone, num_labels=K, hidden_size=8, auxiliary_channels=8, auxiliary_in_channels=8
    )
    return UperNetForSemanticSegmentation(config)


def mask2former() -> nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(**SWIN)
    config = Mask2FormerConfig(
        backbone_config=backbone, num_labels=K, num_queries=5, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1, decoder_layers=3, num_attention_heads=2,
        output_auxiliary_logits=True,
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config)


def maskformer() -> nn.Module:
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, SwinConfig

    backbone = SwinConfig(**SWIN)
    decoder = DetrConfig(
        d_model=16, decoder_layers=2, encoder_layers=1, decoder_attention_heads=2, encoder_attention_heads=2,
        decoder_ffn_dim=16, encoder_ffn_dim=16, num_queries=5,
    )  # fmt: skip
    config = MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, num_labels=K, fpn_feature_size=32, mask_feature_size=32,
        use_auxiliary_loss=True, output_auxiliary_logits=True,
        output_hidden_states=True,  # without it, 5.23 has no inner layers to take the auxiliary loss of, and fails
    )  # fmt: skip
    return MaskFormerForInstanceSegmentation(config)


MAKERS = {made.__name__: made for made in (segformer, dpt, upernet, mask2former, maskformer)}


@pytest.fixture
def make_model() -> Callable[[str], nn.Module]:
    """Return a function from a family's name to a fresh model, equal at every call."""

    def make(name: str) -> nn.Module:
        torch.manual_seed(0)
        return MAKERS[name]()

    return make
