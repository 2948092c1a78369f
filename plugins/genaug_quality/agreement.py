"""What a segmenter makes of the images: whether it finds the masks again, and what pseudo-labels it would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genaug.errors import ConfigError
from genaug.interfaces import Predictor, PseudoLabeler
from genaug.labels import LabelSpace
from genaug.predictions import Predictions
from genaug.report.figures import Conclusion, Figures, Measured, Record, Statistic, Table
from genaug.rng import Rng
from genaug.types import Mask, Sample
from genaug_basics.inference import BatchedPredictor
from genaug_quality.coverage import names_of
from genaug_quality.density import MIN_AREA, class_regions, density_statistics, mask_density

if TYPE_CHECKING:
    from genaug.recipe import BuildContext
    from genaug_quality.config import AgreementOptions

BINS = 10
THRESHOLD = 0.95
NO_LABEL = 255  # of labelers, which speak of channels; no class table has more


def _labeler(spec: Mapping[str, Any] | None, context: BuildContext) -> PseudoLabeler | None:
    if spec is None:
        return None
    options = {key: value for key, value in spec.items() if key != "use"}
    if "use" not in spec:
        raise ConfigError("no key 'use'", where="agreement.labeler", allowed="{use: ..., ...options}")
    labeler: PseudoLabeler = context.build("labeler", str(spec["use"]), options, where="agreement.labeler")
    return labeler


def agreement(predicted: Mask, mask: Mask, labels: LabelSpace) -> float:
    """Return the share of a mask's labelled pixels whose class is predicted; NaN without a labelled pixel."""
    labelled = np.isin(mask, labels.ids)
    return float((predicted == mask)[labelled].mean()) if labelled.any() else float("nan")


class Agreement(Figures):
    """Section ``agreement``. Runs in one process, on `device`.

    Args:
        predictor: A segmenter, best one that was trained on the labelled data.
        labels: Class table.
        threshold: Pixels of at least this probability would be kept as pseudo-labels.
        labeler: Makes the pseudo-labels instead, of one image at a time; None for those of `threshold`.
        batch_size: Images per forward pass.
        device: Torch device of the predictor.
        min_area: Of regions in predicted masks, see `genaug_quality.density.mask_density`.
    """

    title = "What a segmenter sees"
    about = (
        "Agreement is the share of labelled pixels for which the segmenter gives the mask's class. On images that it "
        "was trained with it is near 1, so a lower one is no fault by itself; compare generators, or real images that "
        "it has not seen. Pixels it is sure enough of would be kept as pseudo-labels; a labeler may flip some of "
        "them to another class than the segmenter's own. Density is that of the predicted "
        "masks: the same segmenter looks at both sets, so it also compares images that have no mask."
    )
    parallel = False
    ranked = ("agreement", "seen_components")

    def __init__(
        self,
        predictor: Predictor,
        *,
        labels: LabelSpace,
        threshold: float = THRESHOLD,
        labeler: PseudoLabeler | None = None,
        batch_size: int = 8,
        device: str = "cpu",
        min_area: float = MIN_AREA,
    ) -> None:
        self.labels, self.threshold, self.labeler, self.min_area = labels, threshold, labeler, min_area
        self.together = batch_size
        self._segmenter = BatchedPredictor(predictor, labels=labels, batch_size=batch_size, device=device)
        self._names = names_of(labels)

    @classmethod
    def from_config(cls, options: AgreementOptions, context: BuildContext) -> Self:
        """Build from options."""
        return cls(
            context.predictor(options.predictor, where="agreement.predictor"),
            labels=context.labels,
            threshold=options.threshold,
            labeler=_labeler(options.labeler, context),
            batch_size=options.batch_size,
            device=context.device,
            min_area=options.min_area,
        )

    @property
    def _how(self) -> str:
        return f"at {self.threshold:g}" if self.labeler is None else f"by {type(self.labeler).__name__}"

    def statistics(self) -> Sequence[Statistic]:
        """Return agreement, pseudo-labels, confidence and entropy, density as seen, and figures by class."""
        by_class = [
            statistic
            for i, name in self._names.items()
            for statistic in (
                Statistic(f"iou/{name}", "IoU with the mask", f"both/{i}", per=f"either/{i}", by=name),
                Statistic(f"predicted/{name}", "share of predicted pixels", f"predicted/{i}", per="pixels", by=name),
                Statistic(f"kept/{name}", "of these kept", f"kept/{i}", per=f"predicted/{i}", by=name),
            )
        ]
        return [
            Statistic("agreement", "agreement with the mask", "agreement", worse="lower"),
            Statistic("kept", f"pixels kept {self._how}", "kept", per="pixels", worse="lower"),
            Statistic("flip_rate", "of these given another class", "flipped", per="kept"),
            Statistic("kept_classes", "classes with a kept region, per image", "kept_classes", worse="lower"),
            Statistic("confidence", "mean confidence", "confidence"),
            Statistic("entropy", "mean entropy of a pixel, nats", "entropy"),
            *density_statistics("seen_", ", as seen"),
            *by_class,
        ]

    def measure(self, samples: Sequence[Sample]) -> Sequence[Record]:
        """Ask the segmenter about images of one size at a time."""
        records: dict[int, Record] = {}
        for size in dict.fromkeys(s.size for s in samples):
            places = [i for i, s in enumerate(samples) if s.size == size]
            chosen = [samples[i] for i in places]
            records |= dict(zip(places, self._of_one_size(chosen), strict=True))
        return [records[i] for i in range(len(samples))]

    def _of_one_size(self, samples: Sequence[Sample]) -> Iterator[Record]:
        waiting = iter(samples)
        ids = np.array(self.labels.ids, np.uint8)
        for logits in self._segmenter.logits([s.image for s in samples if s.image is not None]):
            log_probs = logits.log_softmax(1)
            confidence, channels = log_probs.exp().max(1)
            entropy = -(log_probs.exp() * log_probs.clamp_min(-1e4)).sum(1)
            targets, kept = self._pseudo_labels(logits, channels, confidence)
            parts = (channels, confidence, entropy, targets, kept)
            for channel, sure, unsure, target, use in zip(*(p.cpu().numpy() for p in parts), strict=True):
                label = np.full(channel.shape, self.labels.ignore_index, np.uint8)
                label[use] = ids[target[use]]
                yield self._record(next(waiting).mask, ids[channel], sure, float(unsure.mean()), label, use)

    def _pseudo_labels(
        self, logits: torch.Tensor, channels: torch.Tensor, confidence: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the channels ``[B, H, W]`` of the pseudo-labels, and where they are kept."""
        if self.labeler is None:
            return channels, confidence >= self.threshold
        with torch.inference_mode():  # one image at a time: a labeler of whole batches would mix them
            found = [self.labeler.label(Predictions(one[None], "logits")) for one in logits]
        hard, weights = (torch.cat([getattr(f, name) for f in found]) for name in ("hard", "weights"))
        return hard, (weights > 0) & (hard != NO_LABEL)

    def _record(
        self,
        mask: Mask | None,
        predicted: Mask,
        confidence: NDArray[np.float32],
        entropy: float,
        label: Mask,
        kept: NDArray[np.bool_],
    ) -> Record:
        counts, counts_kept = (np.bincount(p.ravel(), minlength=256) for p in (predicted, predicted[kept]))
        density = mask_density(predicted, self.labels, min_area=self.min_area)
        edges = np.minimum((confidence.ravel() * BINS).astype(np.intp), BINS - 1)
        regions = class_regions(label, self.labels, min_area=self.min_area)
        record: dict[str, float | np.ndarray] = {
            "agreement": np.nan if mask is None else agreement(predicted, mask, self.labels),
            "pixels": float(predicted.size),
            "kept": float(kept.sum()),
            "flipped": float((label != predicted)[kept].sum()),
            "kept_classes": float((regions > 0).sum()),
            "kept_regions": regions,
            "confidence": float(confidence.mean(dtype=np.float64)),
            "entropy": entropy,
            "histogram": np.bincount(edges, minlength=BINS).astype(np.float64),
            **{f"seen_{name}": value for name, value in density.items()},
        }
        for i in self.labels.ids:
            record |= {f"predicted/{i}": float(counts[i]), f"kept/{i}": float(counts_kept[i])}
            record |= _overlap(mask, predicted, i, self.labels)
        return record

    def conclude(self, synthetic: Measured, real: Measured, rng: Rng) -> Conclusion:  # noqa: ARG002
        """Return mIoU, the histogram of confidences and the classes that pseudo-labels cover; name the others."""
        figures, notes = {}, []
        for name, measured in (("synthetic", synthetic), ("real", real)):
            covered = (measured.columns["kept_regions"] > 0).sum(0) > 0
            never = {
                "predicted": [n for i, n in self._names.items() if not measured.numbers(f"predicted/{i}").any()],
                "kept": [n for n, there in zip(self._names.values(), covered, strict=True) if not there],
            }
            shares = measured.columns["histogram"].sum(0) / measured.numbers("pixels").sum()
            figures[name] = {
                "miou": self._miou(measured),
                "kept_classes": int(covered.sum()),
                "confidence_histogram": shares.tolist(),
                "never": never,
            }
            for what, classes in never.items():
                if classes:
                    how = "never predicted" if what == "predicted" else "no region kept"
                    notes.append(f"{how} in the {name} images: {', '.join(classes)}")
        header = (
            "set",
            "mIoU with the masks",
            f"of {len(self._names)} classes with a kept region",
            *(f"{i / BINS:.1f} to {(i + 1) / BINS:.1f}" for i in range(BINS)),
        )
        rows = tuple((name, f["miou"], f["kept_classes"], *f["confidence_histogram"]) for name, f in figures.items())
        table = Table("Agreement and pseudo-labels over classes, and shares of pixels by confidence", header, rows)
        return Conclusion({"health": figures}, (table,), notes=tuple(notes))

    def _miou(self, measured: Measured) -> float | None:
        """Return the mean IoU over the classes that occur in masks or predictions, of all pixels of the set."""
        both, either = (
            np.array([np.nansum(measured.numbers(f"{what}/{i}")) for i in self.labels.ids])
            for what in ("both", "either")
        )
        return float((both[either > 0] / either[either > 0]).mean()) if (either > 0).any() else None


def _overlap(mask: Mask | None, predicted: Mask, i: int, labels: LabelSpace) -> dict[str, float]:
    """Return intersection and union of a class, in labelled pixels; NaN without a mask."""
    if mask is None:
        return {f"both/{i}": np.nan, f"either/{i}": np.nan}
    there, seen = mask == i, (predicted == i) & (mask != labels.ignore_index)
    return {f"both/{i}": float((there & seen).sum()), f"either/{i}": float((there | seen).sum())}
