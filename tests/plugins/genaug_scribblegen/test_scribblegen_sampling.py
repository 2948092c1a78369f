"""The sampling loop against a slow obvious one and against diffusers' pipeline; the paper's properties."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetImg2ImgPipeline

from genaug_diffusion.base import vae_factor
from genaug_diffusion.schedulers import training_scheduler
from genaug_scribblegen.codec import RgbCodec
from genaug_scribblegen.network import ScribbleNetwork
from genaug_scribblegen.sampling import Schedule, sample

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
SIGNAL = (1 - BETAS).cumprod(0).float()


@pytest.fixture
def network(pipe, make_network) -> ScribbleNetwork:
    return make_network(pipe).requires_grad_(False)


@pytest.fixture(scope="module")
def given() -> SimpleNamespace:
    """Three rows of inputs."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    masks[:, 10:13, 5:45] = 1
    masks[0, 30:55, 20:22] = 4
    masks[2, 50:52] = 0
    return SimpleNamespace(
        text=0.5 * torch.randn(3, 77, 32, generator=generator),
        hints=RgbCodec([0, 1, 4]).encode(masks),
        noise=torch.randn(3, 4, 16, 16, generator=generator),
        z=torch.randn(3, 4, 16, 16, generator=generator),
    )


def run(network, schedule: Schedule, given, ratios, weight: float, **changes) -> torch.Tensor:
    one = SimpleNamespace(**{**vars(given), **changes})
    starts = [schedule.start(r, n, z) for r, n, z in zip(ratios, one.noise, one.z, strict=True)]
    return sample(network, schedule, torch.stack(starts), one.text, one.hints, ratios, weight=weight)


@torch.no_grad()
def slowly(network, given, row: int, ratio: float, weight: float, times: list[int], first: int) -> torch.Tensor:
    """Algorithm 1, one image, two calls a step, as it is written."""
    unet, controlnet, null = network.unet, network.controlnet, network.null.value[None]
    text, hint, x = given.text[row : row + 1], given.hints[row : row + 1], given.noise[row : row + 1]
    if ratio < 1:
        x = SIGNAL[first] ** 0.5 * given.z[row : row + 1] + (1 - SIGNAL[first]) ** 0.5 * x

    def eps(t: int, condition: torch.Tensor) -> torch.Tensor:
        down, middle = controlnet(x, t, text, condition, return_dict=False)
        return unet(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample

    for n in reversed(range(len(times))):
        t = times[n]
        noise = (1 + weight) * eps(t, hint) - weight * eps(t, null)
        a, before = SIGNAL[t], SIGNAL[times[n - 1] if n else 0]
        image = (x - (1 - a) ** 0.5 * noise) / a**0.5
        x = before**0.5 * image + (1 - before) ** 0.5 * noise
    return x[0]


@pytest.mark.parametrize("mode", ["fixed", "scaled"])
def test_rows_of_any_encode_ratio_equal_the_loop_as_it_is_written(network, given, mode: str) -> None:
    ratios, weight, n = [0.4, 1.0, 0.75], 1.5, 4
    schedule = Schedule(SIGNAL, steps=n, mode=mode)
    got = run(network, schedule, given, ratios, weight)
    for row, ratio in enumerate(ratios):
        steps = n if mode == "fixed" else round(ratio * n)
        times = [int(ratio * 1000) * i // steps - 1 for i in range(1, steps + 1)]
        expected = slowly(network, given, row, ratio, weight, times, times[-1])
        torch.testing.assert_close(got[row], expected, rtol=1e-4, atol=2e-4)


def test_the_released_grid_starts_above_its_first_timestep(network, given) -> None:
    schedule = Schedule(SIGNAL, steps=4, grid="released")
    got = run(network, schedule, given, [0.6] * 3, 1.0)
    times = [int(600 * i / 4) + 1 for i in range(4)]
    torch.testing.assert_close(got[1], slowly(network, given, 1, 0.6, 1.0, times, 599), rtol=1e-4, atol=2e-4)


class Halved(ControlNetModel):
    """Gives the null condition to the first half of a batch, so that a stock pipeline guides on the scribble."""

    def forward(self, sample, timestep, encoder_hidden_states, controlnet_cond, *rest, **more):
        null = self.null_image.expand(len(controlnet_cond) // 2, -1, -1, -1)
        hints = torch.cat([null, controlnet_cond[len(controlnet_cond) // 2 :]])
        return super().forward(sample, timestep, encoder_hidden_states, hints, *rest, **more)


class Given(Schedule):
    """A schedule with another's timesteps."""

    def timesteps(self, ratio: float) -> tuple[torch.Tensor, int]:
        return self.given, int(self.given[-1])


def test_equals_diffusers_pipeline_made_to_guide_on_the_scribble(pipe, network, given) -> None:
    scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    halved = network.controlnet
    plain, halved.__class__, halved.null_image = halved.__class__, Halved, network.null.value[None]
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    stock = StableDiffusionControlNetImg2ImgPipeline(
        **parts, controlnet=halved, scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    stock.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        expected = stock(
            prompt_embeds=given.text, negative_prompt_embeds=given.text, image=given.z, control_image=given.hints,
            strength=0.5, num_inference_steps=8, guidance_scale=3.0, controlnet_conditioning_scale=1.0,
            generator=torch.Generator().manual_seed(3), output_type="latent", height=64, width=64,
        ).images  # fmt: skip
    halved.__class__ = plain
    scheduler.set_timesteps(8)
    noise = torch.randn(given.z.shape, generator=torch.Generator().manual_seed(3))
    schedule = Given(scheduler.alphas_cumprod)
    object.__setattr__(schedule, "given", scheduler.timesteps[4:].flip(0))
    got = run(network, schedule, given, [0.5] * 3, 2.0, noise=noise)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-4)
    assert (got - given.z).abs().max() > 0.1


def test_a_scribble_that_is_the_null_condition_makes_w_meaningless(network, given) -> None:
    hints = network.null((64, 64)).detach().expand(3, -1, -1, -1)
    schedule = Schedule(SIGNAL, steps=3)
    results = [run(network, schedule, given, [0.5] * 3, w, hints=hints) for w in (0.0, 1.0, 4.0)]
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[2], results[0], rtol=1e-4, atol=2e-4)


def test_without_guidance_the_null_half_is_not_run(network, given) -> None:
    rows = []
    network.unet.register_forward_pre_hook(lambda m, a: rows.append(len(a[0])))
    schedule = Schedule(SIGNAL, steps=2)
    plain = run(network, schedule, given, [0.8] * 3, 0.0)
    assert rows == [3, 3]
    torch.testing.assert_close(plain[0], slowly(network, given, 0, 0.8, 0.0, [399, 799], 799), rtol=1e-4, atol=2e-4)
    guided = run(network, schedule, given, [0.8] * 3, 1.0)
    assert rows[-2:] == [6, 6]
    assert (guided - plain).abs().max() > 1e-3


def test_at_encode_ratio_1_the_real_image_is_not_seen_unless_it_leaks(network, given) -> None:
    schedule, leaking = Schedule(SIGNAL, steps=2), Schedule(SIGNAL, steps=2, leak_at_one=True)
    assert not schedule.needs_reference(1.0)
    assert leaking.needs_reference(1.0)
    noise = given.noise[0]
    assert schedule.start(1.0, noise, None) is noise
    torch.testing.assert_close(
        leaking.start(1.0, noise, given.z[0]), SIGNAL[999].sqrt() * given.z[0] + (1 - SIGNAL[999]).sqrt() * noise
    )
    results = [run(network, s, given, [1.0] * 3, 1.0, z=z) for s in (schedule, leaking) for z in (given.z, -given.z)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[2], results[3])


def test_the_smaller_the_encode_ratio_the_nearer_to_the_real_image(network, given) -> None:
    near = []
    for ratio in (0.02, 0.1, 0.5, 1.0):
        result = run(network, Schedule(SIGNAL, steps=5), given, [ratio] * 3, 1.0)
        near.append(float(torch.corrcoef(torch.stack([result.flatten(), given.z.flatten()]))[0, 1]))
    assert near == sorted(near, reverse=True)
    assert near[0] > 0.97
    assert near[1] > 0.8
    assert abs(near[3]) < 0.2


def test_a_fresh_controlnet_leaves_the_unet_alone_and_guidance_does_nothing(pipe, make_network, given) -> None:
    network = make_network(pipe, spread=0.0)
    t = torch.tensor([10, 500, 900])
    with torch.no_grad():
        plain = pipe.unet(given.noise, t, given.text).sample
        both = network(given.noise, t, given.text, given.hints, torch.tensor([True, False, False]))
    assert torch.equal(both, plain)
    schedule = Schedule(SIGNAL, steps=2)
    results = [run(network, schedule, given, [0.5] * 3, w) for w in (0.0, 3.0)]
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_coinciding_timesteps_end_rows_early_and_other_rows_go_on(network, given) -> None:
    ratios = [0.002, 1.0, 0.003]
    got = run(network, Schedule(SIGNAL, steps=4), given, ratios, 1.0)
    for row, times in enumerate([[0, 1], [249, 499, 749, 999], [0, 1, 2]]):
        expected = slowly(network, given, row, ratios[row], 1.0, times, times[-1])
        torch.testing.assert_close(got[row], expected, rtol=1e-4, atol=2e-4)


def test_velocity_bases_take_the_same_way(network, given) -> None:
    """A network that says the same as velocity leads to the same image."""

    class Velocity(torch.nn.Module):
        def forward(self, latents, time, text, hints, dropped):
            a = SIGNAL[time][:, None, None, None]
            noise = network(latents, time, text, hints, dropped)
            return (noise - (1 - a).sqrt() * latents) / a.sqrt()

    expected = run(network, Schedule(SIGNAL, steps=3), given, [0.7] * 3, 1.0)
    got = run(Velocity(), Schedule(SIGNAL, kind="v_prediction", steps=3), given, [0.7] * 3, 1.0)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_the_hint_encoder_fits_the_autoencoder(pipe, network) -> None:
    assert vae_factor(pipe) == 4
    encoder = network.controlnet.controlnet_cond_embedding
    assert encoder(torch.zeros(1, 3, 64, 96)).shape[2:] == (16, 24)
    assert network.controlnet.config.conditioning_embedding_out_channels == (16, 32, 96)
    torch.testing.assert_close(training_scheduler(pipe.scheduler.config).alphas_cumprod, SIGNAL)
