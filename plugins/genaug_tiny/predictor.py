"""The predictor ``small-unet``: trains itself on the labelled samples when nothing better is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from tqdm.auto import tqdm

from genaug.errors import AdapterError, ConfigError, SampleError
from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.store.files import sync_folder, system_errors, write_whole
from genaug.store.learned import read_table
from genaug.types import Sample
from genaug_tiny.segmenter_files import AGAIN, checked_config, complete

if TYPE_CHECKING:
    import torch

    from genaug.recipe import BuildContext
    from genaug_tiny.config import SmallUNetOptions
    from genaug_tiny.segmenter import SmallUNet

RECORD = "genaug_predictor.json"
LARGEST = 128
_IGNORED = 255  # no channel: at most 255 ids beside the ignore index


class SmallUNetPredictor:
    """A four-level U-Net, ready in a folder or trained on the labelled samples of the run that needs it.

    Good enough to vote in a relative filter on small images; a segmenter that was trained properly on the same
    labelled samples filters better on photographs.

    Args:
        labels: Class table; channel ``c`` of the logits belongs to ``labels.ids[c]``.
        path: Folder of a trained one; None waits for `adapt` or `load_adapted`.
        steps: Optimiser steps.
        batch_size: Labelled samples per step.
        learning_rate: Peak learning rate.
        width: Channels at full resolution.
        size: ``(height, width)`` it works at; images of another size are resized, their logits resized back. None: the
            labelled samples' own size if they share one with no side above 128, else 128 x 128.
        device: Torch device that predicts; training runs on the CPU, where it takes a minute.

    Raises:
        ConfigError: Fewer than two classes.
        AdapterError: `path` holds no small U-Net, or one of other classes.
    """

    def __init__(
        self,
        *,
        labels: LabelSpace,
        path: Path | None = None,
        steps: int = 400,
        batch_size: int = 16,
        learning_rate: float = 4e-3,
        width: int = 20,
        size: tuple[int, int] | None = None,
        device: str = "cpu",
    ) -> None:
        if len(labels.ids) < 2:
            raise ConfigError("a single class", where="labels", allowed="at least two, to tell them apart")
        self.labels, self.path, self.device = labels, path, device
        self._training: dict[str, Any] = {
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "width": width,
            "size": None if size is None else list(size),
        }
        self._folder: Path | None = None
        self._size = (0, 0)
        self._model: SmallUNet | None = None
        if path is not None:
            self.load_adapted(path)

    @classmethod
    def from_config(cls, options: SmallUNetOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(
            labels=context.labels,
            path=None if options.path is None else context.path(options.path),
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            width=options.width,
            size=options.size,
            device=context.device,
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 ``[B, 3, H, W]`` in ``[0, 1]`` to logits float32 ``[B, K, H, W]``."""
        import torch.nn.functional as F

        model = self._loaded()
        pixels = images.to(self.device)
        given = tuple(pixels.shape[2:])
        if given == self._size:
            return model(pixels)  # type: ignore[no-any-return]
        pixels = F.interpolate(pixels, size=self._size, mode="bilinear", align_corners=False, antialias=True)
        return F.interpolate(model(pixels), size=given, mode="bilinear", align_corners=False)

    def fingerprint(self) -> str:
        """Return a hash of the weights and of the size it works at."""
        total = hashlib.sha256(str(self._size).encode())
        for name, value in sorted(self._loaded().state_dict().items()):
            total.update(name.encode() + value.cpu().numpy().tobytes())
        return total.hexdigest()

    # ------------------------------------------------------------------ learning

    @property
    def needs_adapting(self) -> bool:
        """False when a folder was given."""
        return self.path is None

    def adapted(self, folder: Path) -> bool:
        """Return True if `folder` holds one trained with these options for these classes.

        Raises:
            AdapterError: It does, but a file is not what was written.
        """
        record = _read_record(folder)
        if record is None or (record["ids"], record["training"]) != (list(self.labels.ids), self._training):
            return False
        if not complete(folder):
            return False
        checked_config(folder)
        return True

    def adapt(self, samples: Sequence[Sample], folder: Path, *, labels: LabelSpace, rng: Rng) -> Mapping[str, Any]:
        """Train on labelled `samples` and write the result to `folder`; starts over if it was interrupted.

        Returns:
            ``samples``, ``steps``, ``size`` and ``training_miou``, the mean IoU on the samples themselves.

        Raises:
            SampleError: No sample, one without image or mask, or a mask with an id that is no class.
            StoreError: The operating system refused; no file is half-written.
        """
        from genaug_tiny import segmenter

        size = self._working_size(samples)
        images, targets = _arrays(samples, size, labels)
        with system_errors("remove", folder / RECORD):
            (folder / RECORD).unlink(missing_ok=True)
        model = segmenter.train_segmenter(
            images,
            targets,
            num_classes=len(labels.ids),
            ignore_index=_IGNORED,
            steps=self._training["steps"],
            batch_size=self._training["batch_size"],
            lr=self._training["learning_rate"],
            width=self._training["width"],
            seed=rng.integer(),
        )
        miou, _ = segmenter.evaluate_miou(model, images, targets, len(labels.ids), _IGNORED)
        save_predictor(model, folder, labels=labels, size=size, training=self._training)
        return {
            "samples": len(images),
            "steps": self._training["steps"],
            "size": list(size),
            "training_miou": round(miou, 4),
        }

    def load_adapted(self, folder: Path) -> None:
        """Use what `adapt` or `save_predictor` wrote to `folder`; the weights are read on first use.

        Raises:
            AdapterError: There is none, a file is missing or damaged, or its classes are others.
        """
        record = _read_record(folder)
        if record is None:
            raise AdapterError(
                f"no small U-Net: {RECORD} is missing or not one of small-unet's",
                where=str(folder),
                allowed="a folder that the predictor small-unet wrote",
            )
        if record["ids"] != list(self.labels.ids):
            raise AdapterError(
                f"it tells the class ids {record['ids']} apart",
                where=str(folder),
                allowed=f"the ids of 'labels', {list(self.labels.ids)}",
                hint="Train it on these classes, or correct 'labels'",
            )
        checked_config(folder)
        height, width = record["size"]
        self._folder, self._size, self._model = folder, (int(height), int(width)), None

    def _loaded(self) -> SmallUNet:
        from genaug_tiny import segmenter

        if self._model is None:
            if self._folder is None:
                raise AdapterError(
                    "small-unet has not learned from the labelled samples yet",
                    where="predictor small-unet",
                    hint="Run 'genaug adapt' (or 'genaug run') first, or give it the 'path' of a trained one",
                )
            self._model = segmenter.load(self._folder).to(self.device)
        return self._model

    def _working_size(self, samples: Sequence[Sample]) -> tuple[int, int]:
        given = self._training["size"]
        if given is not None:
            return int(given[0]), int(given[1])
        sizes: set[tuple[int, int]] = set()
        for sample in samples:
            sizes.add(sample.size)
            if len(sizes) > 1 or max(sample.size) > LARGEST:
                return LARGEST, LARGEST
        return sizes.pop() if sizes else (LARGEST, LARGEST)


def save_predictor(
    model: SmallUNet,
    folder: Path,
    *,
    labels: LabelSpace,
    size: tuple[int, int],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a trained segmenter so that its folder alone names it in a recipe: ``predictor: <folder>``.

    Args:
        model: Its channel ``c`` belongs to ``labels.ids[c]``.
        folder: Where to.
        labels: Class table.
        size: ``(height, width)`` it was trained at.
        training: The options it was trained with, if it was trained by this predictor.
    """
    from genaug_tiny import segmenter

    segmenter.save(model, folder)
    record = {"use": "small-unet", "ids": list(labels.ids), "size": list(size), "training": dict(training or {})}
    # Last: a folder with the record is complete.
    write_whole(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode(), tag="predictor")
    sync_folder(folder)


def _read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a trained one; None if there is none, or another predictor's."""
    if not (folder / RECORD).is_file():
        return None
    record = read_table(folder / RECORD, hint=AGAIN)
    return record if record.get("use") == "small-unet" and {"ids", "size", "training"} <= set(record) else None


def _arrays(
    samples: Sequence[Sample], size: tuple[int, int], labels: LabelSpace
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return images ``[N, H, W, 3]`` and channel numbers ``[N, H, W]`` at one size."""
    channels = np.full(256, -1, np.int64)
    channels[list(labels.ids)] = range(len(labels.ids))
    channels[labels.ignore_index] = _IGNORED
    images = np.empty((len(samples), *size, 3), np.uint8)
    targets = np.empty((len(samples), *size), np.uint8)
    for i, sample in enumerate(tqdm(samples, desc="read samples", unit="sample", delay=1, leave=False)):
        if sample.image is None or sample.mask is None:
            raise SampleError("image or mask missing", where=f"sample {sample.id}", allowed="both")
        target = channels[sample.mask]
        if target.min() < 0:
            raise SampleError(
                f"the mask holds id {sample.mask[target < 0][0]}",
                where=f"sample {sample.id}",
                allowed=f"{list(labels.ids)} and the ignore index {labels.ignore_index}",
            )
        shape = (size[1], size[0])
        images[i] = np.asarray(PILImage.fromarray(sample.image).resize(shape, PILImage.Resampling.BILINEAR))
        small = PILImage.fromarray(target.astype(np.uint8)).resize(shape, PILImage.Resampling.NEAREST)
        targets[i] = np.asarray(small)
    if not len(samples):
        raise SampleError("there is no labelled sample", where="predictor small-unet", allowed="at least one")
    return images, targets
