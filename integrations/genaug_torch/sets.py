"""Label maps as sets of masks, and the loss that matches them with the queries of a mask classifier.

transformers has a `Mask2FormerLoss`, but it cannot serve here: it draws points from the global random state, knows no
pixel weights and no images that say nothing, waits for the device once an image and layer, and asks accelerate, not a
process group, for the number of masks. The tests compare with it where the two mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genaug.batch import Batch
from genaug.config import validate
from genaug.errors import SampleError, missing_dependency
from genaug.predictions import PseudoTargets, full
from genaug.rng import Rng
from genaug.step_config import LabelledSetLossConfig, SetLossConfig
from genaug_torch.losses import Group, inverse, processes, total
from genaug_torch.outputs import QueryLayer

SetTarget = dict[str, Tensor]


def to_set_targets(targets: PseudoTargets, *, ignore_index: int = 255) -> list[SetTarget]:
    """Turn label maps into one binary mask for every class that an image has among its kept pixels.

    Kept are pixels with a weight above 0 and another label than the ignore index.

    Args:
        targets: Hard labels ``[B, H, W]`` and their weights; soft targets are not looked at.
        ignore_index: Label of pixels that say nothing.

    Returns:
        For every image ``labels`` int64 ``[N]`` in ascending order, ``masks`` bool ``[N, H, W]``, ``pixel_weight``
        float ``[H, W]``, 0 where a pixel is not kept. N is 0 for images without kept pixels.
    """
    kept = (targets.weights > 0) & (targets.hard != ignore_index)
    hard = targets.hard.masked_fill(~kept, -1)
    present = torch.zeros(len(hard), int(hard.max()) + 2, dtype=torch.bool, device=hard.device)
    present = present.scatter_(1, hard.flatten(1) + 1, True)[:, 1:]  # the first column is "not kept"
    labels = torch.split(present.nonzero()[:, 1], present.sum(1).tolist())
    weights = targets.weights.masked_fill(~kept, 0.0)
    return [
        {"labels": own, "masks": image == own.view(-1, 1, 1), "pixel_weight": weight}
        for own, image, weight in zip(labels, hard, weights, strict=True)
    ]


def hard_targets(batch: Batch, ignore_index: int = 255) -> PseudoTargets:
    """Return the targets of a labelled batch; padding is ignored.

    Raises:
        SampleError: The batch has soft targets, or none.
    """
    if batch.targets is None or batch.soft is not None:
        raise SampleError(
            "soft targets, which are no set of masks" if batch.soft else "a batch without targets",
            where="set loss",
            allowed="hard targets",
            hint="Set labeler.target to 'hard', or the term's loss to 'pixel'",
        )
    weights = torch.ones_like(batch.images[:, 0]) if batch.weights is None else batch.weights
    hard = batch.targets if batch.valid is None else batch.targets.masked_fill(~batch.valid, ignore_index)
    return PseudoTargets(hard, weights)


@dataclass(frozen=True)
class _Truth:
    """Targets of a batch at the random points, padded to the image with the most; shared by all decoder layers."""

    counts: list[int]
    labels: Tensor  # int64 [B, N]
    masks: Tensor  # float [B, N, P]
    weights: Tensor  # float [B, P]
    points: Tensor  # float [P, 2] in [0, 1], x first


class SetLoss(nn.Module):
    """Class and mask losses of queries that are matched with targets (DETR, Mask2Former; SENSE's weights).

    In every decoder layer by itself, the targets of an image get the queries that cost least in sum. The loss of a
    layer adds the classes' cross-entropy, where queries without a target should say "no object", and for every pair
    binary cross-entropy and dice loss at random points; the layers' losses are added up. The points of the matching are
    uniform; of a loss, the share `importance` lies where its mask is least sure.

    Where this differs from Mask2Former: points are drawn once a call, for all images, masks and layers alike (a fourth
    of the work, and any split of the batch over processes gives the same); the cross-entropy is divided by the weights
    of all processes; images without targets take no part. With ``conf_mask="intended"`` a point counts in cost and
    loss if all pixels that it interpolates are kept, and a mask's cross-entropy is the mean over its points that count.

    Args:
        options: Keywords as in `genaug.step_config.SetLossConfig`, with the same defaults (SENSE, unlabelled images).

    Raises:
        ConfigError: An unknown keyword, or a value out of range.
        MissingDependencyError: scipy is not installed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        try:
            from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
        except ImportError:
            raise missing_dependency("scipy", "ot", where="set loss") from None
        self._assign = linear_sum_assignment
        self.options: SetLossConfig = validate(SetLossConfig, options, where="set loss")

    @classmethod
    def labelled(cls, **options: Any) -> Self:
        """Return the loss with Mask2Former's own weights, as in `genaug.step_config.LabelledSetLossConfig`."""
        return cls(**validate(LabelledSetLossConfig, options, where="set loss").model_dump())

    def forward(
        self, layers: Sequence[QueryLayer], targets: Sequence[SetTarget], *, rng: Rng, group: Group | None = None
    ) -> Tensor:
        """Return the loss, one number; 0 with gradients of 0 where no image has a target.

        Args:
            layers: Class logits ``[B, Q, K + 1]`` and mask logits ``[B, Q, h, w]`` of every decoder layer, any float
                dtype; computed in float32 (float64 stays). "No object" is the last class.
            targets: For every image ``labels``, ``masks`` and ``pixel_weight``, see `to_set_targets`.
            rng: Stream of the random points, the same in every process.
            group: Processes that share the batch; every one must call. Numbers of targets are summed over them, and
                the result is scaled by how many they are, as in `reduce_losses`.

        Raises:
            SampleError: Shapes that do not fit, or a label that is no class of the model.
        """
        for classes, masks in layers:
            if classes.ndim != 3 or masks.ndim != 4 or not len(targets) == len(classes) == len(masks):
                found = f"class logits {tuple(classes.shape)}, mask logits {tuple(masks.shape)}, {len(targets)} targets"
                raise SampleError(found, where="set loss", allowed="[B, Q, K + 1], [B, Q, h, w] and B targets")
        _check_labels(targets, layers[0][0].shape[2] - 1)
        with torch.autocast(layers[0][0].device.type, enabled=False):
            precise = [(full(classes), full(masks)) for classes, masks in layers]
            truth = self._truth(targets, precise[0][1], rng)
            per_target, per_weight = self._factors(truth.counts, precise[0][0], group)
            matches = self._match(precise, truth)
            losses = [
                self.options.class_weight * per_weight * self._class_loss(classes, truth, queries)
                + per_target * self._mask_loss(masks, truth, queries)
                for (classes, masks), queries in zip(precise, matches, strict=True)
            ]
            return torch.stack(losses).sum()

    def _truth(self, targets: Sequence[SetTarget], like: Tensor, rng: Rng) -> _Truth:
        options = self.options
        drawn = int(options.points * options.oversample) + options.points - self._unsure
        points = torch.rand(drawn, 2, generator=rng.torch()).to(like)
        counts = [len(target["labels"]) for target in targets]
        most = max([1, *counts])  # at least one, so that no tensor is empty
        labels = torch.zeros(len(counts), most, dtype=torch.int64, device=like.device)
        masks = like.new_zeros(len(counts), most, drawn)
        weights = like.new_ones(len(counts), drawn)
        for i, (target, count) in enumerate(zip(targets, counts, strict=True)):
            labels[i, :count] = target["labels"]
            if count:
                masks[i, :count] = _sample(target["masks"].unsqueeze(0).to(like), points)[0]
            if options.conf_mask == "intended":
                weight = target["pixel_weight"].to(like)
                both = torch.stack([weight, (weight == 0).to(like)]).unsqueeze(0)
                weight, beside = _sample(both, points, padding="border")[0]
                weights[i] = weight.masked_fill(beside > 0, 0.0)  # no trace of ignored pixels, not even at their edges
        return _Truth(counts, labels, masks, weights, points)

    def _factors(self, counts: list[int], like: Tensor, group: Group | None) -> tuple[Tensor, Tensor]:
        """Return what sums over targets, and sums over the weights of queries, are multiplied by."""
        queries = like.shape[1]
        matched = [min(count, queries) for count in counts if count]
        weight = sum(number + self.options.no_object * (queries - number) for number in matched)
        sums = total(like.new_tensor([float(sum(counts)), float(weight)]), group)
        # Processes times the sum, not Mask2Former's maximum of 1 and the mean: equal, unless processes outnumber
        # targets, and then still the gradients that one process would have.
        scale = processes(group) / sums.clamp_min(1)
        return scale[0], scale[1]

    @torch.no_grad()
    def _match(self, layers: Sequence[QueryLayer], truth: _Truth) -> Tensor:
        """Return int64 ``[layers, B, N]``: the query of every target, -1 for padding and targets without one."""
        # One transfer for all images and layers: every one makes the device wait.
        costs = torch.stack([self._costs(classes, masks, truth) for classes, masks in layers]).cpu()
        worst = torch.finfo(costs.dtype).max  # queries that are no numbers come last
        table = costs.nan_to_num(nan=worst, posinf=worst, neginf=worst).numpy()
        matches = torch.full((len(layers), *truth.labels.shape), -1)
        for layer, images in enumerate(table):
            for i, count in enumerate(truth.counts):
                queries, targets = self._assign(images[i, :, :count])
                matches[layer, i, torch.from_numpy(targets)] = torch.from_numpy(queries)
        return matches.to(truth.labels.device)

    def _costs(self, classes: Tensor, masks: Tensor, truth: _Truth) -> Tensor:
        """Return what each query would cost for each target, ``[B, Q, N]``."""
        options, count = self.options, self.options.points
        queries = classes.shape[1]
        chosen = truth.labels.unsqueeze(1).expand(-1, queries, -1)
        cost = -options.cost_class * classes.softmax(-1)[..., :-1].gather(2, chosen)
        logits = _sample(masks, truth.points[:count])
        weights, there = truth.weights[:, None, :count], truth.masks[..., :count].mT
        if options.cost_mask:  # the cross-entropy is softplus(x) - x t
            sums = (F.softplus(logits) * weights).sum(-1, keepdim=True) - (logits * weights) @ there
            cost = cost + options.cost_mask * sums * inverse(weights.sum(-1, keepdim=True))
        if options.cost_dice:
            inside = logits.sigmoid() * weights
            sums = inside.sum(-1, keepdim=True) + weights @ there
            cost = cost + options.cost_dice * (1 - (2 * inside @ there + 1) / (sums + 1))
        return cost

    def _class_loss(self, classes: Tensor, truth: _Truth, queries: Tensor) -> Tensor:
        """Return the weighted sum of the queries' cross-entropy."""
        images, number, nothing = classes.shape[0], classes.shape[1], classes.shape[2] - 1
        targets = torch.full((images, number + 1), nothing, device=classes.device)  # the last takes what is not matched
        targets.scatter_(1, queries.where(queries >= 0, number), truth.labels)
        targets = targets[:, :number]
        counted = (queries >= 0).any(1, keepdim=True).to(classes)
        weights = torch.where(targets == nothing, self.options.no_object, 1.0).to(classes) * counted
        return (F.cross_entropy(classes.mT, targets, reduction="none") * weights).sum()

    def _mask_loss(self, masks: Tensor, truth: _Truth, queries: Tensor) -> Tensor:
        """Return the sum of the pairs' mask losses, each with its factor."""
        options = self.options
        images = torch.arange(len(masks), device=masks.device).unsqueeze(1)
        logits = _sample(masks[images, queries.clamp_min(0)], truth.points)
        weights = truth.weights.unsqueeze(1).expand_as(logits)
        candidates = logits.shape[2] - (options.points - self._unsure)
        sure = logits.detach()[..., :candidates].abs().masked_fill(weights[..., :candidates] == 0, torch.inf)
        rest = torch.arange(candidates, logits.shape[2], device=masks.device).expand(*queries.shape, -1)
        index = torch.cat([sure.topk(self._unsure, largest=False, sorted=False).indices, rest], 2)
        logits, there, weights = (values.gather(2, index) for values in (logits, truth.masks, weights))
        entropy = F.binary_cross_entropy_with_logits(logits, there, weight=weights, reduction="none").sum(-1)
        loss = options.mask_weight * entropy * inverse(weights.sum(-1))
        if options.dice_weight:
            inside, there = logits.sigmoid() * weights, there * weights
            dice = 1 - (2 * (logits.sigmoid() * there).sum(-1) + 1) / (inside.sum(-1) + there.sum(-1) + 1)
            loss = loss + options.dice_weight * dice
        return loss.masked_fill(queries < 0, 0.0).sum()

    @property
    def _unsure(self) -> int:
        """Number of points of a loss that are chosen because the mask is not sure of them."""
        return int(self.options.points * self.options.importance)


def _check_labels(targets: Sequence[SetTarget], classes: int) -> None:
    """Refuse labels that are no class of the model; a GPU waits for it here, instead of failing for good later."""
    labels = torch.cat([target["labels"] for target in targets]).cpu() if targets else torch.empty(0)
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise SampleError(
            f"label {int(wrong[0])} for a model of {classes} classes",
            where="set loss",
            allowed=f"0 to {classes - 1}",
            hint="The class logits' last channel is 'no object' and counts as none; ignored pixels belong to no mask",
        )


def _sample(maps: Tensor, points: Tensor, *, padding: str = "zeros") -> Tensor:
    """Return maps ``[B, C, h, w]`` at points ``[P, 2]`` as ``[B, C, P]``, bilinearly."""
    grid = (2 * points - 1).expand(len(maps), -1, -1).unsqueeze(2)
    return F.grid_sample(maps, grid, padding_mode=padding, align_corners=False).squeeze(3)
