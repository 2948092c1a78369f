"""Segmenters of the transformers library (SegFormer, UperNet, DPT, Mask2Former ...) from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from genaug.errors import ConfigError
from genaug_basics.fingerprint import file_fingerprint

if TYPE_CHECKING:
    import torch

    from genaug.recipe import BuildContext
    from genaug_basics.config import TransformersOptions

#: Their heads score queries, which are projected to pixels.
MASK_CLASSIFIERS = ("maskformer", "mask2former")
#: Theirs too, with images or outputs of other forms.
QUERY_MODELS = ("oneformer", "detr", "eomt", "eomt_dinov3", "sam", "sam2", "sam3")


class TransformersPredictor:
    """A folder of ``save_pretrained``, of a model for semantic segmentation, a MaskFormer or a Mask2Former.

    Images are normalised with the mean and standard deviation of ``preprocessor_config.json`` (no torchvision, no
    image processor), run at their own size or at `size`, and the logits are resized bilinearly back to the
    images' size. The model is loaded on first use; nothing is downloaded.

    Mask classifiers give the logarithm of ``sum_q softmax(class_q)_k sigmoid(mask_q)``, divided by its sum over the
    classes, mask logits being resized first: the classes are those of their own semantic inference.

    Args:
        path: The folder.
        size: ``(height, width)`` the model works at; None for the images' own size.
        device: Torch device to run on.

    Raises:
        ConfigError: The folder does not exist, or holds no such model.
    """

    def __init__(self, path: str | Path, *, size: tuple[int, int] | None = None, device: str = "cpu") -> None:
        self.path, self.size, self.device = Path(path), size, device
        kind = str(_read_json(self.path / "config.json").get("model_type", "without model_type"))
        self._queries = kind in MASK_CLASSIFIERS
        if kind in QUERY_MODELS:
            raise ConfigError(
                f"the model is a {kind}, which scores queries instead of pixels",
                where=str(self.path),
                allowed="models of AutoModelForSemanticSegmentation with one channel per class, and "
                + ", ".join(MASK_CLASSIFIERS),
                hint="Export a wrapper that returns [B, K, H, W] with torch.export and use it as a .pt2 file",
            )
        self._scale, self._mean, self._std = _normalisation(self.path)
        self._model: Any = None

    @classmethod
    def from_config(cls, options: TransformersOptions, context: BuildContext) -> Self:
        """Build from a recipe's options."""
        return cls(context.path(options.path), size=options.size, device=context.device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 ``[B, 3, H, W]`` in ``[0, 1]`` to logits float32 ``[B, K, H, W]``."""
        import torch
        import torch.nn.functional as F

        from genaug.predictions import Predictions

        if self._model is None:
            self._model = self._load()
        pixels = images.to(self.device)
        if self.size is not None and tuple(pixels.shape[2:]) != tuple(self.size):
            pixels = F.interpolate(pixels, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=pixels.device).view(1, -1, 1, 1) for v in (self._mean, self._std))
        output = self._model(pixel_values=(pixels * self._scale - mean) / std)
        numbers: torch.Tensor = (output.masks_queries_logits if self._queries else output.logits).float()
        resized = F.interpolate(numbers, size=images.shape[2:], mode="bilinear", align_corners=False)
        if not self._queries:
            return resized
        classes = output.class_queries_logits.float().softmax(-1)[..., :-1]  # the last is "no object"
        return Predictions(torch.einsum("bqk,bqhw->bkhw", classes, resized.sigmoid()), "scores").log_probs()

    def fingerprint(self) -> str:
        """Return a hash of the weights and of everything that decides how images reach them."""
        return file_fingerprint([*sorted(self.path.glob("*.safetensors")), *sorted(self.path.glob("*config.json"))])

    def _load(self) -> Any:
        from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

        kind = AutoModelForUniversalSegmentation if self._queries else AutoModelForSemanticSegmentation
        try:
            model = kind.from_pretrained(self.path, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot be loaded: {error}",
                where=str(self.path),
                allowed=f"a folder of {kind.__name__}.save_pretrained with safetensors weights",
            ) from error
        return model.to(self.device).eval()


def _normalisation(folder: Path) -> tuple[float, list[float], list[float]]:
    """Return the factor, mean and standard deviation that images in ``[0, 1]`` need."""
    config = _read_json(folder / "preprocessor_config.json")
    # Processors count from pixel values of 0..255; the images come divided by 255 already.
    scale = 255 * float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
    if not config.get("do_normalize", True):
        return scale, [0.0] * 3, [1.0] * 3
    try:
        mean, std = ([float(v) for v in config[key]] for key in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError):
        mean, std = [], []
    if len(mean) != 3 or len(std) != 3 or 0 in std:
        raise ConfigError(
            "image_mean and image_std are missing or not three numbers each",
            where=str(folder / "preprocessor_config.json"),
            hint="Save the image processor that the model was trained with into the same folder",
        )
    return scale, mean, std


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}",
            where=str(path),
            allowed="a folder with config.json, preprocessor_config.json and model.safetensors",
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"holds a {type(data).__name__}", where=str(path), allowed="a JSON table")
    return data
