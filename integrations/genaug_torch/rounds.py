"""What the student sees in one step: views, labels and mixtures, made once and when first asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from genaug.batch import Batch
from genaug.interfaces import Mixer, PseudoLabeler
from genaug.predictions import PseudoTargets
from genaug.rng import Rng
from genaug.step_config import TermConfig
from genaug_torch.figures import label_figures
from genaug_torch.kept import KeptWatch
from genaug_torch.losses import Group
from genaug_torch.views import StrongView


@dataclass
class Round:
    """One step's unlabelled images.

    Args:
        labeler: Makes targets of predictions.
        strong_view: Makes strong views.
        batch: Weak views with the teacher's predictions.
        labeled: Labelled images, the partner of mixers that want one.
        rng: Stream of this step.
        ignore_index: Label of pixels that say nothing.
        group: Processes that share the batch.
        given: Strong views that the caller has made, or None.
        figures: Gets the figures of the first labels that are made.
        watch: Is told how many there are.
    """

    labeler: PseudoLabeler
    strong_view: StrongView
    batch: Batch
    labeled: Batch
    rng: Rng
    ignore_index: int
    group: Group | None
    given: Tensor | None = None
    figures: dict[str, Tensor] = field(default_factory=dict)
    watch: KeptWatch = field(default_factory=KeptWatch)

    @cached_property
    def strong(self) -> Tensor:
        """Strong views of the images as they are, ``[B, 3, H, W]``."""
        if self.given is not None:
            return self.given
        return self.strong_view(self.batch.images, rng=self.rng.child("strong"), first=self.batch.first)

    @cached_property
    def targets(self) -> PseudoTargets:
        """Labels of the images as they are; shared by all terms that label before they mix."""
        return self.label(self.batch)

    def label(self, batch: Batch, known: Tensor | None = None) -> PseudoTargets:
        """Label the predictions of a batch but where ground truth was pasted, bool ``[B, H, W]``."""
        assert batch.predictions is not None  # `SemiSupervisedStep` asked the teacher
        given = {} if known is None else {"known": known}  # labelers with a `label` of their own may not have it
        targets = self.labeler.label(
            batch.predictions, valid=batch.valid, ignore_index=self.ignore_index, group=self.group, **given
        )
        if "kept" not in self.figures:
            valid = batch.valid
            if known is not None:
                valid = ~known if valid is None else valid & ~known
            self.figures.update(label_figures(targets, batch.predictions, valid, ignore_index=self.ignore_index))
            confidence = batch.predictions.image_confidence
            self.watch.look(self.figures["kept"], self.figures["nan_rows"], confidence)
        return targets

    def mixed(self, term: TermConfig, mixer: Mixer | None, rng: Rng) -> Batch:
        """Return the labelled and mixed batch of one term."""
        late = term.view == "strong" and term.mix_at == "weak"  # photometric changes come after mixing
        batch = self.batch
        if term.view == "strong" and not late:
            batch = replace(batch, images=self.strong)
        partner = self.labeled if mixer is not None and mixer.partner == "labeled" else None
        if mixer is None or term.order == "label-then-mix":
            made = self.targets
            batch = replace(batch, targets=made.hard, weights=made.weights, soft=made.soft)
            mixed = batch if mixer is None else mixer.mix(batch, partner, rng=rng.child("mix"))
        else:
            mixed = self._mix_then_label(batch, mixer, partner, rng.child("mix"))
        if not late:
            return mixed
        return replace(mixed, images=self.strong_view(mixed.images, rng=rng.child("strong"), first=mixed.first))

    def _mix_then_label(self, batch: Batch, mixer: Mixer, partner: Batch | None, rng: Rng) -> Batch:
        """Mix predictions, then label them; pasted ground truth stays what it is, and no labeler sees it."""
        if partner is None:
            mixed = mixer.mix(batch, rng=rng)
            made = self.label(mixed)
            return replace(mixed, targets=made.hard, weights=made.weights, soft=made.soft)
        unknown = torch.full((len(batch), *batch.size), self.ignore_index, device=batch.images.device)
        mixed = mixer.mix(replace(batch, targets=unknown), partner, rng=rng)
        assert mixed.provenance is not None  # `Mixture.paste` sets all three
        assert mixed.targets is not None
        assert mixed.weights is not None
        truth = mixed.provenance == 1
        made = self.label(mixed, truth)
        soft = made.soft
        if soft is not None:
            certain = soft.certain(mixed.targets)
            soft = soft.map(lambda own: torch.where(truth.unsqueeze(1), certain, own))
        return replace(
            mixed,
            targets=torch.where(truth, mixed.targets, made.hard),
            weights=torch.where(truth, mixed.weights, made.weights),
            soft=soft,
        )
