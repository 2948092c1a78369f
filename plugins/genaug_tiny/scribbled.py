"""ScribbleGen on rendered scenes: its recipe, and segmenters that train on scribbles, an encode ratio at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from genaug import Rng
from genaug.predictions import Predictions
from genaug.store import SampleStore
from genaug_scribbles.maker import make_scribbles
from genaug_tiny.experiment import SEGMENTER_STEPS, Arm, Arrays, Masks, measure
from genaug_tiny.scenes import CLASSES
from genaug_tiny.segmenter import SmallUNet, augmented, fit
from genaug_torch import EncodeRatioDataset, MixedDataset, supervised_loss

EncodeRatio = Literal["adaptive", "random"] | float

IGNORE = 255
BATCH = 16
#: Epochs that a segmenter's steps are divided into, whatever the number of images: what the encode ratio rises with.
EPOCHS = 12

#: ScribbleGen's recipe. Adapting goes on from the ControlNet that genaug-tiny brings, since some thirty scribbled
#: images are few for a whole one. 20 steps make images of this size; guidance is 4 instead of 2, as for MatchMask
#: (`benchmarks/tiny_scribble_quality.py` measures how scribbles are followed at both). The rest is ScribbleGen's
#: default.
SCRIBBLE_RECIPE: dict[str, Any] = {
    "name": "quickstart-scribblegen",
    "labels": "labels.yaml",
    "data": {"format": "folder", "images": "data/images", "masks": "data/scribbles"},
    "generator": {
        "use": "scribblegen",
        "base": "genaug-tiny",
        "controlnet": "genaug-tiny",
        "encode_ratio": [0.5, 0.75, 1.0],
        "batch_size": 15,
        "steps": 20,
        "guidance_scale": 4.0,
        "training": {"steps": 60, "batch_size": 8, "learning_rate": 1e-4, "checkpoint_every": 30},
    },
    "output": "synthetic",
}


def scribbled(masks: Masks, seed: int = 0) -> Masks:
    """Return scribbles ``[N, H, W]`` for masks: 3 % of the pixels, every class of a mask among them."""
    drawn = [make_scribbles(m, ignore_index=IGNORE, rng=Rng(seed).child("scribbles", i)) for i, m in enumerate(masks)]
    return np.stack(drawn)


def train_scribble_arm(
    name: str,
    real: Arrays,
    test: Arrays,
    *,
    store: SampleStore | None = None,
    encode_ratio: EncodeRatio = "adaptive",
    seed: int,
    steps: int = SEGMENTER_STEPS,
) -> Arm:
    """Train a small segmenter on rendered scenes with `train_on_scribbles` and measure it on whole masks."""
    model = train_on_scribbles(
        real, num_classes=len(CLASSES), store=store, encode_ratio=encode_ratio, seed=seed, steps=steps
    )
    images = len(real[0]) + (0 if store is None else len(store))
    return measure(name, model, test, images=images)


def train_on_scribbles(
    real: Arrays,
    *,
    num_classes: int,
    store: SampleStore | None = None,
    encode_ratio: EncodeRatio = "adaptive",
    seed: int,
    steps: int,
    batch_size: int = BATCH,
    width: int = 12,
) -> SmallUNet:
    """Train a small segmenter with partial cross-entropy, on real images and those of a store.

    Every step has as many synthetic as real images on average, and takes the same number of images with and without.

    Args:
        real: Images ``[N, H, W, 3]`` and their scribbles (or masks) ``[N, H, W]``, ids 0 to K-1 or 255.
        num_classes: K.
        store: ScribbleGen's images for `real`; None trains on the real ones alone.
        encode_ratio: Which of them, see `genaug_torch.EncodeRatioDataset`.
        seed: Of weights, draws and augmentation.
        steps: Optimiser steps.
        batch_size: Images a step.
        width: See `SmallUNet`.
    """
    images, labels = (torch.from_numpy(array) for array in real)
    train: TensorDataset | MixedDataset = TensorDataset(images.permute(0, 3, 1, 2).float() / 255, labels.long())
    if store is not None:
        synthetic = EncodeRatioDataset(store, encode_ratio=encode_ratio, epochs=EPOCHS, seed=seed)
        train = MixedDataset(train, synthetic, ratio=1.0, seed=seed)
    return fit(
        batches_by_epoch(train, steps=steps, seed=seed, batch_size=batch_size),
        lambda logits, labels: supervised_loss(Predictions(logits, "logits"), labels, ignore_index=IGNORE),
        num_classes=num_classes,
        ignore_index=IGNORE,
        steps=steps,
        seed=seed,
        width=width,
    )


def batches_by_epoch(
    train: TensorDataset | MixedDataset, *, steps: int, seed: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `steps` augmented batches of images [B, 3, H, W] in [0, 1] and labels [B, H, W], in `EPOCHS` epochs.

    Items are drawn with replacement, so that an epoch has the same number of steps whatever the number of images.
    """
    generator = torch.Generator().manual_seed(seed)
    for epoch, count in enumerate(len(part) for part in np.array_split(np.arange(steps), EPOCHS)):
        if not count:
            continue
        if isinstance(train, MixedDataset):
            train.set_epoch(epoch)
        sampler = RandomSampler(train, replacement=True, num_samples=count * batch_size, generator=generator)
        for images, labels in DataLoader(train, batch_size, sampler=sampler, generator=generator):
            yield augmented(images, labels, generator)
