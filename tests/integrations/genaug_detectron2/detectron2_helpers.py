"""A tiny dataset, backbone and configuration; the same for the real detectron2 and the fake."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import SemSegEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.utils.events import get_event_storage
from PIL import Image
from torch import nn

from genaug_detectron2 import SelfTrainingMixin, add_genaug_config

CLASSES = ["sky", "grass", "wall"]
COLORS = np.array([(90, 130, 230), (60, 190, 70), (200, 90, 60)])
SIZE = (40, 56)


@BACKBONE_REGISTRY.register()
class ToyBackbone(Backbone):
    """Two strided convolutions: features ``p2`` at stride 4 and ``p3`` at stride 8."""

    def __init__(self, cfg: Any, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        p2 = self.first(x)
        return {"p2": p2, "p3": self.second(p2)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"p2": ShapeSpec(channels=8, stride=4), "p3": ShapeSpec(channels=16, stride=8)}

    @property
    def size_divisibility(self) -> int:
        return 8


@BACKBONE_REGISTRY.register()
class ToyPyramid(Backbone):
    """Features ``p2`` to ``p5`` at strides 4 to 32, one convolution each."""

    channels: ClassVar = {"p2": 8, "p3": 16, "p4": 16, "p5": 16}

    def __init__(self, cfg: Any, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        own = list(self.channels.values())
        convolutions = [nn.Conv2d(*widths, 3, 2, 1) for widths in zip([8, *own[:-1]], own, strict=True)]
        self.stages = nn.ModuleDict(dict(zip(self.channels, convolutions, strict=True)))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(x)
        return {name: (x := stage(x).relu()) for name, stage in self.stages.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=n, stride=4 * 2**i) for i, (name, n) in enumerate(self.channels.items())}


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image uint8 ``[H, W, 3]`` whose colours tell the classes, and its mask uint8 ``[H, W]``."""
    rng = np.random.default_rng(number)
    mask = np.zeros(SIZE, np.uint8)
    mask[int(rng.integers(10, 30)) :] = 1
    left = int(rng.integers(0, 30))
    mask[12:32, left : left + 20] = 2
    image = (COLORS[mask] + rng.normal(0, 12, (*SIZE, 3))).clip(0, 255).astype(np.uint8)
    mask[:2] = 255
    return image, mask


def write_toys(root: Path, numbers: range) -> list[dict[str, Any]]:
    dicts = []
    for number in numbers:
        image, mask = scene(number)
        Image.fromarray(image).save(root / f"{number}.png")
        Image.fromarray(mask).save(root / f"{number}_mask.png")
        names = {"file_name": str(root / f"{number}.png"), "sem_seg_file_name": str(root / f"{number}_mask.png")}
        dicts.append({**names, "height": SIZE[0], "width": SIZE[1], "image_id": str(number)})
    return dicts


def register(name: str, dicts: list[dict[str, Any]]) -> None:
    DatasetCatalog.register(name, partial(list, dicts))
    MetadataCatalog.get(name).set(stuff_classes=CLASSES, ignore_label=255, evaluator_type="sem_seg")


def register_toys(root: Path) -> Path:
    for name, numbers in (("toy_train", range(4)), ("toy_more", range(10, 18)), ("toy_val", range(30, 34))):
        register(name, write_toys(root, numbers))
    return root


def config(out: Path, **genaug: Any) -> Any:
    """Return a configuration of a tiny SemanticSegmentor; `genaug` are keys of its section GENAUG."""
    cfg = get_cfg()
    add_genaug_config(cfg)
    cfg.OUTPUT_DIR = str(out)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.BACKBONE.NAME = "ToyBackbone"
    head = cfg.MODEL.SEM_SEG_HEAD
    head.IN_FEATURES, head.NUM_CLASSES, head.CONVS_DIM, head.NORM = ["p2", "p3"], len(CLASSES), 16, ""
    cfg.MODEL.PIXEL_STD = [57.0, 58.0, 59.0]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("toy_train",), ("toy_val",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (40,), 80
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 40, 80
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, 20, ()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.CHECKPOINT_PERIOD = 0.05, 0, 10
    cfg.SEED = 5
    cfg.GENAUG.UNLABELED = ("toy_more",)
    for name, value in genaug.items():
        cfg.GENAUG[name] = value
    return cfg


class Recorder(HookBase):
    """Notes every number of the event storage, iteration by iteration."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def after_step(self) -> None:
        for name, (value, _) in get_event_storage().latest().items():
            self.values.setdefault(name, []).append(value)


class ToyTrainer(SelfTrainingMixin, DefaultTrainer):
    """What a user's trainer looks like."""

    def build_hooks(self) -> list[HookBase]:
        self.recorder = Recorder()
        return [*super().build_hooks(), self.recorder]

    def build_writers(self) -> list[Any]:
        return []

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str) -> SemSegEvaluator:
        return SemSegEvaluator(dataset_name, distributed=False, output_dir=cfg.OUTPUT_DIR)
