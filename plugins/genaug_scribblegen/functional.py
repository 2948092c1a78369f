"""The equations of ScribbleGen's sampling, on plain tensors."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Grid = Literal["paper", "released"]


def guided(conditional: Tensor, null: Tensor, weight: float) -> Tensor:
    """Return the guided prediction ``(1 + w) eps(c_s) - w eps(null)`` (paper, eq. 6).

    It equals classifier-free guidance ``null + s (conditional - null)`` with ``s = 1 + w``. Velocities may be given in
    place of noises: the two are related linearly at one timestep.

    Args:
        conditional: Prediction under the scribble, any shape.
        null: Prediction under the null condition.
        weight: w, at least 0.
    """
    return (1 + weight) * conditional - weight * null


def timestep_grid(ratio: float, steps: int, total: int, grid: Grid = "paper") -> tuple[Tensor, int]:
    """Return the timesteps to denoise at, and the one whose noise level sampling starts from.

    Args:
        ratio: Encode ratio in (0, 1].
        steps: N.
        total: T, timesteps of the base.
        grid: ``paper``: ``floor(ratio T n / N) - 1`` for n = 1..N (Algorithm 1, from 0), started from the last of them.
            ``released``: ``linspace(0, ratio T, N + 1)`` without its end, truncated, plus 1, started from
            ``int((T - 1) ratio)``, which is above them unless there are nearly as many steps as timesteps.

    Returns:
        Timesteps int64 ``[N]``, strictly ascending in ``[0, T)``; fewer where ``ratio T < N`` makes some coincide.

    Raises:
        ValueError: A ratio outside (0, 1], or no step.
    """
    if not 0 < ratio <= 1 or steps < 1:
        raise ValueError(f"encode ratio {ratio}, {steps} steps; allowed: a ratio in (0, 1], 1 step or more")
    if grid == "released":
        times = np.linspace(0, total * ratio, steps + 1).astype(np.int64)[:-1] + 1
        return torch.from_numpy(np.unique(times.clip(max=total - 1))), int((total - 1) * ratio)
    reach = Fraction(str(ratio)) * total  # exact: in binary, 0.29 * 100 is below 29
    ascending = sorted({max(0, int(reach * n / steps) - 1) for n in range(1, steps + 1)})
    return torch.tensor(ascending), ascending[-1]


def scaled_steps(ratio: float, steps: int) -> int:
    """Return the steps of ``steps_mode: scaled``: `steps` at encode ratio 1, in proportion below, at least one."""
    return max(1, round(ratio * steps))


def add_noise(reference: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """Return ``sqrt(a) z + sqrt(1 - a) noise``.

    Args:
        reference: z, scaled latents.
        noise: Standard normal, of the same shape.
        signal: a (``alphas_cumprod``), broadcast to it.
    """
    return signal.sqrt() * reference + (1 - signal).sqrt() * noise


def ddim_step(latents: Tensor, output: Tensor, signal: Tensor, previous: Tensor, kind: str = "epsilon") -> Tensor:
    """Return the latents one deterministic DDIM step (eta = 0) nearer to the image.

    Args:
        latents: x_t.
        output: Prediction of the UNet.
        signal: a at this timestep, broadcast to `latents`.
        previous: a at the next lower one.
        kind: What `output` is: ``epsilon`` or ``v_prediction``.
    """
    root, rest = signal.sqrt(), (1 - signal).sqrt()
    if kind == "v_prediction":
        image, noise = root * latents - rest * output, root * output + rest * latents
    else:
        image, noise = (latents - rest * output) / root, output
    return previous.sqrt() * image + (1 - previous).sqrt() * noise
