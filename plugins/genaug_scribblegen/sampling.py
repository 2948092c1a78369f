"""Algorithm 1: DDIM from a partly noised image, guided by the scribble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from genaug_scribblegen.functional import Grid, add_noise, ddim_step, guided, scaled_steps, timestep_grid


@dataclass(frozen=True, slots=True)
class Schedule:
    """How images are sampled from one base model.

    Args:
        signal: float32 ``[T]``, the base's ``alphas_cumprod``.
        kind: What its UNet predicts: ``epsilon`` or ``v_prediction``.
        steps: N.
        mode: N steps at every encode ratio, or in proportion to it.
        grid: See `timestep_grid`.
        leak_at_one: Start from the noised image at encode ratio 1 too.
    """

    signal: Tensor
    kind: str = "epsilon"
    steps: int = 50
    mode: Literal["fixed", "scaled"] = "fixed"
    grid: Grid = "paper"
    leak_at_one: bool = False

    def timesteps(self, ratio: float) -> tuple[Tensor, int]:
        """Return the timesteps of an encode ratio, ascending, and the one whose noise level it starts from."""
        steps = self.steps if self.mode == "fixed" else scaled_steps(ratio, self.steps)
        return timestep_grid(ratio, steps, len(self.signal), self.grid)

    def needs_reference(self, ratio: float) -> bool:
        """Return True if sampling at `ratio` looks at the real image."""
        return ratio < 1 or self.leak_at_one

    def start(self, ratio: float, noise: Tensor, reference: Tensor | None) -> Tensor:
        """Return what sampling starts from: the noised `reference`, or noise alone where it is not needed."""
        if not self.needs_reference(ratio):
            return noise
        assert reference is not None  # the caller asked `needs_reference`
        return add_noise(reference, noise, self.signal[self.timesteps(ratio)[1]].to(noise.device))


@torch.inference_mode()
def sample(
    network: nn.Module,
    schedule: Schedule,
    latents: Tensor,
    text: Tensor,
    hints: Tensor,
    ratios: Sequence[float],
    *,
    weight: float,
) -> Tensor:
    """Denoise a batch whose rows may have different encode ratios; every row takes the steps of its own.

    The step from the lowest timestep ends at the signal of timestep 0, as Stable Diffusion's own DDIM does.

    Args:
        network: A `ScribbleNetwork`.
        schedule: Of the base.
        latents: ``[B, C, h, w]`` float32, what `Schedule.start` returns.
        text: ``[B, T, D]``.
        hints: ``[B, C_hint, H, W]``.
        ratios: One encode ratio per row.
        weight: w of eq. 6; 0 runs no null half.

    Returns:
        Latents ``[B, C, h, w]`` float32, scaled as the UNet sees them.
    """
    device, latents = latents.device, latents.clone()
    signal = schedule.signal.to(device)[:, None, None, None]
    grids = [schedule.timesteps(ratio)[0].to(device) for ratio in ratios]
    for number in reversed(range(max(map(len, grids)))):
        rows = [row for row, grid in enumerate(grids) if number < len(grid)]
        some = slice(None) if len(rows) == len(grids) else torch.tensor(rows, device=device)
        time = torch.stack([grids[row][number] for row in rows])
        before = torch.stack([grids[row][number - 1] for row in rows]) if number else torch.zeros_like(time)
        now = latents[some]
        output = _predict(network, now, time, text[some], hints[some], weight)
        latents[some] = ddim_step(now, output, signal[time], signal[before], schedule.kind)
    return latents


def _predict(network: nn.Module, latents: Tensor, time: Tensor, text: Tensor, hints: Tensor, weight: float) -> Tensor:
    """Return the guided prediction; null and scribble go through the network in one batch, with the same text."""
    kept = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
    if weight == 0:
        return network(latents, time, text, hints, kept).float()  # type: ignore[no-any-return]
    double = [torch.cat([each, each]) for each in (latents, time, text, hints)]
    null, conditional = network(*double, torch.cat([~kept, kept])).float().chunk(2)
    return guided(conditional, null, weight)
