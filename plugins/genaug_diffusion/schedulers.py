"""Sampling presets over diffusers' schedulers, with the conversions that keep latents intact."""

from __future__ import annotations

from typing import Any, Literal

Preset = Literal["plms", "fast", "ddim"]

#: Steps each preset runs by default. "plms" is the paper's; the solver error of "fast" at 20 steps lies between those
#: of PLMS and DDIM at 50 on a model whose exact solution is known (test_schedulers.py).
DEFAULT_STEPS = {"plms": 50, "fast": 20, "ddim": 50}


def make_scheduler(preset: Preset, config: Any) -> Any:
    """Return a scheduler for `preset` with the noise schedule of a base model.

    Args:
        preset: ``plms`` (PNDM without Runge-Kutta warm-up, the paper's), ``fast`` (DPM-Solver++ 2M on Karras sigmas)
            or ``ddim``.
        config: The base model's scheduler config; the prediction type is kept.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

    if preset == "plms":
        return PNDMScheduler.from_config(config, skip_prk_steps=True)
    if preset == "fast":
        return DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=True
        )
    # A PNDM config has no `clip_sample`; DDIM's default of True would clip latents to [-1, 1] and ruin them.
    return DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def training_scheduler(config: Any) -> Any:
    """Return a scheduler that adds noise and gives velocity targets by a base model's schedule."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(config, clip_sample=False)
