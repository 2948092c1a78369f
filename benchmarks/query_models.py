"""The mask classifier of the query benchmarks: transformers' Mask2Former, small enough for training on a CPU."""

from __future__ import annotations

from torch import nn


def mask2former(classes: int, *, queries: int = 20) -> nn.Module:
    """Return a fresh Mask2Former (0.7 M parameters) over a small ResNet; its inner layers' queries come out too."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig, logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it says that only Swin is supported; any backbone of transformers works
    backbone = ResNetConfig(
        embedding_size=24, hidden_sizes=[24, 48, 96, 128], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, num_labels=classes, num_queries=queries, feature_size=64, mask_feature_size=64,
        hidden_dim=64, encoder_feedforward_dim=128, dim_feedforward=128, encoder_layers=2, decoder_layers=4,
        num_attention_heads=4, output_auxiliary_logits=True,
    )  # fmt: skip
    logging.set_verbosity(verbosity)
    return Mask2FormerForUniversalSegmentation(config)
