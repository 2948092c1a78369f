"""Distance and similarity of two sets in the features of an image encoder: Frechet distance, cosines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genaug.engine.progress import bar
from genaug.report.figures import Conclusion, Figures, Measured, Record, Statistic, Table
from genaug.report.intervals import estimate, percentile_interval
from genaug.rng import Rng
from genaug.types import Sample
from genaug_quality.pretrained import image_processor, images_for, load, place

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import FeaturesOptions

#: A figure and its interval; None where there is none.
Estimate = tuple[float | None, float | None, float | None]
Weights = NDArray[np.float64] | None

_BLOCK = 1024
#: Splits of the real images behind a Frechet distance, and weightings of the images behind its interval.
SPLITS, DRAWS = 5, 40
#: What is compared: both with the same half of the real images, and the distances with each other.
COMPARED = ("synthetic to real", "two halves of the real set", "difference")


def frechet_distance(
    a: NDArray[np.float32], b: NDArray[np.float32], *, weights: tuple[Weights, Weights] = (None, None)
) -> float:
    """Return the Frechet distance of two sets of features ``[N, D]`` and ``[M, D]``, as FID takes it (Heusel 2017).

    The same number as torchmetrics', which knows no weights, by singular values of at most ``D x D`` numbers instead of
    general eigenvalues: an interval needs hundreds of distances. NaN if a set has fewer than two images.

    Args:
        a: One set.
        b: The other.
        weights: Of the images, ``[N]`` and ``[M]``, above 0; None for equal ones.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    (x, mean_x), (y, mean_y) = (_centred(features, given) for features, given in zip((a, b), weights, strict=True))
    # The eigenvalues of the product of both covariances are the squares of the singular values of x y^T.
    roots = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return max(float(((mean_x - mean_y) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * roots), 0.0)


def _centred(features: NDArray[np.float32], weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x with at most D rows, ``x^T x`` being the covariance of features ``[N, D]``, and the mean."""
    wide = features.astype(np.float64)
    share = np.ones(len(wide)) if weights is None else weights
    mean = share @ wide / share.sum()
    freedom = share.sum() - (share**2).sum() / share.sum()  # N - 1 if all weights are 1
    x = (wide - mean) * np.sqrt(share / freedom)[:, None]
    return (np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x), mean


def frechet_intervals(synthetic: Measured, real: Measured, rng: Rng) -> tuple[int, dict[str, Estimate]]:
    """Compare the synthetic set with a half of the real one, and the other half with it, at equal numbers of images.

    The fewer images, the larger the distance of equal distributions; so all sets have as many. A distance is the mean
    over `SPLITS` random halves. Intervals are by the Bayesian bootstrap (Rubin 1981): `DRAWS` times, every group gets a
    weight from the exponential distribution. Unequal weights raise the distances, as fewer images do; so what is
    drawn is moved to have the unweighted distance as its mean.

    Returns:
        Images of a set, and the distances that `COMPARED` names, each with the ends of its 95 % interval: None where
        the synthetic set is a single group. All None where a set has fewer than two images.
    """
    groups = [np.unique(measured.groups, return_inverse=True)[1] for measured in (synthetic, real)]
    sizes = np.sort(np.bincount(groups[1]))
    # Of the two halves one may have a group more; whichever groups the other gets, it has as many images as the
    # smallest groups together.
    count = min(len(synthetic), int(sizes[: len(sizes) // 2].sum()))
    if count < 2:
        return count, dict.fromkeys(COMPARED, (None, None, None))
    drawn = np.array(
        [
            _compare(synthetic, real, groups, count, rng.child(draw).numpy(), weighted=draw > 0)
            for draw in bar(range(DRAWS + 1), "Frechet distances")
        ]
    )
    values = drawn[0]
    moved = drawn[1:] - drawn[1:].mean(0) + values
    moved[:, :2] = moved[:, :2].clip(0)  # but for the difference, nothing is below 0
    found: dict[str, Estimate] = {}
    for name, value, column in zip(COMPARED, values, moved.T, strict=True):
        known = percentile_interval(column) if groups[0].max() else None  # one group tells nothing of others
        found[name] = (float(value), *(known or (None, None)))
    return count, found


def _compare(
    synthetic: Measured,
    real: Measured,
    groups: Sequence[NDArray[np.intp]],
    count: int,
    numbers: np.random.Generator,
    *,
    weighted: bool,
) -> NDArray[np.float64]:
    """Return the means of what `COMPARED` names over `SPLITS` splits."""
    made, own = (measured.columns["features"] for measured in (synthetic, real))
    weights = [
        numbers.exponential(size=int(each.max()) + 1)[each] if weighted else np.ones(len(each)) for each in groups
    ]
    found = []
    for _ in range(SPLITS):
        order = _whole_groups(groups[1], numbers)
        cut = np.flatnonzero(np.diff(groups[1][order])) + 1  # where a group begins
        middle = cut[len(cut) // 2]
        one, other = order[:middle][:count], order[middle:][:count]
        some = _whole_groups(groups[0], numbers)[:count]
        distances = (
            frechet_distance(made[some], own[one], weights=(weights[0][some], weights[1][one])),
            frechet_distance(own[other], own[one], weights=(weights[1][other], weights[1][one])),
        )
        found.append((*distances, distances[0] - distances[1]))
    means: NDArray[np.float64] = np.mean(found, axis=0)
    return means


def _whole_groups(groups: NDArray[np.intp], numbers: np.random.Generator) -> NDArray[np.intp]:
    """Return the places of all images, groups in random order and each in one piece."""
    order: NDArray[np.intp] = np.argsort(numbers.permutation(int(groups.max()) + 1)[groups], kind="stable")
    return order


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
    """Section ``features``. Runs in one process, on `device`; needs transformers, not torchvision.

    Args:
        model: An image encoder that ``AutoModel`` reads: a folder or a Hub id.
        batch_size: Images per forward pass.
        device: Torch device.
    """

    title = "Features of an image encoder"
    about = (
        "The Frechet distance compares the distributions of both sets' features. With DINOv2 or CLIP it is no FID to "
        "compare with published ones, which take Inception's. It is the larger, the fewer images there are; so all "
        "distances are of equally many: the synthetic images against a half of the real ones, and the other half "
        "against the same, which shows what is no difference at all. Similarities are cosines of one vector an image, "
        "the pooled output (DINOv2: the class token). That is not the DINO-SIM of MatchMask, which compares dense "
        "features at 840x840."
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
        count, distances = frechet_intervals(synthetic, real, rng.child("frechet"))
        similarities = {
            "synthetic to its real image": _mean(synthetic, _paired(synthetic, real), rng),
            "synthetic to the nearest real image": _mean(synthetic, nearest_similarity(made, own), rng),
            "real to the nearest other real image": _mean(real, nearest_similarity(own), rng),
        }
        tables = tuple(
            Table(title, ("", of, "low", "high"), tuple((name, *values) for name, values in rows.items()))
            for title, of, rows in (
                (f"Frechet distance, {count} images a set", "distance", distances),
                ("Mean similarity", "cosine", similarities),
            )
        )
        note = f"fewer images than the {made.shape[1]} features: the Frechet distance is a rough guess"
        figures = {"model": self.model, "frechet_distance": {"images": count, **distances}, "similarity": similarities}
        return Conclusion(figures, tables, notes=(note,) if count <= made.shape[1] else ())


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


def _mean(measured: Measured, values: NDArray[np.float64], rng: Rng) -> Estimate:
    """Return a mean and its interval; None where there is none."""
    column = Measured(measured.ids, measured.groups, {"value": values})
    estimates = estimate(column, [Statistic("mean", "mean", "value")], rng.child("similarity"))
    value, interval = float(estimates.values[0]), estimates.interval(0)
    return (value if np.isfinite(value) else None, *((None, None) if interval is None else interval))
