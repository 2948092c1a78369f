"""Equations: guidance, timestep grids, DDIM. (The adaptive schedule is genaug_torch's: it belongs to training.)"""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings

from genaug_scribblegen.config import ADAPTIVE_LEVELS
from genaug_scribblegen.functional import (
    add_noise,
    ddim_step,
    guided,
    scaled_steps,
    timestep_grid,
)

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
SIGNAL = (1 - BETAS).cumprod(0)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0, 7.5])
def test_eq_6_is_classifier_free_guidance_with_one_plus_w(weight: float) -> None:
    conditional, null = torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    scale = 1 + weight
    torch.testing.assert_close(guided(conditional, null, weight), null + scale * (conditional - null))
    assert torch.equal(guided(conditional, null, 0.0), conditional)


@settings(max_examples=80, deadline=None)
@given(
    percent=st.integers(1, 100),
    steps=st.integers(1, 120),
    total=st.sampled_from([50, 1000]),
    grid=st.sampled_from(["paper", "released"]),
)
def test_grids_ascend_below_t(percent: int, steps: int, total: int, grid: str) -> None:
    times, first = timestep_grid(percent / 100, steps, total, grid)
    assert (times.diff() > 0).all()
    assert times.min() >= 0
    if grid == "paper":
        assert times.max() == first
    elif percent / 100 * total >= 2 * steps + 2:
        assert times.max() <= first
    assert max(int(times.max()), first) < total
    if percent / 100 * total >= steps + 1:
        assert len(times) == steps  # N steps at every encode ratio


def test_the_papers_grid_is_algorithm_1_in_whole_numbers() -> None:
    for percent, steps in [(50, 50), (29, 50), (70, 16), (100, 7), (35, 33)]:
        expected = [percent * 10 * n // steps - 1 for n in range(1, steps + 1)]
        times, first = timestep_grid(percent / 100, steps, 1000)
        assert times.tolist() == expected
        assert first == expected[-1] == percent * 10 - 1
    times, first = timestep_grid(0.002, 50, 1000)
    assert (times.tolist(), first) == ([0, 1], 1)  # coinciding timesteps are taken once


def test_the_released_grid_is_the_released_codes() -> None:
    for ratio, steps in [(0.5, 50), (1.0, 50), (0.3, 16)]:
        times, first = timestep_grid(ratio, steps, 1000, "released")
        expected = np.linspace(0, 1000 * ratio, steps + 1, dtype=np.int64)[:-1] + 1
        assert times.tolist() == expected.tolist()
        assert first == int(999 * ratio)
    assert timestep_grid(1.0, 50, 1000, "released")[0][-1] == 981
    assert timestep_grid(1.0, 50, 1000, "released")[1] == 999


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 5), (-0.1, 5), (1.01, 5), (0.5, 0)])
def test_no_grid_for(ratio: float, steps: int) -> None:
    with pytest.raises(ValueError, match="encode ratio"):
        timestep_grid(ratio, steps, 1000)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_step_is_diffusers_ddim(kind: str) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
        set_alpha_to_one=False, prediction_type=kind,
    )  # fmt: skip
    scheduler.set_timesteps(20)
    x, output = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    signal = scheduler.alphas_cumprod
    for t, before in [(951, 901), (401, 351), (51, 1), (1, 0)]:
        expected = scheduler.step(output, t, x).prev_sample
        torch.testing.assert_close(ddim_step(x, output, signal[t], signal[before], kind), expected, atol=1e-5, rtol=0)


def test_noise_and_velocity_say_the_same() -> None:
    z, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, before = SIGNAL[600], SIGNAL[500]
    x = add_noise(z, noise, a)
    velocity = a.sqrt() * noise - (1 - a).sqrt() * z
    expected = add_noise(z, noise, before)  # the true noise leads to the same image, less noisy
    torch.testing.assert_close(ddim_step(x, noise, a, before), expected)
    torch.testing.assert_close(ddim_step(x, velocity, a, before, "v_prediction"), expected)


def test_scaled_steps() -> None:
    assert [scaled_steps(r, 50) for r in (0.001, 0.5, 0.7, 1.0)] == [1, 25, 35, 50]
    whole = len(ADAPTIVE_LEVELS) * 50
    assert sum(scaled_steps(r, 50) for r in ADAPTIVE_LEVELS) == 0.75 * whole  # 25 % fewer
