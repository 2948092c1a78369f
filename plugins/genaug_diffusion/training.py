"""One training loop for everything that learns on top of a frozen diffusion model: resumable to the bit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from tqdm.auto import tqdm

from genaug.errors import AdapterError, ConfigError
from genaug.recipe import digest
from genaug.rng import Rng
from genaug.store.files import make_folder, sync_folder, write_whole
from genaug_diffusion.adapter_folder import TAG
from genaug_diffusion.config import TrainingOptions

CHECKPOINT = "checkpoint.safetensors"
_START_OVER = "Put the file back, or delete this one file: the training starts over, with the same seed"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a training batch; everything random about it is decided here.

    Args:
        index: Example number.
        flip: Mirror left-right.
        timestep: Diffusion timestep.
        seed: Seed of its noise (and whatever else the task draws).
    """

    index: int
    flip: bool
    timestep: int
    seed: int


class DenoisingTask(Protocol):
    """What the trainer trains: examples grouped by size, and the loss of a batch."""

    @property
    def sizes(self) -> Sequence[Any]:
        """One key per example; a batch never mixes keys."""
        ...

    @property
    def timesteps(self) -> int:
        """Number of diffusion timesteps."""
        ...

    def losses(self, model: nn.Module, rows: Sequence[Row]) -> torch.Tensor:
        """Return float32 losses ``[len(rows)]``; `model` is the (possibly wrapped) network to call."""
        ...


@dataclass(slots=True)
class TrainingResult:
    """What came out of a training.

    Args:
        losses: Mean batch loss of every step.
        validation: ``(step, held-out loss)`` pairs.
        best_step: Step whose weights are in place at the end.
        stopped_early: True if the held-out loss stopped it.
        resumed_from: Step the training was resumed from, 0 if it was not.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    stopped_early: bool = False
    resumed_from: int = 0

    def summary(self) -> dict[str, Any]:
        """Return what an adapter's training record says of it."""
        return {
            "steps": len(self.losses),
            "best_step": self.best_step,
            "stopped_early": self.stopped_early,
            "final_loss": _mean(self.losses[-100:]),
            "held_out_loss": min((loss for _, loss in self.validation), default=None),
        }


class AdapterTrainer:
    """AdamW over a few parameters of a frozen model, one process or many.

    Every step's rows come from ``rng.child("step", step)`` and the whole state is in one checkpoint file, so a training
    that was killed at any moment and resumed ends with the same bits on a CPU, and on a GPU as far as its kernels are
    deterministic. With several processes
    (``accelerate launch``, ``torchrun``) each takes its share of the same rows.

    Args:
        model: The network that `task` calls.
        parameters: Name -> trainable parameter of it, in a fixed order.
        task: Examples and loss.
        options: Hyper-parameters.
        folder: Where the checkpoint is kept.
        rng: Stream of this training.
        identity: Hash of the data and the base model; a checkpoint of another identity is refused.
        train: Example numbers to train on.
        held_out: Example numbers for the held-out loss.
        on_checkpoint: Called as ``(step, result)`` on the main process with each checkpoint (previews, curves).
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        task: DenoisingTask,
        options: TrainingOptions,
        folder: Path,
        *,
        rng: Rng,
        identity: str,
        train: Sequence[int],
        held_out: Sequence[int] = (),
        on_checkpoint: Callable[[int, TrainingResult], None] | None = None,
    ) -> None:
        from accelerate import Accelerator
        from diffusers.training_utils import cast_training_params

        if not train:
            raise ConfigError("no example to train on", where="generator.training", hint="Lower training.holdout")
        self.task, self.options, self.folder, self.rng, self.identity = task, options, folder, rng, identity
        self.train, self.held_out, self.on_checkpoint = list(train), list(held_out), on_checkpoint
        self.dtype = next(p.dtype for p in model.parameters() if not p.requires_grad)
        self.parameters = dict(parameters)
        cast_training_params(model, torch.float32)
        self.device = device = next(model.parameters()).device
        # The dtype is the base's and the device the model's own, whatever a launcher exports.
        self.accelerator = Accelerator(mixed_precision="no", cpu=device.type == "cpu")
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.model: nn.Module = self.accelerator.prepare_model(model, device_placement=False)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.best: dict[str, torch.Tensor] = {}
        if options.batch_size % self.accelerator.num_processes:
            raise ConfigError(
                f"batch_size {options.batch_size} with {self.accelerator.num_processes} processes",
                where="generator.training.batch_size",
                allowed="a multiple of the number of processes",
            )

    # ------------------------------------------------------------------ the loop

    def run(self) -> TrainingResult:
        """Train to the end, resuming if the folder holds a checkpoint of the same training."""
        result = self._resume()
        start, total = len(result.losses), self.options.steps
        # Said only where there is no bar at all: elsewhere it is for --quiet to say.
        hidden: dict[str, Any] = {} if self.accelerator.is_main_process else {"disable": True}
        bar = tqdm(total=total, initial=start, desc="adapt", unit="step", **hidden)
        with bar:
            for step in range(start, total):
                if result.stopped_early:
                    break
                result.losses.append(self._step(step))
                bar.update()
                bar.set_postfix(loss=f"{_mean(result.losses[-50:]):.4f}", refresh=False)
                done = step + 1
                if self.held_out and (done % self.options.validate_every == 0 or done == total):
                    self._validate(done, result)
                if done % self.options.checkpoint_every == 0 or done == total or result.stopped_early:
                    self._checkpoint(done, result)
        if self.best:
            with torch.no_grad():
                for name, value in self.best.items():
                    self.parameters[name].copy_(value)
        else:
            result.best_step = len(result.losses)
        return result

    def _step(self, step: int) -> float:
        rows = self.draw_rows(step)
        mine = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        size = self.options.micro_batch_size or len(mine)
        parts = [mine[i : i + size] for i in range(0, len(mine), size)]
        self.model.train()
        total = torch.zeros((), device=self.device)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            sync = contextlib.nullcontext() if last else self.accelerator.no_sync(self.model)
            with sync, self._autocast():
                loss = self.task.losses(self.model, part).sum() / len(mine)
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
        if self.options.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(list(self.parameters.values()), self.options.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate_at(step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        value = float(self.accelerator.reduce(total, reduction="mean"))
        # float16's scaler skips steps whose gradients overflow; the loss itself must be finite there too.
        if not math.isfinite(value):
            raise AdapterError(
                f"the loss is {value} at step {step}", where="adapt", hint="Lower training.learning_rate"
            )
        return value

    def draw_rows(self, step: int) -> list[Row]:
        """Return the rows of a step: examples with replacement, all of one size, uniform timesteps."""
        generator = self.rng.child("step", step).numpy()
        first = self.train[int(generator.integers(len(self.train)))]
        group = [i for i in self.train if self.task.sizes[i] == self.task.sizes[first]]
        indices = [first, *(group[int(j)] for j in generator.integers(len(group), size=self.options.batch_size - 1))]
        return [
            Row(
                index,
                bool(generator.random() < self.options.flip_probability),
                int(generator.integers(self.task.timesteps)),
                int(generator.integers(2**63 - 1)),
            )
            for index in indices
        ]

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    # ------------------------------------------------------------------ held-out loss

    @torch.no_grad()
    def _validate(self, step: int, result: TrainingResult) -> None:
        """Measure on the same noise and timesteps every time, so that two values can be compared."""
        self.model.eval()
        levels = 8
        size, values = self.options.micro_batch_size or levels, list[float]()
        for index in self.held_out:
            seed = self.rng.child("held out", index).integer()
            rows = [
                Row(index, False, (2 * i + 1) * self.task.timesteps // (2 * levels), seed + i) for i in range(levels)
            ]
            with self._autocast():
                for i in range(0, levels, size):
                    values += self.task.losses(self.model, rows[i : i + size]).tolist()
        # One process decides for all: roundings differ between devices, and one that stopped alone would hang the rest.
        loss = float(broadcast(torch.tensor(_mean(values), device=self.device)))
        best = min((v for _, v in result.validation), default=float("inf"))
        result.validation.append((step, loss))
        if loss < best:
            result.best_step = step
            self.best = {n: p.detach().clone() for n, p in self.parameters.items()}
        patience = self.options.patience
        behind = [v for s, v in result.validation if s > result.best_step]
        result.stopped_early = patience is not None and len(behind) >= patience

    # ------------------------------------------------------------------ checkpoints

    def _fingerprint(self) -> str:
        """Return what must agree for a checkpoint to be this training's."""
        options = self.options.decisive()
        if not self.options.depends_on_steps:
            options.pop("steps")  # more steps may go on from a checkpoint
        shapes = {n: list(p.shape) for n, p in self.parameters.items()}
        return digest([self.identity, options, shapes, self.train, self.held_out, repr(self.rng)])

    def _adam_step(self) -> float:
        state = self.optimizer.state.get(next(iter(self.parameters.values())))
        return float(state["step"]) if state else 0.0

    def _checkpoint(self, step: int, result: TrainingResult) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {"losses": torch.tensor(result.losses, dtype=torch.float64)}
        for name, parameter in self.parameters.items():
            tensors[f"parameter.{name}"] = parameter.detach()
            # Empty while float16's scaler has skipped every step so far.
            for key in ("exp_avg", "exp_avg_sq"):
                if parameter in self.optimizer.state:
                    tensors[f"{key}.{name}"] = self.optimizer.state[parameter][key]
            if name in self.best:
                tensors[f"best.{name}"] = self.best[name]
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        about = {
            "fingerprint": self._fingerprint(),
            "tensors": _tensors_hash(tensors),
            "adam_step": self._adam_step(),
            "validation": result.validation,
            "best_step": result.best_step,
            "stopped_early": result.stopped_early,
            "scaler": self.scaler.state_dict(),
        }
        make_folder(self.folder)
        # Pictures come first: killed between the two, the same step is done and drawn again.
        if self.on_checkpoint is not None:
            self.on_checkpoint(step, result)
        write_whole(self.folder / CHECKPOINT, save(tensors, metadata={"genaug": json.dumps(about)}), tag=TAG)
        sync_folder(self.folder)

    def _read_checkpoint(self, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return what a checkpoint says of itself, and its tensors; raise `AdapterError` if it is damaged."""
        try:
            with safe_open(path, "pt") as file:
                about: dict[str, Any] = json.loads(file.metadata()["genaug"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
            fingerprint = about["fingerprint"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise AdapterError(f"damaged: cannot be read ({error})", where=str(path), hint=_START_OVER) from error
        if fingerprint != self._fingerprint():
            raise AdapterError(
                "the folder holds the checkpoint of another training",
                where=str(path),
                hint="Delete the checkpoint to start over, or use another output folder",
            )
        # Checkpoints written before there was a hash have none; they go on as they did.
        if about.get("tensors") not in (None, _tensors_hash(tensors)):
            raise AdapterError("damaged: its content is not what was written", where=str(path), hint=_START_OVER)
        return about, tensors

    def _resume(self) -> TrainingResult:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return TrainingResult()
        about, tensors = self._read_checkpoint(path)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"parameter.{name}"])
                if f"exp_avg.{name}" in tensors:
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(about["adam_step"]),
                        "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
                        "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
                    }
                if f"best.{name}" in tensors:
                    self.best[name] = tensors[f"best.{name}"].to(parameter.device)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(about["scaler"])
        losses = tensors["losses"].tolist()
        validation = [(int(s), float(v)) for s, v in about["validation"]]
        return TrainingResult(losses, validation, about["best_step"], about["stopped_early"], len(losses))


def _tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of float tensors on the CPU, names included."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode() + b"\0" + tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
