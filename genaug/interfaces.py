"""The four interfaces. Each public method checks, seeds and records, then calls the one abstract method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from genaug.errors import SampleError
from genaug.labels import LabelSpace
from genaug.rng import Rng
from genaug.types import Draw, Group, Mask, Refused, Sample, Verdict

if TYPE_CHECKING:
    import torch

    from genaug.batch import Batch
    from genaug.predictions import Predictions, PseudoTargets


@runtime_checkable
class Predictor(Protocol):
    """A segmenter, whatever framework it comes from: a callable, no base class.

    Images float32 ``[B, 3, H, W]`` in ``[0, 1]`` (RGB) to logits float ``[B, K, H, W]``, where channel ``c``
    belongs to the ``c``-th class id in ascending order (`LabelSpace.ids`).
    """

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Shape: ``[B, 3, H, W]`` -> ``[B, K, H, W]``, any device."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A component that learns something from the user's few labelled samples before it can work."""

    @property
    def needs_adapting(self) -> bool:
        """False when the configuration names something already adapted."""
        ...

    def adapted(self, folder: Path) -> bool:
        """Return True if `folder` holds a finished result of `adapt` for this configuration."""
        ...

    def adapt(self, samples: Sequence[Sample], folder: Path, *, labels: LabelSpace, rng: Rng) -> Mapping[str, Any]:
        """Learn from labelled `samples`, write the result to `folder`, return a JSON-like report.

        Must resume from what an interrupted call left in `folder` and end with the same bytes.
        """
        ...

    def load_adapted(self, folder: Path) -> None:
        """Use what `adapt` wrote to `folder`."""
        ...


@runtime_checkable
class Probeable(Protocol):
    """A generator that can tell which of its base model's layers matter for adapting."""

    def probe(
        self,
        samples: Sequence[Sample],
        folder: Path,
        *,
        labels: LabelSpace,
        rng: Rng,
        mode: str,
        epochs: int,
        share: float,
        optimizer: str,
        learning_rate: float,
    ) -> Mapping[str, Any]:
        """Score the layers on labelled `samples`, write table and plot to `folder`, return a JSON-like report."""
        ...


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What a filter may look at before it judges.

    Args:
        labels: Class table of the recipe.
        real: Returns a fresh iterator over the labelled real samples.
        conditions: Returns a fresh iterator over ``(condition id, mask [H, W])`` of all groups, in store order.
        samples_per_condition: K.
        device: Torch device string for predictors.
    """

    labels: LabelSpace
    real: Callable[[], Iterator[Sample]]
    conditions: Callable[[], Iterator[tuple[str, Mask]]]
    samples_per_condition: int
    device: str = "cpu"


class Generator(ABC):
    """Conditions to samples. Subclasses implement `_generate`; callers use `generate`."""

    #: Largest number of draws `generate` accepts at once. The engine plans batches of this size.
    batch_size: int = 1
    #: Number of samples the engine asks for per condition (K).
    samples_per_condition: int = 1

    def prepare(self, labels: LabelSpace, *, device: str = "cpu") -> None:  # noqa: B027  (optional to override)
        """Load models. Called once, before the first `generate`; the default does nothing."""

    def describe(self) -> Mapping[str, Any]:
        """Return JSON-like provenance that every sample's manifest row repeats (base model, adapter ...)."""
        return {}

    def size_of(self, draw: Draw) -> tuple[int, int]:
        """Return the key by which draws may share a batch; by default the condition's ``(height, width)``."""
        return draw.condition.size

    def generate(self, draws: Sequence[Draw], *, ignore_index: int) -> list[Sample | Refused]:
        """Make one sample per draw.

        Args:
            draws: At most `batch_size` draws whose `size_of` agree. Randomness comes from ``draw.seed`` alone.
            ignore_index: The only id that a result's mask may have where the condition's mask has another.

        Returns:
            A list aligned with `draws`: samples with image ``[H, W, 3]`` and mask ``[H, W]`` at the condition's
            size, without a mask where the condition has none and nobody knows what is where; or `Refused` where there
            is no image to give (safety checker, nothing but ignored pixels).

        Raises:
            SampleError: In a DataLoader worker; draws that may not share a batch; or a result that breaks the
                contract (wrong size, pixels of the mask changed to anything but the ignore index).
        """
        _refuse_in_worker(type(self).__name__)
        if not draws:
            return []
        sizes = {self.size_of(d) for d in draws}
        if len(sizes) > 1 or len(draws) > self.batch_size:
            raise SampleError(
                f"{len(draws)} draws of sizes {sorted(sizes)}",
                where=f"{type(self).__name__}.generate",
                allowed=f"at most {self.batch_size} draws of one size",
            )
        results = list(self._generate(draws))
        if len(results) != len(draws):
            raise SampleError(
                f"{len(results)} results for {len(draws)} draws", where=f"{type(self).__name__}._generate"
            )
        for draw, result in zip(draws, results, strict=True):
            if not isinstance(result, Refused):
                self._check(draw, result, ignore_index)
        return results

    def _check(self, draw: Draw, result: Sample, ignore_index: int) -> None:
        where = f"{type(self).__name__}, sample {draw.key}"
        if result.image is None or (result.mask is None and draw.condition.mask is not None):
            raise SampleError("image or mask missing", where=where, allowed="both")
        if draw.condition.mask is not None and result.mask is not None:
            _check_only_ignored(draw.condition.mask, result.mask, ignore_index, where=where)
        if result.size != draw.condition.size:
            found = f"an image of {result.size} for a condition of {draw.condition.size} (height, width)"
            raise SampleError(found, where=where, allowed="the condition's size")

    @abstractmethod
    def _generate(self, draws: Sequence[Draw]) -> Sequence[Sample | Refused]:
        """Make one sample per draw; inputs are checked, outputs will be."""


class Filter(ABC):
    """Judges all samples made from one condition together. Subclasses implement `_judge`."""

    #: Whether it can judge samples that have no mask, as those made from prompts. The options say the same
    #: (`genaug.config.Options.judges_unlabeled`), so that ``genaug check`` knows without importing the filter.
    judges_unlabeled: bool = False

    def prepare(self, context: FilterContext) -> None:  # noqa: B027  (optional to override)
        """Look at real samples and conditions before judging; the default does nothing."""

    def judge(self, group: Group, labels: LabelSpace) -> list[Verdict]:
        """Return one verdict per sample of `group`, in its order.

        Raises:
            SampleError: A verdict changes a mask pixel to anything but the ignore index, has another size, or
                drops a sample without saying why; or the samples have no masks, and the filter needs some.
        """
        name = type(self).__name__
        if not self.judges_unlabeled and any(sample.mask is None for sample in group.samples):
            hint = "Leave the filter out: samples made from prompts have no masks"
            raise SampleError(
                "samples without masks", where=f"{name}, {group.id}", allowed="labelled samples", hint=hint
            )
        verdicts = list(self._judge(group))
        if len(verdicts) != len(group.samples):
            raise SampleError(f"{len(verdicts)} verdicts for {len(group.samples)} samples", where=f"{name}, {group.id}")
        for sample, k, verdict in zip(group.samples, group.ks, verdicts, strict=True):
            where = f"{name}, sample {group.id}_{k}"
            if not verdict.keep and not verdict.reason:
                raise SampleError("a dropped sample has no reason", where=where, hint="Say why in Verdict.reason")
            if verdict.mask is not None:
                _check_only_ignored(sample.mask, verdict.mask, labels.ignore_index, where=where)
        return verdicts

    @abstractmethod
    def _judge(self, group: Group) -> Sequence[Verdict]:
        """Return one verdict per sample; inputs are checked, outputs will be."""


class PseudoLabeler(ABC):
    """Teacher predictions to targets and weights, on the trainer's device. Subclasses implement `_label`."""

    #: Which sizes the model takes, as far as options of the labeler say so; terms that scale images follow.
    multiple_of: int = 1
    max_side: int | None = None

    def predict(self, teacher: Callable[[torch.Tensor], Predictions], images: torch.Tensor) -> Predictions:
        """Ask the teacher about the weak view ``[B, 3, H, W]``; override it to ask at several scales or flips.

        Returns:
            Predictions of the images' own size.
        """
        return teacher(images)

    def label(
        self,
        predictions: Predictions,
        *,
        valid: torch.Tensor | None = None,
        known: torch.Tensor | None = None,
        ignore_index: int = 255,
        group: torch.distributed.ProcessGroup | None = None,
    ) -> PseudoTargets:
        """Turn predictions into targets; no gradient flows through them.

        Args:
            predictions: ``[B, K, H, W]``, half precision included. Pixels with NaN or infinity get no label.
            valid: bool ``[B, H, W]``, False on padding; all True by default. Never inferred from the images.
            known: bool ``[B, H, W]``, True where ground truth was pasted, over pixels that the predictions still tell
                of: they take part in nothing, whatever an option says of padding, and get no label.
            ignore_index: Label of pixels that say nothing.
            group: Processes that label together, for labelers that look at the whole batch; every one of them must
                call. None does no communication at all.

        Raises:
            SampleError: `valid` or `known` has another shape, or these are no `Predictions`.
        """
        import torch

        from genaug.predictions import Predictions

        if not isinstance(predictions, Predictions):
            raise SampleError(
                f"a {type(predictions).__name__}",
                where=type(self).__name__,
                allowed="Predictions",
                hint="Say what the numbers mean, which cannot be seen: Predictions(values, 'logits')",
            )
        shape = (len(predictions.values), *predictions.values.shape[2:])
        for name, mask in (("valid", valid), ("known", known)):
            if mask is not None and tuple(mask.shape) != shape:
                raise SampleError(f"{name} of shape {tuple(mask.shape)}", where=type(self).__name__, allowed=str(shape))
        with torch.no_grad(), torch.autocast(predictions.values.device.type, enabled=False):
            usable = predictions.finite() if valid is None else predictions.finite() & valid
            usable = usable if known is None else usable & ~known
            clean = predictions.map(lambda v: torch.where(usable.unsqueeze(1), v, v.new_zeros(())))
            targets = self._label(clean, usable, ignore_index, group)
            return replace(
                targets,
                hard=targets.hard.masked_fill(~usable, ignore_index),
                weights=targets.weights.float().masked_fill(~usable, 0.0),
            )

    __call__ = label

    @abstractmethod
    def _label(
        self,
        predictions: Predictions,
        valid: torch.Tensor,
        ignore_index: int,
        group: torch.distributed.ProcessGroup | None,
    ) -> PseudoTargets:
        """Label finite predictions; pixels where `valid` is False are zeros, and will be ignored whatever they get."""


class Mixer(ABC):
    """A batch and a partner batch to a batch. Subclasses implement `_mix`."""

    #: What the partner is: other unlabelled images, labelled ones, or nothing at all.
    partner: Literal["unlabeled", "labeled", "none"] = "unlabeled"
    #: Whether it looks at `Batch.targets`, and so can only mix after labelling.
    needs_targets: bool = False

    def mix(self, batch: Batch, partner: Batch | None = None, *, rng: Rng) -> Batch:
        """Mix two batches of one size; the inputs stay untouched.

        Args:
            batch: Unlabelled images, with pseudo-labels or predictions.
            partner: As the attribute `partner` says; by default the batch itself in reversed order.
            rng: Source of every draw. A sample's draws depend on its number (`Batch.first`) alone.

        Raises:
            SampleError: Sizes differ, or something it needs is missing.
        """
        name = type(self).__name__
        if partner is None:
            if self.partner == "labeled":
                raise SampleError("no partner", where=name, allowed="a batch of labelled images")
            partner = batch if self.partner == "none" else batch.map(lambda value: value.flip(0))
        if batch.images.shape[1:] != partner.images.shape[1:]:
            found = f"batch {tuple(batch.images.shape)}, partner {tuple(partner.images.shape)}"
            raise SampleError(found, where=name, allowed="equal shapes but for the number of samples")
        if self.partner == "labeled" and partner.targets is None:
            raise SampleError("a partner without targets", where=name, allowed="a batch of labelled images")
        if self.needs_targets and batch.targets is None:
            raise SampleError("a batch without targets", where=name, hint="Mix after labelling (order: label-then-mix)")
        return self._mix(batch, partner, rng)

    __call__ = mix

    @abstractmethod
    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:
        """Return a new batch, usually by `genaug.mixture.Mixture.paste`."""


def _check_only_ignored(before: Mask | None, after: Mask, ignore_index: int, *, where: str) -> None:
    if before is None or after.shape != before.shape or after.dtype != np.uint8:
        raise SampleError(
            f"mask of type {after.dtype}, size {after.shape}",
            where=where,
            allowed=f"uint8 {None if before is None else before.shape}",
        )
    changed = after != before
    if np.any(after[changed] != ignore_index):
        raise SampleError(
            f"{int((after[changed] != ignore_index).sum())} pixels were given another class",
            where=where,
            allowed=f"pixels set to the ignore index {ignore_index}",
        )


def _refuse_in_worker(name: str) -> None:
    """Diffusion in a DataLoader worker fails late and badly (CUDA after fork, one model copy a worker)."""
    import sys

    data = sys.modules.get("torch.utils.data")
    if data is not None and data.get_worker_info() is not None:
        raise SampleError(
            f"{name}.generate was called inside a DataLoader worker",
            allowed="the main process",
            hint="Fill a store first with 'genaug generate' and draw from it with genaug_torch.StoreDataset",
        )
