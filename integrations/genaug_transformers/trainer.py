"""A transformers.Trainer that trains with a `SemiSupervisedStep`: teacher, checkpoints, evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from genaug.errors import ConfigError, SampleError
from genaug_torch import SemiSupervisedStep, supervised_loss
from genaug_torch.epochs import hand_on

StepMaker = Callable[[nn.Module], SemiSupervisedStep]
Evaluated = Literal["both", "student", "teacher"]
#: Beside the weights of a checkpoint.
STATE_FILE = "self_training.pt"


class SelfTrainingTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose training loss is a `SemiSupervisedStep`.

    ::

        trainer = SelfTrainingTrainer(
            model,
            TrainingArguments("out", ...),
            step=partial(SemiSupervisedStep, recipe="upc", kind="logits", num_classes=21),
            train_dataset=WithUnlabeled(labeled, unlabeled),
            data_collator=SegmentationCollator(),
        )

    The teacher follows after every step of the optimizer that was not skipped. Its weights and the step's counters are
    in every checkpoint (``self_training.pt``): a run that goes on from one is the run that was never stopped. With
    ``load_best_model_at_end`` the teacher is that of the best checkpoint, too.

    With gradient accumulation the loss is the mean of those of the micro-batches, each normalised by itself. The
    wrapped model runs under the Trainer's autocast, labels and losses are computed in float32. Several processes need
    DistributedDataParallel: FSDP and DeepSpeed cut weights into pieces that a teacher cannot be made of.

    To combine it with a Trainer of your own: ``class Mine(SelfTrainingTrainer, YourTrainer)``; ``compute_loss`` and
    ``prediction_step`` are then these.

    Args:
        args: As those of Trainer; its `model` is the student, and ``data_collator`` usually a `SegmentationCollator`.
        step: Makes the step of a model, e.g. a ``functools.partial`` of `SemiSupervisedStep`. It is called here, which
            finds mistakes early, and again when `train` begins, with the model as the Trainer wraps it.
        evaluated: Who is evaluated: the student as ``eval_...`` and the teacher as ``eval_teacher_...``, or one of
            them as ``eval_...``.
        more: As those of Trainer.

    Attributes:
        step: The step; ``step.teacher.model`` is the teacher, which has the student's ``save_pretrained``.

    Raises:
        ConfigError: FSDP, DeepSpeed, a loss function of your own, or label smoothing.
    """

    def __init__(self, *args: Any, step: StepMaker, evaluated: Evaluated = "both", **more: Any) -> None:
        super().__init__(*args, **more)
        if evaluated not in get_args(Evaluated):
            raise ConfigError(f"{evaluated!r}", where="evaluated", allowed=", ".join(get_args(Evaluated)))
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            found = "FSDP or DeepSpeed, which cut the weights into pieces"
            raise ConfigError(found, where="SelfTrainingTrainer", allowed="one device, or DistributedDataParallel")
        for name, given in (("compute_loss_func", self.compute_loss_func), ("label smoothing", self.label_smoother)):
            if given is not None:
                raise ConfigError("the step has the loss", where=name, hint="Use the step's regularizers for more")
        # Otherwise models whose forward takes any keyword get losses that are not divided by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        # Batches are the step's: what the model's forward takes, by which Trainer would drop entries, says nothing.
        self.args.remove_unused_columns = False
        self.evaluated, self._make = evaluated, step
        self.step = step(self.model)
        self._checkpoint: str | None = None
        self._asks_teacher = False
        self._figures: Mapping[str, Tensor] = {}
        self.add_callback(_Follower(self))

    # ------------------------------------------------------------------ training

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, *args: Any, **more: Any) -> Any:
        """Train, or go on from a checkpoint, as `Trainer.train`.

        Raises:
            ConfigError: The checkpoint has no teacher, or that of another recipe or model.
        """
        if resume_from_checkpoint is True:
            self._checkpoint = get_last_checkpoint(self.args.output_dir)  # if there is none, Trainer says so
        else:
            resume_from_checkpoint = str(resume_from_checkpoint) if resume_from_checkpoint else None
            self._checkpoint = resume_from_checkpoint
        return super().train(resume_from_checkpoint, *args, **more)

    def begin(self) -> None:
        """Make the step of the model as the Trainer has wrapped it, and take up a checkpoint's; `train` calls it."""
        del self.step  # its teacher takes as much memory as the new one
        self.step = self._make(self.model_wrapped)
        if self._checkpoint is not None:
            self.restore(self._checkpoint)

    def restore(self, folder: str | Path) -> None:
        """Take up student, teacher and counters of a checkpoint.

        Raises:
            ConfigError: There are none, or they are of another recipe or model.
        """
        path = Path(folder) / STATE_FILE
        if not path.is_file():
            hint = "Train on from its weights instead: load them into the model, and begin a new run"
            raise ConfigError("is missing: a checkpoint without self-training", where=str(path), hint=hint)
        self.step.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        if isinstance(self.model, PreTrainedModel):
            # Trainer (5.23) takes the names in the file literally and passes over all others with a warning; but
            # save_pretrained may write other names than the modules have (SegFormer), which only this reads back.
            saved = type(self.model).from_pretrained(folder, local_files_only=True)
            self.model.load_state_dict(saved.state_dict())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student, as `Trainer.save_model`; of checkpoints also the teacher and the step's counters."""
        super().save_model(output_dir, _internal_call=_internal_call)
        if _internal_call and output_dir is not None and self.args.should_save:
            path = Path(output_dir) / STATE_FILE
            partial = path.with_suffix(".part")
            torch.save(self.step.state_dict(), partial)
            partial.replace(path)

    def compute_loss(
        self,
        model: nn.Module,  # noqa: ARG002 -- the step has it
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002 -- losses are means
    ) -> Any:
        """Return the loss of a step on a batch of `SegmentationCollator`.

        Raises:
            SampleError: The batch has no images or no labels.
        """
        for name in ("pixel_values", "labels"):
            if name not in inputs:
                raise SampleError(
                    f"a batch without {name!r}, of {', '.join(inputs) or 'nothing'}",
                    where="SelfTrainingTrainer",
                    allowed="labelled images, and unlabelled ones beside them",
                    hint="Take SegmentationCollator() as data_collator, and WithUnlabeled(labeled, unlabeled) as data",
                )
        loss, self._figures = self.step(
            inputs["pixel_values"],
            inputs["labels"],
            inputs.get("unlabeled"),
            valid=inputs.get("valid"),
            labeled_valid=inputs.get("labeled_valid"),
        )
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **more: Any) -> None:
        """Log, with the losses by name and the figures of the pseudo-labels (``genaug/...``) of the last batch."""
        if "loss" in logs:
            scalars = {name: value for name, value in self._figures.items() if value.ndim == 0}
            logs = logs | {f"genaug/{name}": float(value) for name, value in scalars.items()}
        super().log(logs, *args, **more)

    # ------------------------------------------------------------------ evaluation

    @contextlib.contextmanager
    def asking_teacher(self) -> Iterator[None]:
        """Let `evaluate` and `predict` ask the teacher instead of the student."""
        before, self._asks_teacher = self._asks_teacher, True
        try:
            yield
        finally:
            self._asks_teacher = before

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate whom `evaluated` names, as `Trainer.evaluate`.

        ``loss`` is the cross-entropy of the labelled pixels, of queries too. ``compute_metrics`` is given class maps
        ``[N, H, W]`` at the size of the labels, not logits: for query models there are none.
        """
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        arguments = eval_dataset, ignore_keys
        if isinstance(given, dict) or self._asks_teacher:  # of several datasets, Trainer calls this for each
            return dict(super().evaluate(*arguments, metric_key_prefix))
        metrics: dict[str, float] = {}
        if self.evaluated != "teacher":
            metrics |= super().evaluate(*arguments, metric_key_prefix)
        if self.evaluated != "student":
            prefix = f"{metric_key_prefix}_teacher" if self.evaluated == "both" else metric_key_prefix
            with self.asking_teacher():
                metrics |= super().evaluate(*arguments, prefix)
        return metrics

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,  # noqa: ARG002 -- only classes leave here
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the cross-entropy, class maps int64 ``[B, H, W]`` at the labels' size, and the labels."""
        inputs = self._prepare_inputs(inputs)
        images, labels, loss = inputs["pixel_values"], inputs.get("labels"), None
        size = images.shape[2:] if labels is None else labels.shape[1:]
        with torch.no_grad(), self.compute_loss_context_manager():
            output = (self.step.teacher.model if self._asks_teacher else model)(images)
            predictions = self.step.read(output, (int(size[0]), int(size[1])))
            if labels is not None:
                loss = supervised_loss(predictions, labels, ignore_index=self.step.ignore_index)
        return (loss, None, None) if prediction_loss_only else (loss, predictions.values.argmax(1), labels)


class _Follower(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer's step, its teacher and its data what happens."""

    def __init__(self, trainer: SelfTrainingTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.begin()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        # accelerate tells the sampler, and a dataset only if the sampler does not want to know.
        hand_on(self.trainer.train_dataset, int(state.epoch or 0))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if not self.trainer.accelerator.optimizer_step_was_skipped:
            self.trainer.step.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.trainer.restore(state.best_model_checkpoint)
