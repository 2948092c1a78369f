"""A recipe's losses on unlabelled images beside whatever losses a detectron2 model has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from genaug.errors import ConfigError, SampleError
from genaug_detectron2.network import Inputs, Network, Prepared
from genaug_torch.step import SemiSupervisedStep

PREFIX = "loss_genaug_"


class TermLosses(SemiSupervisedStep):
    """The terms of a recipe without its labelled loss, which is the model's own.

    Teacher, labels, mixing and state are those of `SemiSupervisedStep`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loss = self.recipe.config.supervised.loss
        if loss == "ohem":
            raise ConfigError(
                f"{loss!r}", where="supervised.loss", hint="The labelled loss is the detectron2 model's own"
            )
        self.needs_labels = any(mixer is not None and mixer.partner == "labeled" for mixer in self.mixers)

    @property
    def active(self) -> bool:
        """Whether unlabelled images count: there are terms, and the burn-in is over."""
        config = self.recipe.config
        return bool(config.terms) and self.updates >= config.supervised.burn_in

    def terms(self, labeled: Prepared, unlabeled: Prepared) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses by the names of their terms, with gradients, and figures; see `SemiSupervisedStep`.

        ``calls`` counts these calls, and so the batches of unlabelled images that were used.
        """
        partner = self._labeled(labeled.images, labeled.labels, labeled.valid, "labeled")
        losses: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        for part in self._terms(partner, unlabeled.images, unlabeled.valid, figures):
            for name, value in part().items():
                losses[name] = losses[name] + value if name in losses else value
        self.calls += 1
        return losses, figures


class TrainingModel(nn.Module):
    """What the trainer calls in place of the model: its losses, and those of the terms.

    Its only parameters are the model's; in evaluation mode it is the model. It is never saved: the checkpointer keeps
    the model itself.

    Args:
        student: The model as the trainer has it, also wrapped by DistributedDataParallel.
        network: Of the model inside.
        step: Teacher, labels and terms.
        unlabeled: Batches of unlabelled inputs; empty for a recipe without terms.
    """

    network: Network
    step: TermLosses
    unlabeled: Iterator[Inputs]

    def __init__(self, student: nn.Module, network: Network, step: TermLosses, unlabeled: Iterator[Inputs]) -> None:
        super().__init__()
        self.student = student
        # Not registered as a module: the teacher must stay in evaluation mode, and parameters must not appear twice.
        self.__dict__.update(network=network, step=step, unlabeled=unlabeled)
        self.figures: dict[str, Tensor] = {}  # of the last call

    def forward(self, batched_inputs: Any) -> Any:
        """Return losses by name while training, else what the model returns.

        Raises:
            SampleError: The recipe pastes labelled pixels, but the inputs have no ``sem_seg``.
        """
        if not self.training:
            return self.student(batched_inputs)
        losses = self._own(batched_inputs)
        self.figures = {}
        if not self.step.active:
            return losses
        if self.step.needs_labels and any("sem_seg" not in entry for entry in batched_inputs):
            raise SampleError(
                "labelled inputs without 'sem_seg'",
                where=f"recipe {self.step.recipe.config.name}",
                hint="Its mixer pastes labelled pixels: use a mapper for semantic segmentation",
            )
        # The terms ask the model inside DistributedDataParallel, whose own forward, of the labelled images, has made
        # the reduction ready; the one backward pass adds up all gradients before they are reduced.
        found, self.figures = self.step.terms(*self.network.prepare(batched_inputs, next(self.unlabeled)))
        return losses | {PREFIX + name: value for name, value in found.items()}

    def _own(self, batched_inputs: Any) -> dict[str, Tensor]:
        """Return the model's losses, with the recipe's weight."""
        losses = self.student(batched_inputs)
        if isinstance(losses, Tensor):
            losses = {"total_loss": losses}
        weight = self.step.recipe.config.supervised.weight
        return dict(losses) if weight == 1 else {name: value * weight for name, value in losses.items()}


def numbers(figures: dict[str, Tensor]) -> dict[str, float]:
    """Return those figures that are one number, read from the device at once."""
    single = {name: value.detach().float() for name, value in figures.items() if value.numel() == 1}
    if not single:
        return {}
    return dict(zip(single, torch.stack([v.reshape(()) for v in single.values()]).tolist(), strict=True))
