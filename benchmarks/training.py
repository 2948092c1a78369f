"""What the trainings of base models share: a loop with checkpoints, averaged weights and a log.

All randomness of a step follows from (seed, step), so a resumed run takes exactly the steps that an uninterrupted one
would have taken.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

CHECKPOINT_EVERY_S = 120.0


def save_atomic(value: Any, path: Path) -> None:
    """torch.save to a temporary name, then rename: a killed run leaves the old file or the new one."""
    partial = path.with_name(path.name + ".part")
    torch.save(value, partial)
    partial.replace(path)


class Log:
    """Loss averages, appended to a JSONL file; lines after the resumed step are cut off."""

    def __init__(self, path: Path, stage: str, start: int, every: int = 20) -> None:
        self.path, self.stage, self.every, self.started = path, stage, every, time.time()
        self.values: list[float] = []
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        rows = [row for row in rows if row["stage"] != stage or row["step"] <= start]
        self.offset = max((row["seconds"] for row in rows if row["stage"] == stage), default=0.0)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def add(self, step: int, loss: float, lr: float) -> float:
        """Record one step; returns the running average."""
        self.values.append(loss)
        mean = sum(self.values) / len(self.values)
        if step % self.every == 0:
            row = {"stage": self.stage, "step": step, "loss": round(mean, 5), "lr": round(lr, 7)}
            row["seconds"] = round(self.offset + time.time() - self.started, 1)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.values.clear()
        return mean


class Ema:
    """Running average of the trained weights; short at first, so that the start is forgotten."""

    def __init__(self, parameters: list[Tensor], decay: float = 0.9985) -> None:
        self.parameters, self.decay = parameters, decay
        self.shadow = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, self.parameters, 1 - decay)

    @torch.no_grad()
    def load(self, shadow: list[Tensor]) -> None:
        for mine, other in zip(self.shadow, shadow, strict=True):
            mine.copy_(other)


def step_generator(seed: int, step: int, device: str = "cpu") -> torch.Generator:
    """The generator of one step: nothing needs to be saved to resume exactly."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % 2**63)


def cosine(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(steps - warmup, 1)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def loop(
    name: str, args: argparse.Namespace, modules: list[nn.Module], optimiser: torch.optim.Optimizer, ema: Ema,
    steps: int, warmup: int,
) -> Iterator[tuple[int, Any]]:  # fmt: skip
    """Drive a training: yields (step, finish); call finish(loss) after backward. Checkpoints by time."""
    path, start = args.run_dir / f"{name}.ckpt", 0
    if args.resume and path.exists():
        state = torch.load(path, weights_only=True, map_location=args.device)
        start = int(state["step"])
        for module, weights in zip(modules, state["modules"], strict=True):
            module.load_state_dict(weights)
        optimiser.load_state_dict(state["optimiser"])
        ema.load(state["ema"])
    log, saved, peak = Log(args.run_dir / "training_log.jsonl", name, start), time.time(), optimiser.defaults["lr"]
    for step in (bar := tqdm(range(start, steps), desc=name, initial=start, total=steps, mininterval=10)):
        rate = cosine(step, steps, peak, warmup)
        for group in optimiser.param_groups:
            group["lr"] = rate

        def finish(loss: Tensor, step: int = step, rate: float = rate) -> None:
            nn.utils.clip_grad_norm_([p for module in modules for p in module.parameters() if p.grad is not None], 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            ema.update(step)
            bar.set_postfix(loss=f"{log.add(step + 1, loss.item(), rate):.4f}", refresh=False)

        yield step, finish
        if step + 1 == steps or time.time() - saved > CHECKPOINT_EVERY_S:
            save_atomic(
                {
                    "step": step + 1,
                    "modules": [module.state_dict() for module in modules],
                    "optimiser": optimiser.state_dict(),
                    "ema": ema.shadow,
                },
                path,
            )
            saved = time.time()
