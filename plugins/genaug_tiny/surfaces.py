"""Large surfaces of the scenes: sky, grass, water and roads, each in several materials.

Palettes overlap between classes on purpose (brown water and brown meadows, grey sky, grey road and grey
walls): colour alone must not give the class away, so texture, shape and context have to.
"""

from __future__ import annotations

import numpy as np

from genaug_tiny.canvas import Array, Canvas, Region, blend, box, shade

RGB = tuple[float, float, float]

SKIES: dict[str, list[tuple[RGB, RGB]]] = {
    "day": [
        ((0.35, 0.55, 0.90), (0.75, 0.85, 0.95)),
        ((0.20, 0.42, 0.80), (0.60, 0.78, 0.92)),
        ((0.62, 0.66, 0.70), (0.80, 0.81, 0.82)),
        ((0.85, 0.87, 0.90), (0.93, 0.93, 0.92)),
        ((0.50, 0.54, 0.60), (0.68, 0.70, 0.72)),
    ],
    "dusk": [
        ((0.35, 0.30, 0.55), (0.95, 0.55, 0.35)),
        ((0.55, 0.40, 0.55), (0.98, 0.75, 0.45)),
        ((0.25, 0.30, 0.50), (0.90, 0.60, 0.60)),
    ],
    "night": [((0.10, 0.13, 0.28), (0.20, 0.22, 0.38)), ((0.16, 0.14, 0.24), (0.40, 0.30, 0.28))],
}
GRASS: list[RGB] = [
    (0.30, 0.52, 0.20),
    (0.22, 0.42, 0.16),
    (0.45, 0.60, 0.28),
    (0.58, 0.56, 0.30),
    (0.36, 0.48, 0.26),
]
WATER: list[RGB] = [
    (0.25, 0.42, 0.60),
    (0.35, 0.50, 0.52),
    (0.20, 0.34, 0.32),
    (0.55, 0.62, 0.70),
    (0.14, 0.24, 0.36),
]
ROADS: dict[str, list[RGB]] = {
    "asphalt": [(0.36, 0.36, 0.38), (0.26, 0.26, 0.28), (0.50, 0.50, 0.50), (0.44, 0.40, 0.40)],
    "cobble": [(0.45, 0.43, 0.40), (0.55, 0.52, 0.50), (0.35, 0.36, 0.40)],
    "brick": [(0.60, 0.36, 0.28), (0.52, 0.42, 0.36)],
    "dirt": [(0.55, 0.44, 0.30), (0.64, 0.56, 0.44)],
}


def jitter(colour: RGB, rng: np.random.Generator, amount: float = 0.04) -> RGB:
    """A colour moved a little per channel and in brightness, kept in [0.02, 0.98]."""
    moved = np.clip(np.asarray(colour) * rng.uniform(0.9, 1.1) + rng.uniform(-amount, amount, 3), 0.02, 0.98)
    return (float(moved[0]), float(moved[1]), float(moved[2]))


def pick(colours: list[RGB], rng: np.random.Generator) -> RGB:
    """One jittered colour of a palette."""
    return jitter(colours[int(rng.integers(len(colours)))], rng)


def paint_sky(canvas: Canvas, label: int, horizon: float, time: str, rng: np.random.Generator) -> None:
    """Fill the whole canvas with sky: gradient, clouds, and a sun, a moon or stars."""
    skies = SKIES[time]
    high, low = skies[int(rng.integers(len(skies)))]
    height = np.clip(canvas.y / max(horizon, 0.2), 0.0, 1.0) ** rng.uniform(0.7, 1.6)
    colour = blend(jitter(high, rng, 0.04), jitter(low, rng, 0.04), height)
    if rng.random() < 0.65:
        period, offset = rng.uniform(0.06, 0.25), rng.uniform(0, 50)
        field = 0.65 * canvas.texture(period, stretch=rng.uniform(1.5, 3.5), offset=offset)
        field += 0.35 * canvas.texture(period / 2.5, stretch=1.6, offset=offset + 9)
        cover = np.clip((field - rng.uniform(0.35, 0.65)) * rng.uniform(3, 8), 0, 1) * rng.uniform(0.4, 0.95)
        cloud = {"day": (0.96, 0.96, 0.97), "dusk": (0.85, 0.55, 0.50), "night": (0.26, 0.26, 0.34)}[time]
        if time == "day" and rng.random() < 0.3:
            cloud = (0.45, 0.46, 0.50)
        colour = blend(colour, jitter(cloud, rng, 0.03), cover)
    everywhere = np.ones(canvas.mask.shape, np.bool_)
    canvas.paint(everywhere, colour, label, 1.0, glow=0.6 if time == "night" else 0.0)
    if rng.random() < 0.35:
        radius, cx, cy = rng.uniform(0.02, 0.06), rng.uniform(0.1, 1.5), rng.uniform(0.0, 1.0) * horizon
        disc = (canvas.x - cx) ** 2 + (canvas.y - cy) ** 2 < radius**2
        canvas.tint(disc, (0.98, 0.95, 0.80), glow=0.9)
    if time == "night" and rng.random() < 0.6:
        canvas.tint(canvas.texture(0.012, offset=3.3) > 0.93, (0.85, 0.85, 0.90), glow=0.9)


def ground_depth(canvas: Canvas, horizon: float) -> Array:
    """Distance of the ground under every pixel, 1 at the horizon, small at the viewer's feet."""
    return np.asarray(0.08 / (0.08 + np.clip(canvas.y - horizon, 0.0, None)), dtype=np.float32)


def floor_plane(canvas: Canvas, horizon: float, vanish: float) -> tuple[Array, Array]:
    """Ground coordinates (sideways, forwards) in camera heights, by perspective division."""
    below = np.clip(canvas.y - horizon, 0.012, None)
    across = ((canvas.x - vanish) / below).astype(np.float32)
    return across, (0.5 / below).astype(np.float32)


def paint_grass(canvas: Canvas, label: int, horizon: float, rng: np.random.Generator) -> None:
    """Lawn, meadow with flowers, or dry grass, on everything below the horizon."""
    where = canvas.y >= horizon
    base = pick(GRASS, rng)
    near = np.clip((canvas.y - horizon) / 0.5, 0.1, 1.0)
    # Blades: bumps taller than wide, coarser towards the viewer.
    blades = canvas.texture(0.05, stretch=0.4, offset=rng.uniform(0, 50))
    fine = canvas.texture(0.022, stretch=0.5, offset=rng.uniform(0, 50))
    patches = canvas.texture(rng.uniform(0.15, 0.4), stretch=2.0, offset=rng.uniform(0, 50))
    strength = rng.uniform(0.35, 0.7)
    bright = 1 + strength * near * (0.5 * blades + 0.5 * fine - 0.5) * 1.5 + 0.5 * (patches - 0.5)
    if rng.random() < 0.2:
        across, forward = floor_plane(canvas, horizon, 0.8)
        stripes = np.sin(across * rng.uniform(1.5, 3.0)) if rng.random() < 0.5 else np.sin(forward * 2.0)
        bright = bright * (1 + 0.12 * np.sign(stripes))
    canvas.paint(where, shade(base, bright.astype(np.float32)), label, ground_depth(canvas, horizon))
    if rng.random() < 0.35:
        flowers = where & (canvas.texture(0.02, offset=rng.uniform(0, 50)) > 0.90)
        canvas.tint(flowers, pick([(0.9, 0.85, 0.3), (0.9, 0.9, 0.9), (0.8, 0.3, 0.4), (0.7, 0.4, 0.2)], rng))


def paint_water(canvas: Canvas, label: int, where: Region, horizon: float, rng: np.random.Generator) -> None:
    """A lake or a river: ripples that lengthen sideways, with some sky reflected."""
    base, light = pick(WATER, rng), pick([(0.75, 0.82, 0.88), (0.85, 0.80, 0.70), (0.5, 0.6, 0.65)], rng)
    below = np.clip(canvas.y - horizon, 0.02, None)
    period = np.maximum(rng.uniform(0.05, 0.12) * below + 0.008, 2.0 * canvas.pixel)
    wobble = canvas.texture(0.12, stretch=2.5, offset=rng.uniform(0, 50))
    # Integrating 1/period over y keeps the ripples continuous while they widen towards the viewer.
    phase = canvas.y / period + 2.2 * wobble
    ripple = canvas.noise(canvas.x / (5 * period), 1.4 * phase)
    share = np.clip(rng.uniform(0.2, 0.6) * (0.5 + 0.5 * np.sin(6.28 * 0.5 * phase)) * (0.4 + ripple), 0, 0.8)
    colour = blend(base, light, share.astype(np.float32))
    canvas.paint(where, colour, label, ground_depth(canvas, horizon))


def water_region(canvas: Canvas, horizon: float, rng: np.random.Generator) -> Region:
    """Where water lies: a lake (ellipse), a river (band) or a far shore that reaches the horizon."""
    kind = rng.choice(["lake", "river", "sea"])
    edge = 0.05 * (canvas.texture(0.12, stretch=2.0, offset=rng.uniform(0, 50)) - 0.5)
    if kind == "lake":
        cy, ry = horizon + rng.uniform(0.12, 0.4), rng.uniform(0.07, 0.2)
        radius = ((canvas.x - rng.uniform(0.2, 1.4)) / rng.uniform(0.3, 0.7)) ** 2 + ((canvas.y + edge - cy) / ry) ** 2
        return np.asarray((radius < 1) & (canvas.y > horizon), dtype=np.bool_)
    top = horizon if kind == "sea" else horizon + rng.uniform(0.04, 0.25)
    slope = 0.0 if kind == "sea" else rng.uniform(-0.25, 0.25)
    bottom = horizon + rng.uniform(0.15, 0.5)
    tilted = canvas.y + slope * (canvas.x - 0.8)
    inside = (tilted > top) & (tilted + edge < bottom) & (canvas.y > horizon)
    return np.asarray(inside, dtype=np.bool_)


def road_region(canvas: Canvas, horizon: float, vanish: float, rng: np.random.Generator) -> tuple[Region, Array]:
    """Where a road lies and its sideways coordinate (-1 to 1 from kerb to kerb): away from us, or across."""
    below = np.clip(canvas.y - horizon, 0.0, None)
    if rng.random() < 0.65:
        across = (canvas.x - vanish) / np.maximum(below, 1e-3)
        centre, half = rng.uniform(-0.7, 0.7), rng.uniform(0.35, 1.1)
        bend = rng.uniform(-0.5, 0.5) * np.clip(0.25 - below, 0, None) * 4
        lateral = (across - centre - bend) / half
    else:
        top, thick = rng.uniform(0.08, 0.35), rng.uniform(0.10, 0.35)
        lateral = (below + rng.uniform(-0.12, 0.12) * (canvas.x - 0.8) - top) / thick * 2 - 1
    return np.asarray((np.abs(lateral) < 1) & (below > 0), dtype=np.bool_), lateral.astype(np.float32)


def paint_road(
    canvas: Canvas, label: int, where: Region, lateral: Array, horizon: float, vanish: float, rng: np.random.Generator
) -> None:
    """Asphalt with marks, cobbles, brick pavement or a dirt track."""
    material = str(rng.choice(["asphalt", "asphalt", "asphalt", "cobble", "brick", "dirt"]))
    base = pick(ROADS[material], rng)
    across, forward = floor_plane(canvas, horizon, vanish)
    speck = canvas.texture(0.012, offset=rng.uniform(0, 50))
    patches = canvas.texture(0.15, stretch=2.5, offset=rng.uniform(0, 50))
    bright = 1 + 0.14 * (speck - 0.5) + 0.3 * (patches - 0.5)
    if material in ("cobble", "brick"):
        scale = rng.uniform(5, 9)
        u, v = across * scale * (0.5 if material == "brick" else 1.0), forward * scale
        u = u + 0.5 * (np.floor(v) % 2)
        # Joints fade where one stone is smaller than about two pixels.
        visible = np.clip((canvas.y - horizon) / (scale * 2.5 * canvas.pixel) - 0.4, 0, 1)
        joint = (u - np.floor(u) < 0.18) | (v - np.floor(v) < 0.18)
        bright = bright * (1 + visible * (0.35 * (canvas.noise.cells(u, v) - 0.5) - 0.35 * joint))
    elif material == "dirt":
        bright = bright + 0.5 * (canvas.texture(0.05, stretch=1.5, offset=rng.uniform(0, 50)) - 0.5)
        bright = bright - 0.15 * (np.abs(np.abs(lateral) - 0.45) < 0.15)
    canvas.paint(where, shade(base, bright.astype(np.float32)), label, ground_depth(canvas, horizon))
    if material == "asphalt" and rng.random() < 0.75:
        mark: RGB = (0.88, 0.88, 0.85) if rng.random() < 0.7 else (0.85, 0.70, 0.25)
        dashes = np.sin(forward * rng.uniform(3, 6)) > rng.uniform(-0.6, 0.2)
        lines = (np.abs(lateral) < 0.05) & dashes
        if rng.random() < 0.5:
            lines |= np.abs(np.abs(lateral) - 0.86) < 0.035
        canvas.tint(where & lines, mark)
    if material != "dirt" and rng.random() < 0.6:
        canvas.tint(where & (np.abs(lateral) > 0.93), pick([(0.6, 0.6, 0.58), (0.7, 0.68, 0.62)], rng))


def cast_shadow(canvas: Canvas, ground: Region, x: float, y: float, rx: float, ry: float, strength: float) -> None:
    """A soft-less elliptic shadow, on ground pixels only: shadows change colours, never classes."""
    inside = ((canvas.x - x) / rx) ** 2 + ((canvas.y - y) / ry) ** 2 < 1
    canvas.darken(inside & ground & box(canvas, x - rx, y - ry, x + rx, y + ry), strength)
