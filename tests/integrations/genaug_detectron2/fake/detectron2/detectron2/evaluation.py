from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog


class SemSegEvaluator:
    def __init__(self, dataset_name: str, distributed: bool = True, output_dir: str | None = None) -> None:
        self.truth = {entry["file_name"]: entry["sem_seg_file_name"] for entry in DatasetCatalog.get(dataset_name)}
        self.classes = len(MetadataCatalog.get(dataset_name).stuff_classes)
        self.output_dir = output_dir

    def reset(self) -> None:
        self.counts = np.zeros((self.classes, self.classes))

    def process(self, inputs: Any, outputs: Any) -> None:
        for given, made in zip(inputs, outputs, strict=True):
            found = made["sem_seg"].argmax(0).numpy()
            truth = np.asarray(Image.open(self.truth[given["file_name"]]))
            kept = truth < self.classes
            np.add.at(self.counts, (truth[kept], found[kept]), 1)

    def evaluate(self) -> dict[str, Any]:
        if self.output_dir:
            Path(self.output_dir).mkdir(parents=True, exist_ok=True)
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return {"sem_seg": {"mIoU": float(100 * np.mean(hits[union > 0] / union[union > 0]))}}


def inference_on_dataset(model: torch.nn.Module, data_loader: Any, evaluator: SemSegEvaluator) -> dict[str, Any]:
    evaluator.reset()
    mode = model.training
    model.eval()
    with torch.no_grad():
        for inputs in data_loader:
            evaluator.process(inputs, model(inputs))
    model.train(mode)
    return evaluator.evaluate()
