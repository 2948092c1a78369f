"""UPC as a mixer: labelled patches over the patches that the teacher is least sure of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from genaug.batch import Batch
from genaug.config import validate
from genaug.errors import SampleError, warn_caller
from genaug.interfaces import Mixer
from genaug.mixture import Mixture
from genaug.rng import Rng
from genaug_upc.config import Reduce, UpcOptions
from genaug_upc.donors import MOSTLY, choose_donors, donor_orders
from genaug_upc.functional import entropy_map, ignored_share, margin_map, patch_masks, patch_ranks, patch_scores

if TYPE_CHECKING:
    from genaug.recipe import BuildContext

_WHERE = "mixer upc"


class UncertaintyPatchCutMix(Mixer):
    """UPC: Uncertainty-aware Patch CutMix (section 3 of the paper).

    The image is cut into ``grid x grid`` patches. The k patches of the largest summed uncertainty are replaced, at the
    same place, by those of a labelled image, pixels and labels. Where labels are pasted the weight is the labelled
    image's, 1 by default, and its ignored pixels stay ignored. Predictions stay the image's own, also inside the
    patches, where they are those of pixels that are gone: `Batch.provenance` is 1 there.

    A sample's draws come from ``rng.child(batch.first + i)`` alone: the number of patches, and per view a donor. The
    donors of one image differ when there are at least as many as views. A donor is drawn again, up to 8 times, if more
    than half of one of the patches it should give is ignored: padding, the ignore index, or a weight of 0.

    Args:
        grid: Patches per side, N; at most the shorter side of the image.
        ks: Numbers of patches to replace, each in ``0..grid**2``.
        ras: ``sample``: B results, k drawn from `ks` per image. ``expand``: ``B * len(ks)`` results, that of image b
            and number r at place ``b * len(ks) + r``.
        score: ``entropy``, ``margin``, or ``random`` patches. The oracle of the paper's Table 7 needs the truth, which
            a batch does not have: pass `functional.wrong_map` to `plan`.
        reduce: ``sum`` of a patch's pixels, or their ``mean``.
        ignore_index: Label of pixels that say nothing.

    Raises:
        ConfigError: An option out of range.
    """

    partner = "labeled"

    def __init__(
        self,
        *,
        grid: int = 4,
        ks: Sequence[int] = (2, 3, 5),
        ras: Literal["sample", "expand"] = "sample",
        score: Literal["entropy", "margin", "random"] = "entropy",
        reduce: Reduce = "sum",
        ignore_index: int = 255,
    ) -> None:
        given: dict[str, Any] = {"grid": grid, "ks": tuple(ks), "ras": ras, "score": score, "reduce": reduce}
        self.options: UpcOptions = validate(UpcOptions, given, where=_WHERE)
        self.ignore_index = ignore_index
        self._checked = False
        if grid**2 in self.options.ks:
            warn_caller(f"k = {grid**2} replaces whole images by labelled ones")

    @classmethod
    def from_config(cls, options: UpcOptions, context: BuildContext) -> Self:
        """Build from a recipe; the ignore index is that of its labels."""
        return cls(**options.model_dump(), ignore_index=context.labels.ignore_index)

    def plan(self, uncertainty: Tensor, partner: Batch, *, rng: Rng, first: int = 0) -> Mixture:
        """Decide what is pasted where, from any uncertainty map.

        For maps computed elsewhere: stored ones, the mean of two networks (CPS: one plan, both batches), or the oracle.
        ``plan(...).paste(batch, partner)`` carries the plan out.

        Args:
            uncertainty: ``[B, H, W]``, larger is less sure; 0 on padding.
            partner: M labelled images ``[M, 3, H, W]`` with targets.
            rng: As for `mix`.
            first: Number of the first sample, `Batch.first`.

        Raises:
            SampleError: Sizes differ, no targets, no donors, or a grid finer than the image.
        """
        if uncertainty.ndim == 3 and tuple(uncertainty.shape[1:]) != partner.size:
            found = f"uncertainty of shape {tuple(uncertainty.shape)}"
            raise SampleError(found, where=_WHERE, allowed=f"[B, H, W] of the donors' size {partner.size}")
        ranks = patch_ranks(patch_scores(uncertainty, self.options.grid, self.options.reduce))
        return self._plan(ranks, partner, [rng.child(first + i) for i in range(len(ranks))])

    def _plan(self, ranks: Tensor, partner: Batch, samples: Sequence[Rng]) -> Mixture:
        if partner.targets is None:
            raise SampleError("a partner without targets", where=_WHERE, allowed="a batch of labelled images")
        grid, device = self.options.grid, ranks.device
        ks = self._numbers(samples)
        views = ks.shape[1]
        orders = torch.stack([donor_orders(len(partner), views, sample) for sample in samples])
        ks, orders = ks.to(device, non_blocking=True), orders.to(device, non_blocking=True)
        chosen = ranks.unsqueeze(1) < ks.unsqueeze(2)  # [B, V, N * N]
        empty = ignored_share(partner.targets, grid, self.ignore_index, _counted(partner)).flatten(1) > MOSTLY
        unfit = (chosen.float() @ empty.float().T) > 0
        return Mixture(
            patch_masks(chosen.view(-1, grid, grid), partner.size),
            sources=torch.arange(len(ranks), device=device).repeat_interleave(views),
            donors=choose_donors(orders, unfit).flatten(),
        )

    def _numbers(self, samples: Sequence[Rng]) -> Tensor:
        """Return the number of patches of every view, int64 ``[B, V]``."""
        ks = torch.tensor(self.options.ks)
        if self.options.ras == "expand":
            return ks.expand(len(samples), -1)
        drawn = [torch.randint(len(ks), (1,), generator=sample.child("k").torch()) for sample in samples]
        return ks[torch.stack(drawn)]

    def _mix(self, batch: Batch, partner: Batch, rng: Rng) -> Batch:
        if not len(batch):
            raise SampleError("an empty batch", where=_WHERE, allowed="at least one image")
        if batch.targets is None:
            raise SampleError("a batch without targets", where=_WHERE, hint="Label it first, or fill it with ignored")
        samples = [rng.child(batch.first + i) for i in range(len(batch))]
        mixture = self._plan(patch_ranks(self._scores(batch, partner, samples)), partner, samples)
        views = len(mixture.sources) // len(batch)
        # With one view the predictions stay what they are: no copy of B * K * H * W numbers.
        given = replace(batch, predictions=None) if views == 1 else batch
        mixed = mixture.paste(given, replace(partner, predictions=None))
        predictions = batch.predictions if views == 1 else mixed.predictions
        return replace(mixed, predictions=predictions, first=batch.first * views)

    def _scores(self, batch: Batch, partner: Batch, samples: Sequence[Rng]) -> Tensor:
        grid, reduce = self.options.grid, self.options.reduce
        if self.options.score == "random":
            drawn = [torch.rand(grid, grid, generator=sample.child("patches").torch()) for sample in samples]
            return torch.stack(drawn).to(batch.images.device, non_blocking=True)
        if batch.predictions is None:
            hint = "Give Batch.predictions, or a map of your own to `plan`"
            raise SampleError("a batch without predictions", where=_WHERE, allowed="the teacher's", hint=hint)
        self._check_classes(partner, batch.predictions.num_classes)
        uncertainty = entropy_map if self.options.score == "entropy" else margin_map
        return patch_scores(uncertainty(batch.predictions, batch.valid), grid, reduce)

    def _check_classes(self, partner: Batch, classes: int) -> None:
        """Refuse labels that the teacher has no class for; on a GPU in the first batch only, as it has to wait."""
        if partner.targets is None or (self._checked and partner.targets.device.type != "cpu"):
            return
        self._checked = True
        labels = partner.targets
        unknown = ((labels < 0) | (labels >= classes)) & (labels != self.ignore_index)
        counted = _counted(partner)
        if counted is not None:
            unknown &= counted
        if bool(unknown.any()):
            found = f"label {int(labels[unknown][0])} in the labelled images"
            allowed = f"0 to {classes - 1}, the teacher's classes, and {self.ignore_index}"
            raise SampleError(found, where=_WHERE, allowed=allowed, hint="Use one class table for both")


def _counted(partner: Batch) -> Tensor | None:
    """Return where a labelled pixel counts, bool ``[M, H, W]``; None for everywhere.

    Ignored pixels may be told by their weight alone: a training loop need not share the recipe's ignore index.
    """
    if partner.weights is None:
        return partner.valid
    weighted = partner.weights > 0
    return weighted if partner.valid is None else weighted & partner.valid
