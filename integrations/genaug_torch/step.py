"""One training step with unlabelled images: teacher, views, labels, mixing and losses, as a recipe says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.batch import Batch
from genaug.config import read_recipe
from genaug.errors import ConfigError, SampleError, warn_caller
from genaug.labels import MAX_ID
from genaug.predictions import Predictions, PseudoTargets, full
from genaug.recipe import Recipe, load_recipe
from genaug.registry import default_registry
from genaug.rng import Rng
from genaug.sizes import scaled_size
from genaug.step_config import TermConfig
from genaug_torch.inputs import Views, check_classes, check_labeled, weak_and_strong
from genaug_torch.kept import KeptWatch
from genaug_torch.losses import Group, processes, supervised_loss, unlabeled_loss
from genaug_torch.outputs import OutputKind, OutputReader, QueryOrder, warn_of_kind
from genaug_torch.processes import group_of, images_before, share_buffers, wrapper_of
from genaug_torch.regularizers import Given, LabeledOutput, Regularizers
from genaug_torch.rounds import Round
from genaug_torch.running_averages import averages_held
from genaug_torch.sets import hard_targets, to_set_targets
from genaug_torch.state import counters
from genaug_torch.teacher import EmaTeacher, unwrap
from genaug_torch.terms import check_terms, set_losses, takes_strong, term_name
from genaug_torch.views import StrongView
from genaug_torch.weak_views import WeakView

Backward = Callable[[Tensor], object]
Figures = dict[str, Tensor]
Part = Callable[[], Figures]  # losses by name, of one forward pass
#: More calls than any accumulation of gradients has before the first `update`.
FORGOTTEN = 500


class SemiSupervisedStep:
    """Adds a self-training method to a hand-written training loop.

    ::

        step = SemiSupervisedStep(model, "upc", kind="logits", num_classes=21)
        for (images, labels), unlabeled in zip(labeled_loader, unlabeled_loader):
            loss, figures = step(images, labels, unlabeled)
            loss.backward(); optimizer.step(); optimizer.zero_grad()
            step.update()                        # the teacher follows
        evaluate(step.teacher.model)

    The step calls the student several times: on the labelled images, and once for every term and scale. It sets no
    mode and holds no gradient. Under DistributedDataParallel every process calls it the same number of times; sums and
    counts are taken over all processes, so the gradients are those of one process with the whole batch. Exceptions:
    BatchNorm sees the images of its own process unless it is SyncBatchNorm (all teachers label with the buffers of the
    first process's, unless DistributedDataParallel has ``broadcast_buffers=False``), mixers find partners among the
    images of their process, and ``supervised.ohem_min_kept`` counts the pixels of one process.

    Args:
        model: The student: any module, also wrapped by DistributedDataParallel or ``torch.compile``. The teacher begins
            as a copy of it, on its device: load weights and move it first.
        recipe: Name of a ready recipe, a recipe file, a table, or a `Recipe`.
        kind: What the model's numbers mean: ``logits``, ``log_probs``, ``probs``, ``scores`` or ``queries``.
        num_classes: K; may be left out if the recipe has a class table.
        ignore_index: Label of pixels that do not count, outside ``0 .. K - 1``; the class table's by default, or 255.
        key: Where the dense output is, see `OutputReader`.
        align_corners: How your model resizes: for outputs of a lower stride, teacher's and student's, and for the
            images of a term's ``scales``. Labelers that ask the teacher at several sizes have an option of that name.
        query_order: For ``kind="queries"``, see `OutputReader`.
        mean: Of the normalisation that the loader has done, see `StrongView` and `WeakView`.
        std: Likewise.
        strong_view: Your own photometric transform, see `StrongView`.
        overrides: ``dotted.key=value`` changes of the recipe, e.g. ``["teacher.ema=0.99"]``.
        regularizers: Losses of your own beside the labelled one, by name: a `Regularizer`, or a pair of its weight and
            the `Regularizer`. They share its forward pass.
        group: Processes that share the batch; by default those of DistributedDataParallel, if the model is wrapped.

    Raises:
        ConfigError: Something in the recipe or the arguments is wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: str | Path | Mapping[str, Any] | Recipe,
        *,
        kind: OutputKind,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        key: Any = None,
        align_corners: bool = False,
        query_order: QueryOrder = "resize-scores",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        strong_view: Callable[[Tensor], Tensor] | None = None,
        overrides: Sequence[str] = (),
        regularizers: Mapping[str, Given] | None = None,
        group: Group | Literal["auto"] | None = "auto",
    ) -> None:
        self.recipe = online_recipe(recipe, num_classes, overrides)
        config, labels = self.recipe.config, self.recipe.labels
        self.num_classes = len(labels.ids)
        self.ignore_index = labels.ignore_index if ignore_index is None else ignore_index
        if 0 <= self.ignore_index < self.num_classes:
            raise ConfigError(
                f"{self.ignore_index}, which is a class: labels here are class indices, 0 to {self.num_classes - 1}",
                where="ignore_index",
                hint="Pass another ignore_index, and labels with it",
            )
        if not isinstance(model, nn.Module):
            raise ConfigError(f"a {type(model).__name__}", where="model", allowed="a torch.nn.Module")
        self.read = OutputReader(kind, key=key, order=query_order, align_corners=align_corners)
        self.model = model
        self.teacher = EmaTeacher(model, decay=config.teacher.ema, ramp=config.teacher.ramp)
        self.strong = StrongView(config.views, mean=mean, std=std, transform=strong_view)
        self.weak = WeakView(config.views, mean=mean, std=std, ignore_index=self.ignore_index)
        context = self.recipe.context()
        self.labeler = self.recipe.labeler(context) if config.terms else None
        self.mixers = self.recipe.mixers(context)
        self.group: Group | None = group_of(model) if group == "auto" else group
        self.calls, self.updates = 0, 0
        self.batch = {"processes": processes(self.group), "unlabeled": 0}  # of the last call, for the record
        self._watch = KeptWatch()
        self._looked = False  # at the first predictions and views, for warnings
        check_terms(config.terms, self.mixers)
        taken = ["supervised", *(term_name(term, number) for number, term in enumerate(config.terms))]
        self.regularizers = Regularizers(regularizers or {}, taken)
        self.set_losses = set_losses(config.supervised, config.terms, kind)
        if self.set_losses:
            _warn_of_hidden_layers(model)

    # ------------------------------------------------------------------ the step

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        unlabeled: Views | None = None,
        *,
        valid: Tensor | None = None,
        labeled_valid: Tensor | None = None,
        donors: tuple[Tensor, Tensor] | None = None,
        backward: Backward | None = None,
    ) -> tuple[Tensor, Figures]:
        """Return the loss of one step, and figures.

        Args:
            images: Labelled images, float ``[B, 3, H, W]``, as the model takes them.
            labels: int64 ``[B, H, W]`` class indices in ``0 .. K - 1``, or the ignore index. Any number of pixels may
                be ignored: with scribbles the labelled loss is cross-entropy over the labelled pixels alone.
            unlabeled: Weak views ``[M, 3, H, W]`` of unlabelled images; or weak and strong views of the same geometry,
                as a pair. Terms that mix weak views (``mix_at: weak``) make their strong ones themselves. None only
                during burn-in or for recipes without terms. With ``views.weak`` the step makes the weak views, of
                these and of all other images, and of labels and padding alike.
            valid: bool ``[M, H, W]``, False where `unlabeled` is padding.
            labeled_valid: bool ``[B, H, W]``, False where `images` are padding, whatever `labels` say there.
            donors: Other labelled images ``[N, 3, H, W]`` and their labels, from which mixers paste in place of
                `images`: the whole labelled set, or a batch of a second loader over it.
            backward: Called with each part of the loss as soon as it is known, e.g. ``Tensor.backward`` or
                ``accelerator.backward``. The activations of only one forward pass are then in memory at a time; the
                gradients are the same, because the loss is a sum. The returned loss is then without a graph.

        Returns:
            The loss, and figures without gradients: ``loss/supervised``, ``loss/<regularizer>``, ``loss/<term>``, and
            of the pseudo-labels ``kept``, ``kept_by_class``, ``flip_rate``, ``live_classes``, ``entropy``,
            ``nan_rows`` (see `label_figures`).

        Raises:
            SampleError: Shapes, labels or numbers of classes do not fit.
            ConfigError: There are donors, but no mixer that pastes labelled images.
        """
        labeled = self._labeled(images, labels, labeled_valid, "labeled")
        parts: list[Part] = [partial(self._supervised, labeled)]
        figures: Figures = {}
        if donors is not None and not any(mixer and mixer.partner == "labeled" for mixer in self.mixers):
            raise ConfigError("no mixer of the recipe pastes labelled images", where="donors")
        if self.recipe.config.terms and self.updates >= self.recipe.config.supervised.burn_in:
            partner = labeled if donors is None else self._labeled(*donors, None, "donors")
            parts += self._terms(partner, unlabeled, valid, figures)
        losses: list[Tensor] = []
        for number, part in enumerate(parts):
            with self._synchronised(backward is None or number == len(parts) - 1):
                found = part()
                loss = torch.stack(list(found.values())).sum()
                if backward is not None:
                    # Autocast would take products that the forward pass made in float32 in half precision.
                    with torch.autocast(loss.device.type, enabled=False):
                        backward(loss)
                    loss = loss.detach()
            losses.append(loss)
            for name, value in found.items():
                key = f"loss/{name}"
                figures[key] = figures.get(key, torch.zeros_like(value.detach())) + value.detach()
        self.calls += 1
        if self.calls == FORGOTTEN and not self.updates:
            warn_caller(f"{FORGOTTEN} steps without an update(): the teacher does not follow the model")
        return torch.stack(losses).sum(), figures

    def update(self) -> None:
        """Let the teacher follow; call it after every step of the optimizer."""
        self.teacher.update(self.model)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return teacher, counters, the recipe's name and `batch`; the student is the caller's.

        ``batch`` is a record that nothing reads back: the number of processes, and of the unlabelled images that they
        had together in the last call. Targets of labelers that look at the whole batch (``sense``) depend on them.
        """
        teacher, name = self.teacher.state_dict(), self.recipe.config.name
        counts = {"calls": self.calls, "updates": self.updates, "batch": dict(self.batch)}
        return {"recipe": name, "teacher": teacher, **counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
            ConfigError: The state is not one of such a step, or that of another recipe or model. The step is then as it
                was before.
        """
        calls, updates = counters(state, self.recipe.config.name)
        self.teacher.load_state_dict(state["teacher"])
        self.calls, self.updates = calls, updates

    # ------------------------------------------------------------------ parts

    @property
    def _rng(self) -> Rng:
        return Rng(self.recipe.config.seed).child("step", self.calls)

    def _labeled(self, images: Tensor, labels: Tensor, valid: Tensor | None, name: str) -> Batch:
        """Return weak views of labelled images as a batch; what is padding or has no label weighs nothing."""
        check_labeled(images, labels, valid)
        if valid is not None:
            labels = labels.masked_fill(~valid, self.ignore_index)
        if not self.calls or labels.device.type == "cpu":  # once is enough to see a wrong class table
            check_classes(labels, self.num_classes, self.ignore_index)
        batch = Batch(images, labels, weights=(labels != self.ignore_index).float(), valid=valid)
        if self.recipe.config.views.weak == "none":
            return batch
        return self.weak(replace(batch, first=self._before(len(batch))[0]), rng=self._rng.child("weak", name))

    def _supervised(self, labeled: Batch) -> Figures:
        config, labels = self.recipe.config.supervised, labeled.targets
        assert labels is not None  # `_labeled` gave them
        output = self._student(labeled.images)
        dense = cache(partial(self._read, output, labeled.size))
        if config.loss == "set":
            loss = self._set_loss("supervised", output, hard_targets(labeled, self.ignore_index))
        else:
            ohem = (config.ohem_threshold, config.ohem_min_kept) if config.loss == "ohem" else None
            loss = supervised_loss(dense(), labels, ignore_index=self.ignore_index, ohem=ohem, group=self.group)
        found = {"supervised": config.weight * loss}
        if self.regularizers:
            valid = torch.ones_like(labels, dtype=torch.bool) if labeled.valid is None else labeled.valid
            pixels = self.strong.pixels(labeled.images)
            seen = LabeledOutput(pixels, dense().map(full), labels, valid, self.ignore_index, output)
            found |= self.regularizers(seen, group=self.group)
        return found

    def _terms(self, partner: Batch, unlabeled: Views | None, valid: Tensor | None, figures: Figures) -> Iterator[Part]:
        """Return the parts of the loss on unlabelled images; a term has one part a scale."""
        assert self.labeler is not None  # the recipe has terms
        images, given = weak_and_strong(unlabeled, made_here=self.recipe.config.views.weak != "none")
        first, self.batch["unlabeled"] = self._before(len(images))
        batch = Batch(images, valid=valid, first=first)
        batch = self.weak(batch, rng=self._rng.child("weak", "unlabeled"))
        wrapper = wrapper_of(self.model)
        if wrapper is not None and wrapper.broadcast_buffers and self.group is not None:
            share_buffers(self.teacher.model, self.group)  # as it does with the student's: all label with one teacher
        with torch.no_grad():
            predictions = self.labeler.predict(self._teacher, batch.images)
        self._same_classes(predictions.num_classes, "teacher")
        if not self._looked:
            self._looked = True
            warn_of_kind(predictions)
            if given is not None and not any(takes_strong(term) for term in self.recipe.config.terms):
                warn_caller("no term of the recipe uses the strong views that were passed")
        rng = self._rng
        a_round = Round(
            self.labeler,
            self.strong,
            replace(batch, predictions=predictions),
            partner,
            rng,
            self.ignore_index,
            self.group,
            given,
            figures,
            self._watch,
        )
        for number, (term, mixer) in enumerate(zip(self.recipe.config.terms, self.mixers, strict=True)):
            name = term_name(term, number)
            mixed = cache(partial(a_round.mixed, term, mixer, rng.child("term", number)))
            for scale in term.scales:
                yield partial(self._term, name, term, mixed, scale)

    def _term(self, name: str, term: TermConfig, batch: Callable[[], Batch], scale: float) -> Figures:
        mixed = batch()
        with averages_held(self.model, held=term.batch_norm == "hold"):
            output = self._student(mixed.images, scale, term.multiple_of)
        if term.loss == "set":
            loss = self._set_loss(name, output, hard_targets(mixed, self.ignore_index))
        else:
            predictions = self._read(output, mixed.size)
            loss = unlabeled_loss(
                predictions, mixed, normalizer=term.normalizer, ignore_index=self.ignore_index, group=self.group
            )
        return {name: loss * (term.weight / len(term.scales))}

    def _set_loss(self, name: str, output: object, targets: PseudoTargets) -> Tensor:
        layers = self.read.layers(output)
        self._same_classes(layers[0][0].shape[-1] - 1)
        sets = to_set_targets(targets, ignore_index=self.ignore_index)
        rng = self._rng.child("points", name)
        loss: Tensor = self.set_losses[name](layers, sets, rng=rng, group=self.group)
        return loss

    def _student(self, images: Tensor, scale: float = 1.0, multiple_of: int | None = None) -> object:
        if self.labeler is not None and scale != 1:
            size, multiple = (int(images.shape[2]), int(images.shape[3])), multiple_of or self.labeler.multiple_of
            scaled = scaled_size(size, scale, multiple, max_side=self.labeler.max_side, where="labeler.max_side")
            images = F.interpolate(images, size=scaled, mode="bilinear", align_corners=self.read.align_corners)
        return self.model(images)

    def _read(self, output: object, size: tuple[int, int]) -> Predictions:
        predictions = self.read(output, size)
        self._same_classes(predictions.num_classes)
        return predictions

    def _same_classes(self, number: int, who: str = "model") -> None:
        if number != self.num_classes:
            raise SampleError(
                f"the {who} has {number} classes, the labels {self.num_classes}",
                where="SemiSupervisedStep",
                allowed="equal numbers",
                hint="Check the last layer, and num_classes or the recipe's labels; drop a background output yourself",
            )

    def _teacher(self, images: Tensor) -> Predictions:
        return self.read(self.teacher(images), (int(images.shape[2]), int(images.shape[3])))

    def _before(self, count: int) -> tuple[int, int]:
        """Return how many images the processes before this one have, and how many all have."""
        return images_before(count, self.group, next(iter(self.teacher.model.parameters())).device)

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[object]:
        """Let DistributedDataParallel reduce gradients after the last of several backward passes only."""
        no_sync = getattr(self.model, "no_sync", None)
        return contextlib.nullcontext() if last or no_sync is None else no_sync()


def online_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    num_classes: int | None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Return a recipe with a class table: its own, or one of `num_classes` nameless classes.

    Raises:
        ConfigError: It has none and `num_classes` is None, or the two differ.
    """
    if isinstance(recipe, Recipe):
        if overrides:
            raise ConfigError("overrides for a recipe that is loaded already", where="overrides")
        loaded = recipe
    else:
        table, root = read_recipe(recipe, default_registry())
        if "labels" not in table:
            if num_classes is None:
                raise ConfigError("is missing", where="num_classes", hint="The recipe has no class table")
            if not 1 <= num_classes <= MAX_ID:
                raise ConfigError(f"{num_classes}", where="num_classes", allowed=f"1 to {MAX_ID}")
            table["labels"] = {"names": {number: f"class {number}" for number in range(num_classes)}}
        loaded = load_recipe(table, overrides, root=root)
    if num_classes is not None and len(loaded.labels.ids) != num_classes:
        raise ConfigError(f"{num_classes}, but the recipe has {len(loaded.labels.ids)} classes", where="num_classes")
    return loaded


def _warn_of_hidden_layers(model: nn.Module) -> None:
    config = getattr(unwrap(model), "config", None)
    if getattr(config, "use_auxiliary_loss", False) and not getattr(config, "output_auxiliary_logits", True):
        told = "only the last decoder layer is returned, and gets a loss: set model.config.output_auxiliary_logits=True"
        warn_caller(told)
