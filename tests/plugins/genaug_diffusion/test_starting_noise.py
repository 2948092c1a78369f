"""The first noise: the labelled images' low frequencies, by written-out statistics and by what training sees."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genaug_diffusion.starting_noise import DIRECTIONS, GRID, StartingNoise, first_signal


def latents_of(count: int, seed: int = 0, channels: int = 3, size: int = 16) -> list[torch.Tensor]:
    """Scenes: each has its own light and a gradient, and fine structure."""
    draw = torch.Generator().manual_seed(seed)
    light = 0.8 * torch.randn(count, channels, 1, 1, generator=draw) + 0.3
    slope = 0.5 * torch.randn(count, channels, 1, 1, generator=draw) * torch.linspace(-1, 1, size).view(1, 1, -1, 1)
    return list(light + slope + 0.7 * torch.randn(count, channels, size, size, generator=draw))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells_of(latents: list[torch.Tensor]) -> np.ndarray:
    """Averages of g x g cells, number by number."""
    result = []
    for z in latents:
        step = z.shape[-1] // GRID
        cells = [
            [z[:, y * step : (y + 1) * step, x * step : (x + 1) * step].mean((1, 2)) for x in range(GRID)]
            for y in range(GRID)
        ]
        result.append(torch.stack([torch.stack(line, -1) for line in cells], -2).numpy().astype(np.float64))
    return np.stack(result)


def test_mean_and_covariance_are_those_of_the_cells() -> None:
    latents = latents_of(DIRECTIONS)  # few enough that no direction is left out
    start, cells = StartingNoise.fit(latents), cells_of(latents)
    np.testing.assert_allclose(start.mean.numpy(), cells.mean(0), atol=1e-6)
    directions = start.directions.flatten(1).double().numpy()
    expected = np.cov(cells.reshape(len(cells), -1).T)
    np.testing.assert_allclose(directions.T @ directions, expected, atol=1e-5)


def test_of_many_images_the_strongest_directions_stay() -> None:
    latents = latents_of(40)
    start, cells = StartingNoise.fit(latents), cells_of(latents)
    assert len(start.directions) == DIRECTIONS
    values = np.linalg.eigvalsh(np.cov(cells.reshape(40, -1).T))[::-1]
    found = start.directions.flatten(1).double().square().sum(1).numpy()
    np.testing.assert_allclose(found, values[:DIRECTIONS], rtol=1e-4)


def test_it_looks_like_the_noisiest_images_of_training() -> None:
    """Variance of whole images' means, over seeds: forward diffusion, this, and plain noise, which has too little."""
    latents, signal = latents_of(400, seed=3), 0.0047
    start = StartingNoise.fit(latents)
    noise = torch.randn(400, 3, 16, 16, generator=seeded(5))
    trained = (1 - signal) ** 0.5 * noise + signal**0.5 * torch.stack(latents)
    drawn = torch.stack([start.draw((16, 16), seeded(100 + i), signal=signal, spread=1) for i in range(400)])
    wide = torch.stack([start.draw((16, 16), seeded(100 + i), signal=signal, spread=2) for i in range(400)])

    def light(images: torch.Tensor) -> float:
        return float(images.mean((2, 3)).var(0).mean())

    assert light(noise) < 0.7 * light(trained)
    assert 0.85 * light(trained) < light(drawn) < 1.15 * light(trained)
    assert light(wide) > 1.5 * light(drawn)
    assert abs(float(drawn.std()) - 1) < 0.02


def test_without_signal_it_is_plain_noise() -> None:
    start = StartingNoise.fit(latents_of(5))
    plain = torch.randn(3, 6, 9, generator=seeded(4))
    assert torch.equal(start.draw((6, 9), seeded(4), signal=0.0, spread=1.0), plain)


def test_one_image_gives_its_mean() -> None:
    (latent,) = latents_of(1)
    start = StartingNoise.fit([latent])
    assert start.directions.shape == (0, 3, GRID, GRID)
    drawn = start.draw((GRID, GRID), seeded(1), signal=0.25, spread=3.0)
    noise = torch.randn(3, GRID, GRID, generator=seeded(1))
    torch.testing.assert_close(drawn, 0.75**0.5 * noise + 0.5 * torch.from_numpy(cells_of([latent])[0]).float())


def test_the_order_of_images_does_not_matter() -> None:
    latents = latents_of(6)
    one, other = (
        StartingNoise.fit(part).draw((16, 16), seeded(2), signal=0.3, spread=1) for part in (latents, latents[::-1])
    )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(3, 20), st.integers(3, 20), st.integers(0, 99), st.floats(0, 3))
def test_any_size_and_a_seed_is_an_image(count: int, height: int, width: int, seed: int, spread: float) -> None:
    start = StartingNoise.fit([torch.randn(4, height, width, generator=seeded(i)) for i in range(count)])
    drawn = start.draw((height, width), seeded(seed), signal=0.005, spread=spread)
    assert drawn.shape == (4, height, width)
    assert drawn.isfinite().all()
    again = StartingNoise(**start.state_dict()).draw((height, width), seeded(seed), signal=0.005, spread=spread)
    assert torch.equal(drawn, again)


def test_the_signal_is_that_of_the_samplers_first_step() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert abs(first_signal(scheduler, 50) - np.cumprod(1 - betas)[981]) < 1e-6
