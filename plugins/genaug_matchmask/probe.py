"""Gradient Probe: which layers does layout-to-image training change? (MatchMask, its Sect. on the gradient probe)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from tqdm.auto import tqdm

from genaug.errors import ConfigError
from genaug.rng import Rng
from genaug_diffusion.training import Row
from genaug_matchmask.attention import LayoutIgnoringProcessor, RectifiedAttnProcessor
from genaug_matchmask.task import LayoutTask

Mode = Literal["finetune", "gradient"]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Scores of a probe.

    Args:
        scores: Weight name -> one score per epoch: relative change ``||theta - theta'|| / ||theta'||`` in mode
            ``finetune``, ``||sum of gradients|| / ||theta'||`` in mode ``gradient``.
        mode: How the scores were made.
        optimizer: ``adamw``, ``sgd`` or ``none``. The ranking depends on it: after a few Adam steps the change tracks
            ``1 / rms(theta)``, so it is part of every result.
    """

    scores: Mapping[str, tuple[float, ...]]
    mode: Mode
    optimizer: str

    def select(self, share: float) -> list[str]:
        """Return the weights among the top `share` in **every** epoch, by falling mean score.

        Args:
            share: Part of all scored weights, in (0, 1].
        """
        if not 0 < share <= 1:
            raise ConfigError(f"share {share}", where="probe", allowed="more than 0, at most 1")
        count = max(1, round(share * len(self.scores)))
        epochs = len(next(iter(self.scores.values())))
        chosen = set(self.scores)
        for epoch in range(epochs):
            ranked = sorted(self.scores, key=lambda name: (-self.scores[name][epoch], name))
            chosen &= set(ranked[:count])
        return sorted(chosen, key=lambda name: (-sum(self.scores[name]), name))

    def by_type(self) -> dict[str, tuple[int, float]]:
        """Return layer type -> (number of weights, mean score over weights and epochs), by falling score."""
        grouped: dict[str, list[float]] = defaultdict(list)
        for name, values in self.scores.items():
            grouped[layer_type(name)].append(sum(values) / len(values))
        means = {kind: (len(v), sum(v) / len(v)) for kind, v in grouped.items()}
        return dict(sorted(means.items(), key=lambda item: -item[1][1]))


def layer_type(name: str) -> str:
    """Return what a weight is, without where: ``attn2.to_q``, ``time_emb_proj`` ..."""
    parts = [p for p in name.removesuffix(".weight").split(".") if not p.isdigit() and p not in _PLACES]
    return ".".join(parts[-2:] if parts[-1].startswith("to_") else parts)


_PLACES = {
    "down_blocks", "up_blocks", "mid_block", "attentions", "resnets", "transformer_blocks", "downsamplers",
    "upsamplers",
}  # fmt: skip


def layers_regex(names: Sequence[str], linears: Sequence[str]) -> str:
    """Return a regex for PEFT's ``target_modules`` (matched in full) that selects exactly these layers.

    A type of layer whose every member is selected becomes one short pattern; the rest are listed.

    Args:
        names: Weight or layer names; those that are no Linear (convolutions, norms) are left out.
        linears: Names of all Linears of the model.
    """
    chosen = {n.removesuffix(".weight") for n in names} & set(linears)
    members: dict[str, set[str]] = defaultdict(set)
    for layer in linears:
        members[_tail(layer)].add(layer)
    patterns, listed = [], []
    for tail in sorted({_tail(layer) for layer in chosen}):
        if members[tail] <= chosen:
            patterns.append(rf"(.*\.)?{re.escape(tail)}")
        else:
            listed += sorted(members[tail] & chosen)
    return "|".join([*patterns, *map(re.escape, listed)])


def _tail(layer: str) -> str:
    match = re.search(r"(?:^|\.)((?:attn\d\.to_\w+(?:\.0)?)|ff\.net\.[\d.]+(?:\.proj)?|[A-Za-z_]\w*)$", layer)
    return match.group(1) if match else layer


def probe(
    task: LayoutTask,
    unet: Any,
    *,
    mode: Mode,
    epochs: int,
    batch_size: int,
    rng: Rng,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    learning_rate: float = 1e-5,
) -> ProbeResult:
    """Score every weight matrix of the UNet; the UNet has its own weights again afterwards.

    Both modes train with *pure* rectified attention (``alpha = 0``), no adapter. ``finetune`` fine-tunes the whole
    UNet and measures how far each weight moved after every epoch (about 20 bytes per parameter: weights, their start,
    gradients and moments). ``gradient`` sums the gradients of each epoch and never steps (8 bytes): it ranks as
    ``finetune`` with SGD does; with AdamW the ranking differs.

    Args:
        task: Cached labelled samples.
        unet: The UNet behind `task`.
        mode: ``finetune`` or ``gradient``.
        epochs: Passes over the samples.
        batch_size: Images per step.
        rng: Stream of the probe.
        optimizer: For ``finetune``.
        learning_rate: For ``finetune``.
    """
    processors = dict(unet.attn_processors)
    weights = {n: p for n, p in unet.named_parameters() if p.ndim > 1 and float(p.detach().norm()) > 0}
    start = {n: p.detach().clone() for n, p in weights.items()} if mode == "finetune" else {}
    norms = {n: float(p.detach().float().norm()) for n, p in weights.items()}
    _rectify(unet)
    trained = [p.requires_grad_(True) for n, p in unet.named_parameters() if n in weights]
    stepper = _optimizer(trained, mode, optimizer, learning_rate)
    history: dict[str, list[float]] = {n: [] for n in weights}
    try:
        for epoch in tqdm(range(epochs), desc="probe", unit="epoch"):
            for rows in epoch_rows(task, epoch, batch_size, rng):
                torch.autograd.backward(task.losses(unet, rows).mean())
                if stepper is not None:
                    stepper.step()
                    stepper.zero_grad(set_to_none=True)
            for name, weight in weights.items():
                moved = weight.detach() - start[name] if stepper is not None else weight.grad
                history[name].append(0.0 if moved is None else float(moved.float().norm()) / norms[name])
                weight.grad = None
    finally:
        with torch.no_grad():
            for name, value in start.items():
                weights[name].copy_(value)
        unet.set_attn_processor(processors)
        unet.requires_grad_(False)
    return ProbeResult({n: tuple(v) for n, v in history.items()}, mode, optimizer if stepper is not None else "none")


def _optimizer(
    trained: list[nn.Parameter], mode: Mode, optimizer: str, learning_rate: float
) -> torch.optim.Optimizer | None:
    if mode == "gradient":
        return None
    if optimizer == "sgd":
        return torch.optim.SGD(trained, lr=learning_rate)
    return torch.optim.AdamW(trained, lr=learning_rate)


def _rectify(unet: Any) -> None:
    """Install rectified attention without fusion: alpha's bias so low that the original attention has weight zero."""
    processors: dict[str, Any] = {}
    for key, old in unet.attn_processors.items():
        path = key.removesuffix(".processor")
        if path.endswith(".attn2"):
            pure = RectifiedAttnProcessor(unet.get_submodule(path).query_dim).to(unet.device, unet.dtype)
            nn.init.constant_(pure.alpha.bias, -1e4)
            processors[key] = pure.requires_grad_(False)
        else:
            processors[key] = LayoutIgnoringProcessor(old)
    unet.set_attn_processor(processors)


def epoch_rows(task: LayoutTask, epoch: int, batch_size: int, rng: Rng) -> list[list[Row]]:
    """Return one epoch in batches of one size each: every sample once, in a drawn order, with a drawn timestep."""
    generator = rng.child("epoch", epoch).numpy()
    by_size: dict[Any, list[int]] = defaultdict(list)
    for index in generator.permutation(len(task.sizes)).tolist():
        by_size[task.sizes[index]].append(index)
    batches = []
    for indices in by_size.values():
        for i in range(0, len(indices), batch_size):
            part = indices[i : i + batch_size]
            draws = [(int(generator.integers(task.timesteps)), int(generator.integers(2**63 - 1))) for _ in part]
            batches.append([Row(j, False, t, s) for j, (t, s) in zip(part, draws, strict=True)])
    return batches
