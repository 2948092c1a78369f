from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList


class _Registry(dict[str, Any]):
    def register(self) -> Any:
        return lambda kind: self.setdefault(kind.__name__, kind)


BACKBONE_REGISTRY, META_ARCH_REGISTRY = _Registry(), _Registry()


class Backbone(nn.Module):
    @property
    def size_divisibility(self) -> int:
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {}


class SemSegFPNHead(nn.Module):
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | None = None,
        ignore_value: int = -1,
    ) -> None:
        super().__init__()
        self.ignore_value, self.common_stride, self.loss_weight = ignore_value, common_stride, loss_weight
        self.heads = nn.ModuleDict({k: nn.Conv2d(v.channels, conv_dims, 3, 1, 1) for k, v in input_shape.items()})
        self.predictor = nn.Conv2d(conv_dims, num_classes, 1)

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        made = [head(features[name]).relu() for name, head in self.heads.items()]
        return self.predictor(sum(F.interpolate(x, made[0].shape[2:], mode="bilinear") for x in made))

    def forward(self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None) -> Any:
        scaled = F.interpolate(self.layers(features), scale_factor=self.common_stride, mode="bilinear")
        if not self.training:
            return scaled, {}
        loss = F.cross_entropy(scaled.float(), targets, ignore_index=self.ignore_value)
        return None, {"loss_sem_seg": loss * self.loss_weight}


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(nn.Module):
    def __init__(self, *, backbone: Any, sem_seg_head: Any, pixel_mean: list[float], pixel_std: list[float]) -> None:
        super().__init__()
        self.backbone, self.sem_seg_head = backbone, sem_seg_head
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        divisor = self.backbone.size_divisibility
        normal = [(entry["image"] - self.pixel_mean) / self.pixel_std for entry in batched_inputs]
        images = ImageList.from_tensors(normal, divisor)
        targets = None
        if "sem_seg" in batched_inputs[0]:
            given = [entry["sem_seg"] for entry in batched_inputs]
            targets = ImageList.from_tensors(given, divisor, self.sem_seg_head.ignore_value).tensor
        results, losses = self.sem_seg_head(self.backbone(images.tensor), targets)
        if self.training:
            return losses
        return [
            {"sem_seg": sem_seg_postprocess(result, size, entry.get("height", size[0]), entry.get("width", size[1]))}
            for result, entry, size in zip(results, batched_inputs, images.image_sizes, strict=True)
        ]


def sem_seg_postprocess(result: torch.Tensor, img_size: Any, output_height: int, output_width: int) -> torch.Tensor:
    cut = result[None, :, : img_size[0], : img_size[1]]
    return F.interpolate(cut, (output_height, output_width), mode="bilinear", align_corners=False)[0]


def build_model(cfg: Any) -> nn.Module:
    kind = META_ARCH_REGISTRY[cfg.MODEL.META_ARCHITECTURE]
    if hasattr(kind, "build"):  # another fake
        return kind.build(cfg).to(cfg.MODEL.DEVICE)
    head = cfg.MODEL.SEM_SEG_HEAD
    backbone = BACKBONE_REGISTRY[cfg.MODEL.BACKBONE.NAME](cfg, ShapeSpec(channels=3))
    sem_seg_head = SemSegFPNHead(
        {name: shape for name, shape in backbone.output_shape().items() if name in head.IN_FEATURES},
        num_classes=head.NUM_CLASSES,
        conv_dims=head.CONVS_DIM,
        common_stride=head.COMMON_STRIDE,
        ignore_value=head.IGNORE_VALUE,
    )
    stats = {"pixel_mean": cfg.MODEL.PIXEL_MEAN, "pixel_std": cfg.MODEL.PIXEL_STD}
    return kind(backbone=backbone, sem_seg_head=sem_seg_head, **stats).to(cfg.MODEL.DEVICE)
