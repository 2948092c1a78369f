"""Presets against the exact solution of the sampling equation, known for Gaussian mixtures in one dimension."""

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler

from genaug_diffusion.schedulers import DEFAULT_STEPS, make_scheduler

MEANS, WIDTH = torch.tensor([-1.2, 0.3, 1.5], dtype=torch.float64), 0.25
CONFIG = PNDMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
).config


def epsilon(x, alpha):
    """The noise that a perfect model predicts for data of the mixture."""
    variance = alpha * WIDTH**2 + 1 - alpha
    centres = alpha.sqrt() * MEANS
    weights = torch.softmax(-((x[:, None] - centres) ** 2) / (2 * variance), dim=1)
    score = (weights * (centres - x[:, None])).sum(1) / variance
    return -(1 - alpha).sqrt() * score


def exact(x, start, alphas):
    """Where the flow takes x: it keeps ranks, so quantiles of the noisy mixture go to those of the clean one."""
    grid = torch.linspace(-5, 5, 200_001, dtype=torch.float64)

    def cumulative(alpha):
        width = (alpha * WIDTH**2 + 1 - alpha).sqrt()
        return torch.special.ndtr((grid[:, None] - alpha.sqrt() * MEANS) / width).mean(1).numpy()

    ranks = np.interp(x.numpy(), grid.numpy(), cumulative(alphas[start]))
    return torch.from_numpy(np.interp(ranks, cumulative(torch.tensor(1.0)), grid.numpy()))


def error(preset, steps, noise):
    scheduler = make_scheduler(preset, CONFIG)
    scheduler.set_timesteps(steps)
    alphas = scheduler.alphas_cumprod.double()
    start = int(scheduler.timesteps[0])
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(x, t)
        x = scheduler.step(epsilon(inputs, alphas[int(t)]), t, x).prev_sample
    return float((x - exact(noise, start, alphas)).abs().median())


@pytest.fixture(scope="module")
def noise():
    return torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_fast_lies_between_plms_and_ddim_with_50_steps(noise):
    errors = [error(preset, steps, noise) for preset, steps in (("plms", 50), ("fast", 20), ("ddim", 50))]
    assert errors == sorted(errors)
    assert DEFAULT_STEPS == {"plms": 50, "fast": 20, "ddim": 50}


@pytest.mark.parametrize("preset", ["plms", "fast", "ddim"])
def test_more_steps_come_closer(preset, noise):
    assert error(preset, 100, noise) < 0.5 * error(preset, 10, noise)
