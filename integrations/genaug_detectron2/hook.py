"""Self-training as a hook: it puts the recipe's losses beside the model's, and keeps the teacher."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils.events import get_event_storage
from torch import nn

from genaug.errors import ConfigError, warn_caller
from genaug.recipe import Recipe
from genaug_detectron2.losses import TermLosses, TrainingModel, numbers
from genaug_detectron2.mapper import Mapper
from genaug_detectron2.network import Inputs, Network
from genaug_detectron2.stream import StreamLoader
from genaug_torch.outputs import OutputKind
from genaug_torch.processes import group_of
from genaug_torch.teacher import unwrap

#: Under what a checkpoint has the hook's state. detectron2 goes by the class's name.
STATE = "SelfTraining"


class SelfTraining(HookBase):  # type: ignore[misc]  # detectron2 has no types
    """Trains with a recipe: losses ``loss_genaug_<term>`` on unlabelled images, and a teacher that follows.

    Register it before the hooks that save and evaluate, and before ``resume_or_load``: what is saved is then the
    teacher after the step, and a resumed run goes on exactly. `SelfTrainingMixin` does both for ``DefaultTrainer``.

    Before training it puts a `TrainingModel` in the place of ``trainer.model`` and takes it away afterwards, so that
    ``SimpleTrainer``, ``AMPTrainer`` and trainers of your own run as they are, and checkpoints hold the plain model.
    Only ``after_step`` and its neighbours are used: under ``DefaultTrainer``, nobody calls ``after_backward``.

    Args:
        recipe: As for `genaug_torch.SemiSupervisedStep`. A recipe without terms, such as ``supervised``, only keeps the
            teacher. Its ``supervised.weight`` multiplies the model's own losses, its ``supervised.loss`` is not used.
        unlabeled: Loader of unlabelled inputs; not needed for a recipe without terms.
        num_classes: K of the semantic head; may be left out if the recipe has a class table.
        image_format: Channel order of the model, ``cfg.INPUT.FORMAT``: ``RGB`` or ``BGR``.
        ignore_index: Label that is no class; by default the head's ``ignore_value``.
        overrides: ``dotted.key=value`` changes of the recipe.
        kind: What the head's numbers are; by default queries for models with ``num_queries``, else logits.
    """

    def __init__(
        self,
        recipe: str | Path | Mapping[str, Any] | Recipe,
        unlabeled: StreamLoader | None = None,
        *,
        num_classes: int | None = None,
        image_format: str,
        ignore_index: int | None = None,
        overrides: Sequence[str] = (),
        kind: OutputKind | None = None,
    ) -> None:
        self.recipe, self.unlabeled, self.image_format = recipe, unlabeled, image_format
        self.num_classes, self.ignore_index, self.kind = num_classes, ignore_index, kind
        self.overrides = list(overrides)
        self.step: TermLosses | None = None
        self._replaced: nn.Module | None = None
        self._restored: Mapping[str, Any] | None = None

    @classmethod
    def from_config(cls, cfg: Any, mapper: Mapper | None = None) -> SelfTraining | None:
        """Build from ``cfg.GENAUG``, see `add_genaug_config`; None without a recipe.

        Args:
            cfg: The configuration.
            mapper: Of the unlabelled images; ``DatasetMapper(cfg)`` by default.
        """
        options, head = cfg.GENAUG, cfg.MODEL.SEM_SEG_HEAD
        if not options.RECIPE:
            return None
        return cls(
            options.RECIPE,
            StreamLoader.from_config(cfg, mapper) if options.UNLABELED else None,
            num_classes=head.NUM_CLASSES,
            image_format=cfg.INPUT.FORMAT,
            ignore_index=head.IGNORE_VALUE,
            overrides=options.OVERRIDES,
        )

    @property
    def teacher(self) -> nn.Module:
        """The teacher, a detectron2 model in evaluation mode; for ``inference_on_dataset`` and for saving.

        Raises:
            ConfigError: Training has not begun.
        """
        if self.step is None:
            raise ConfigError("there is none before training begins", where="teacher")
        model: nn.Module = self.step.teacher.model.model  # type: ignore[assignment]  # of a `Network`
        return model

    def eval_hook(self, period: int, test: Callable[[nn.Module], Any]) -> hooks.EvalHook:
        """Return a hook that evaluates the teacher as ``EvalHook`` does the model; results are ``teacher/...``.

        Register it after this one and before the writers. Evaluators that write files need a folder of their own, or
        they replace the model's.

        Args:
            period: In iterations; 0 evaluates once, after training.
            test: Gets the teacher and returns results, e.g. ``lambda teacher: do_test(cfg, teacher)``.
        """

        def evaluate() -> dict[str, Any]:
            results = test(self.teacher)
            return {"teacher": results} if results else {}

        return hooks.EvalHook(period, evaluate)

    # ------------------------------------------------------------------ called by the trainer

    def before_train(self) -> None:
        """Make the teacher and put the recipe's losses into the trainer's model."""
        self._check_alone()
        trainer = self.trainer
        student = trainer.model
        state = self.state_dict()  # of a checkpoint, or of an earlier call of train()
        network = Network(unwrap(student), image_format=self.image_format, ignore_index=self.ignore_index)
        self.step = step = TermLosses(
            network,
            self.recipe,
            kind=self.kind or network.kind,
            num_classes=self.num_classes,
            ignore_index=network.ignore_index,
            mean=network.mean,
            std=network.std,
            overrides=self.overrides,
            group=group_of(student),
        )
        if state:
            step.load_state_dict(state)
            self._restored = None
        elif trainer.start_iter > 0:
            found = f"resumed at iteration {trainer.start_iter} without a teacher: it begins as a copy of the model"
            warn_caller(f"{found}. Register SelfTraining before resume_or_load()")
        if isinstance(trainer.data_loader, StreamLoader):
            trainer.data_loader.start_at(trainer.start_iter)
        self._replaced = student
        trainer.model = TrainingModel(student, network, step, self._batches(step))
        terms = len(step.recipe.config.terms)
        logging.getLogger(__name__).info("genaug: recipe %s with %d terms", step.recipe.config.name, terms)

    def after_step(self) -> None:
        """Let the teacher follow, and hand the figures of the labels to the event storage."""
        step, model = self.step, self.trainer.model
        assert step is not None  # `before_train` made it
        step.update()
        found = numbers(model.figures)
        if found:
            get_event_storage().put_scalars(**{f"genaug/{name}": value for name, value in found.items()})

    def after_train(self) -> None:
        """Give the trainer its model back, also after an error."""
        if self._replaced is not None:
            self.trainer.model = self._replaced
            self._replaced = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the step, teacher included; detectron2 saves it by the name of this class."""
        if self._restored is not None:
            return dict(self._restored)
        return {} if self.step is None else self.step.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what a checkpoint holds; used when training begins, with the model's own weights loaded."""
        self._restored = state

    def _batches(self, step: TermLosses) -> Iterator[Inputs]:
        if not step.recipe.config.terms:
            return iter(())
        if self.unlabeled is None:
            raise ConfigError(
                f"the recipe {step.recipe.config.name!r} needs unlabelled images",
                where="SelfTraining",
                hint="Name their datasets in GENAUG.UNLABELED, or pass a StreamLoader",
            )
        self.unlabeled.start_at(step.calls)
        return iter(self.unlabeled)

    def _check_alone(self) -> None:
        # detectron2 keeps the state of the first hook of a name and forgets the others'.
        name = type(self).__qualname__
        if sum(type(hook).__qualname__ == name for hook in self.trainer._hooks) > 1:
            raise ConfigError("two hooks of this class: only one would be saved", where=name)


def save_teacher(checkpoint: str | Path, path: str | Path) -> None:
    """Write the teacher of a checkpoint as a model of its own, for ``MODEL.WEIGHTS`` of any script, genaug or not.

    Args:
        checkpoint: File that detectron2's checkpointer wrote while `SelfTraining` was registered.
        path: File to write, ``.pth``.

    Raises:
        ConfigError: The checkpoint holds no teacher.
    """
    found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state = found.get("trainer", {}).get("hooks", {}).get(STATE)
    if state is None:
        raise ConfigError("no teacher", where=str(checkpoint), allowed="a checkpoint of a run with SelfTraining")
    weights = _inner(state["teacher"])
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save({"model": weights}, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _inner(teacher: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return the weights of the model in a teacher's: an average has the network, which has the model."""
    outer = "module.model"
    weights = OrderedDict(
        (name.removeprefix(f"{outer}."), value) for name, value in teacher.items() if name.startswith(f"{outer}.")
    )
    # Versions of the modules: without them, MaskFormer's head takes the weights for those of its first version.
    versions = getattr(teacher, "_metadata", {})
    kept = {name: version for name, version in versions.items() if f"{name}.".startswith(f"{outer}.")}
    weights._metadata = {name[len(outer) + 1 :]: version for name, version in kept.items()}  # type: ignore[attr-defined]
    return weights
