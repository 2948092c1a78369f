"""Distance and similarity of two sets in the features of an image encoder: FID, DINO-SIM."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genaug.report.figures import Conclusion, Figures, Measured, Record, Statistic, Table
from genaug.report.intervals import estimate
from genaug.rng import Rng
from genaug.types import Sample
from genaug_quality.pretrained import image_processor, images_for, load, place

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import FeaturesOptions

_BLOCK = 1024


def frechet_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the Frechet distance of two sets of features ``[N, D]`` and ``[M, D]`` as torchmetrics computes it.

    NaN if a set has fewer than two images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(a), len(b)) < 2:
        return float("nan")
    features = torch.nn.Identity()  # the images that the metric is given are features already
    features.num_features = a.shape[1]
    metric = FrechetInceptionDistance(feature=features)
    for values, real in ((a, False), (b, True)):
        metric.update(torch.from_numpy(values), real=real)
    return float(metric.compute())


def nearest_similarity(a: NDArray[np.float32], b: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """Return the cosine of every row of ``[N, D]`` with the most similar one of ``[M, D]``.

    Args:
        a: Features.
        b: Where to look; `a` itself, every row but its own, for None.

    Returns:
        float64 ``[N]``, NaN where there is nothing to look at.
    """
    x = _unit(a)
    y = x if b is None else _unit(b)
    result = np.full(len(x), np.nan)
    for start in range(0, len(x), _BLOCK):
        cosines = x[start : start + _BLOCK] @ y.T
        if b is None:
            cosines[np.arange(len(cosines)), np.arange(len(cosines)) + start] = -np.inf
        if cosines.shape[1] > (b is None):
            result[start : start + _BLOCK] = cosines.max(1)
    return result


def _unit(features: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


class Features(Figures):
    """Section ``features``. Runs in one process, on `device`; needs transformers and torchmetrics, not torchvision.

    Args:
        model: An image encoder that ``AutoModel`` reads: a folder or a Hub id.
        batch_size: Images per forward pass.
        device: Torch device.
    """

    title = "Features of an image encoder"
    about = (
        "The Frechet distance compares the distributions of both sets' features. With DINOv2 or CLIP it is no FID to "
        "compare with published ones, whose Inception network torchmetrics only offers through torch-fidelity, which "
        "needs torchvision. It depends on the number of images; the distance between two halves of the real set shows "
        "what is no difference at all. Similarities are cosines."
    )
    parallel = False

    def __init__(self, model: str, *, batch_size: int = 16, device: str = "cpu") -> None:
        self.model, self.together, self.device = model, batch_size, device

    @classmethod
    def from_config(cls, options: FeaturesOptions, context: BuildContext) -> Self:
        """Build from options."""
        return cls(place(context.root, options.model), batch_size=options.batch_size, device=context.device)

    def statistics(self) -> Sequence[Statistic]:
        """Return nothing: the similarities need both sets."""
        return []

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel

        where = "features.model"
        model = load(AutoModel, self.model, where=where).to(self.device).eval()
        return model, image_processor(self.model, where=where)

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Return the features of every image: the pooled output, or the first token."""
        return [{"features": row} for row in self._features([s.image for s in samples])]

    def _features(self, images: Sequence[Any]) -> NDArray[np.float32]:
        model, processor = self._loaded
        with torch.inference_mode():
            pixels = images_for(processor, images)["pixel_values"].to(self.device)
            if hasattr(model, "get_image_features"):
                output = model.get_image_features(pixel_values=pixels)
            else:
                output = model(pixel_values=pixels)
        features: NDArray[np.float32] = pooled(output).float().cpu().numpy()
        return features

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:
        """Compare both sets."""
        made, own = synthetic.columns["features"], real.columns["features"]
        order = rng.child("halves").numpy().permutation(len(own))
        halves = np.array_split(own[order], 2)
        distances = {
            "synthetic to real": frechet_distance(made, own),
            "two halves of the real set": frechet_distance(*halves),
        }
        similarities = {
            "synthetic to its real image": _mean(synthetic, _paired(synthetic, real), rng),
            "synthetic to the nearest real image": _mean(synthetic, nearest_similarity(made, own), rng),
            "real to the nearest other real image": _mean(real, nearest_similarity(own), rng),
        }
        plain = {name: value if np.isfinite(value) else None for name, value in distances.items()}
        tables = (
            Table("Frechet distance", ("", "distance"), tuple(plain.items())),
            Table("Mean similarity", ("", "cosine", "low", "high"), tuple((n, *v) for n, v in similarities.items())),
        )
        few = min(len(made), len(own)) <= made.shape[1]
        note = f"fewer images than the {made.shape[1]} features: the Frechet distance is a rough guess"
        figures = {"model": self.model, "frechet_distance": plain, "similarity": similarities}
        return Conclusion(figures, tables, notes=(note,) if few else ())


def pooled(output: Any) -> torch.Tensor:
    """Return the features ``[B, D]`` of a model's output, whichever of transformers' forms it has."""
    if isinstance(output, torch.Tensor):
        return output
    if getattr(output, "pooler_output", None) is not None:
        pooler: torch.Tensor = output.pooler_output.flatten(1)
        return pooler
    first: torch.Tensor = output.last_hidden_state[:, 0]
    return first


def _paired(synthetic: Measured, real: Measured) -> NDArray[np.float64]:
    """Return the cosine of every image with the real one of its name (``a``, or ``a_3`` for the condition ``a``)."""
    place_of = {key: i for i, key in enumerate(real.ids)}
    x, y = _unit(synthetic.columns["features"]), _unit(real.columns["features"])
    partners = [place_of.get(key, place_of.get(key.rpartition("_")[0])) for key in synthetic.ids]
    return np.array([np.nan if p is None else float(x[i] @ y[p]) for i, p in enumerate(partners)])


def _mean(measured: Measured, values: NDArray[np.float64], rng: Rng) -> tuple[float | None, float | None, float | None]:
    """Return a mean and its interval; None where there is none."""
    column = Measured(measured.ids, measured.groups, {"value": values})
    estimates = estimate(column, [Statistic("mean", "mean", "value")], rng.child("similarity"))
    value, interval = float(estimates.values[0]), estimates.interval(0)
    return (value if np.isfinite(value) else None, *((None, None) if interval is None else interval))
