"""A stand-in for Mask2Former's repository: a mask classifier with the names and outputs that genaug_detectron2 reads.

Our own code. Its queries are matched greedily and its decoder has one inner layer; nothing of it is meant to be good.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, sem_seg_postprocess
from detectron2.structures import ImageList
from PIL import Image
from torch import nn


def add_maskformer2_config(cfg: Any) -> None:
    cfg.INPUT.CROP = CfgNode()
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.MODEL.MASK_FORMER = CfgNode(NUM_OBJECT_QUERIES=100, HIDDEN_DIM=256, SIZE_DIVISIBILITY=32, TEST=CfgNode())
    cfg.MODEL.SEM_SEG_HEAD.MASK_DIM = 256


class MaskFormerSemanticDatasetMapper(DatasetMapper):
    """Reads masks as they are, palettes included."""

    @staticmethod
    def _read(name: str, mode: str) -> Image.Image:
        with Image.open(name) as image:
            return Image.fromarray(np.array(image)) if mode == "L" else image.convert(mode)


class MaskFormerHead(nn.Module):
    def __init__(self, channels: int, num_classes: int, queries: int, width: int, ignore_value: int) -> None:
        super().__init__()
        self.num_classes, self.ignore_value = num_classes, ignore_value
        self.pixels = nn.Conv2d(channels, width, 3, 1, 1)
        self.queries = nn.Parameter(torch.randn(2, queries, width))
        self.classes = nn.Linear(width, num_classes + 1)

    def layers(self, features: dict[str, torch.Tensor], mask: Any = None) -> dict[str, Any]:
        pixels = self.pixels(features["p2"])
        inner, last = [
            {
                "pred_logits": self.classes(own + pixels.mean((2, 3)).unsqueeze(1)),
                "pred_masks": torch.einsum("qc,bchw->bqhw", own, pixels),
            }
            for own in self.queries
        ]
        return {**last, "aux_outputs": [inner]}

    def forward(self, features: dict[str, torch.Tensor], mask: Any = None) -> dict[str, Any]:
        return self.layers(features, mask)


@META_ARCH_REGISTRY.register()
class MaskFormer(nn.Module):
    @classmethod
    def build(cls, cfg: Any) -> MaskFormer:
        head, options = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        backbone = BACKBONE_REGISTRY[cfg.MODEL.BACKBONE.NAME](cfg, ShapeSpec(channels=3))
        sizes = options.NUM_OBJECT_QUERIES, options.HIDDEN_DIM
        made = MaskFormerHead(backbone.output_shape()["p2"].channels, head.NUM_CLASSES, *sizes, head.IGNORE_VALUE)
        stats = {"pixel_mean": cfg.MODEL.PIXEL_MEAN, "pixel_std": cfg.MODEL.PIXEL_STD}
        return cls(
            backbone=backbone,
            sem_seg_head=made,
            num_queries=options.NUM_OBJECT_QUERIES,
            size_divisibility=options.SIZE_DIVISIBILITY,
            **stats,
        )

    def __init__(
        self,
        *,
        backbone: Any,
        sem_seg_head: Any,
        num_queries: int,
        size_divisibility: int,
        pixel_mean: list[float],
        pixel_std: list[float],
    ) -> None:
        super().__init__()
        self.backbone, self.sem_seg_head = backbone, sem_seg_head
        self.num_queries, self.size_divisibility = num_queries, size_divisibility
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        normal = [(entry["image"] - self.pixel_mean) / self.pixel_std for entry in batched_inputs]
        images = ImageList.from_tensors(normal, self.size_divisibility)
        outputs = self.sem_seg_head(self.backbone(images.tensor))
        masks = F.interpolate(outputs["pred_masks"], images.tensor.shape[2:], mode="bilinear")
        if self.training:
            given = [entry["sem_seg"] for entry in batched_inputs]
            truth = ImageList.from_tensors(given, self.size_divisibility, self.sem_seg_head.ignore_value).tensor
            return self._losses(outputs["pred_logits"], masks, truth)
        scores = torch.einsum("bqk,bqhw->bkhw", outputs["pred_logits"].softmax(-1)[..., :-1], masks.sigmoid())
        return [
            {"sem_seg": sem_seg_postprocess(own, size, entry.get("height", size[0]), entry.get("width", size[1]))}
            for own, entry, size in zip(scores, batched_inputs, images.image_sizes, strict=True)
        ]

    def _losses(self, classes: torch.Tensor, masks: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        """Query k learns class k, the others nothing."""
        count = self.sem_seg_head.num_classes
        wanted = torch.arange(classes.shape[1]).clamp_max(count).expand(len(classes), -1)
        there = torch.stack([truth == k for k in range(count)], 1).float()
        return {
            "loss_ce": F.cross_entropy(classes.mT, wanted),
            "loss_mask": F.binary_cross_entropy_with_logits(masks[:, :count], there),
        }
