"""Procedural street and park scenes with exact masks: `render_scene(seed)`.

A scene is laid out in resolution-free coordinates (ground surfaces, then objects from far to near), seen
through a camera window (wide, medium or close-up), lit (day, dusk, night, fog, colour cast) and exposed with
sensor noise. Everything follows from the seed through `numpy.random.default_rng`; there is no global state.

Seeds below `EVALUATION_SEEDS.stop` are for labelled sets and evaluation, seeds in `PRETRAINING_SEEDS` for the
embedded model's unlabelled pretraining; the two ranges never meet, so what is measured was never trained on. Those in
`CONTROLNET_SEEDS` are the labelled set of the embedded scribble ControlNet, and nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genaug_tiny import objects, surfaces
from genaug_tiny.canvas import Array, Canvas, Noise, rgb

CLASSES: dict[int, str] = {
    0: "sky",
    1: "building",
    2: "road",
    3: "grass",
    4: "tree",
    5: "car",
    6: "person",
    7: "water",
}
EVALUATION_SEEDS = range(0, 1_000_000)
PRETRAINING_SEEDS = range(1_000_000, 2_000_000)
CONTROLNET_SEEDS = range(700_000, 701_000)

SKY, BUILDING, ROAD, GRASS, TREE, CAR, PERSON, WATER = CLASSES
WIDTH = 1.6  # a full scene is 1.6 wide and 1.0 high


class Scene(NamedTuple):
    """A rendered scene.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        mask: [H, W] uint8, ids of `CLASSES`; every pixel is labelled.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Thing:
    """An object waiting to be drawn: far ones first. `focus` is a point a close-up may aim at."""

    base: float
    label: int
    focus: tuple[float, float]
    height: float
    draw: Callable[[Canvas, np.random.Generator], None]
    seed: int


def render_scene(seed: int, *, size: int = 64, look: int | None = None) -> Scene:
    """Render the scene of a seed; the same arguments give the same bytes.

    Args:
        seed: non-negative integer. See `EVALUATION_SEEDS` and `PRETRAINING_SEEDS`.
        size: height and width in pixels, at least 16. The scene itself does not depend on it.
        look: non-negative integer: the same camera and the same things in the same places, but other ground, other
            specimens and other light; some 70 % of the mask stay. None is the scene's own look.

    Returns:
        Image [size, size, 3] uint8 and mask [size, size] uint8.

    Raises:
        ValueError: for a negative seed or a size below 16.
    """
    if seed < 0 or (look is not None and look < 0):
        raise ValueError(f"seed and look of a scene must not be negative, got {seed} and {look}")
    if size < 16:
        raise ValueError(f"a scene needs at least 16 x 16 pixels, got size={size}")
    rng = np.random.default_rng(seed)
    noise = Noise(rng)
    time = _time(rng)
    horizon, cameras_height = float(rng.uniform(0.22, 0.62)), float(rng.uniform(0.9, 1.5))
    things = _place_things(horizon, cameras_height, rng)
    ground_seed, light_seed = (int(value) for value in rng.integers(2**62, size=2))
    left, top, span = _aim(things, horizon, rng)
    if look is not None:
        rng = np.random.default_rng([seed, look])
        noise, time = Noise(rng), _time(rng)
        things = [replace(thing, seed=int(rng.integers(2**62))) for thing in things]
        ground_seed, light_seed = (int(value) for value in rng.integers(2**62, size=2))
    canvas = Canvas.look(left, top, span, size, noise)
    sunlit = _paint_ground(canvas, horizon, time, np.random.default_rng(ground_seed))
    _paint_things(canvas, things, sunlit)
    light_rng = np.random.default_rng(light_seed)
    image = _expose(_relight(canvas, time, light_rng), light_rng)
    return Scene(image, canvas.mask)


def _time(rng: np.random.Generator) -> str:
    return str(rng.choice(["day", "dusk", "night"], p=[0.82, 0.11, 0.07]))


def render_scenes(seeds: Sequence[int], *, size: int = 64) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Render many scenes: images [N, size, size, 3] uint8 and masks [N, size, size] uint8."""
    images = np.empty((len(seeds), size, size, 3), np.uint8)
    masks = np.empty((len(seeds), size, size), np.uint8)
    for index, seed in enumerate(seeds):
        images[index], masks[index] = render_scene(seed, size=size)
    return images, masks


def class_prompt(mask: npt.NDArray[np.uint8], *, min_share: float = 0.01) -> str:
    """Names of the classes that cover at least `min_share` of the mask, ascending id, joined by one space."""
    counts = np.bincount(mask.ravel(), minlength=len(CLASSES))
    return " ".join(name for label, name in CLASSES.items() if counts[label] >= min_share * mask.size)


def _place_things(horizon: float, scale: float, rng: np.random.Generator) -> list[Thing]:
    """Scatter objects; an object's size follows from where it meets the ground (perspective)."""
    things: list[Thing] = []

    def add(label: int, x: float, base: float, height: float, draw: Callable[..., None]) -> None:
        depth = 0.08 / (0.08 + max(base - horizon, 0.0))

        def drawn(canvas: Canvas, own: np.random.Generator) -> None:
            draw(canvas, label, x, base, height, depth, own)

        focus = (x, base - rng.uniform(0.2, 0.8) * height)
        things.append(Thing(base, label, focus, height, drawn, int(rng.integers(2**62))))

    def spot(low: float, high: float) -> tuple[float, float]:
        # Squared: more of the ground's area is far away than near.
        return float(rng.uniform(-0.1, WIDTH + 0.1)), horizon + low + (high - low) * float(rng.random()) ** 2

    style = str(rng.choice(["street", "park", "mixed"]))
    many = {"street": (4, 1, 3, 2), "park": (1, 4, 1, 3), "mixed": (2, 3, 2, 2)}[style]
    for _ in range(int(rng.integers(0, 2 * many[0] + 1))):
        x, base = spot(-0.01, 0.10)
        _add_building(add, x, base, rng.uniform(0.12, 0.45), rng)
    if style != "park" and rng.random() < 0.45:
        _add_building(add, rng.choice([rng.uniform(0, 0.3), rng.uniform(1.3, 1.6)]), horizon + rng.uniform(0.1, 0.3),
                      rng.uniform(0.5, 0.9), rng)  # fmt: skip
    for _ in range(int(rng.integers(0, 2 * many[1] + 1))):
        x, base = spot(0.03, 0.4)
        add(
            TREE, x, base, rng.uniform(1.6, 3.6) * scale * (base - horizon) + rng.uniform(0.06, 0.2), objects.paint_tree
        )
    for _ in range(int(rng.integers(0, 2 * many[2] + 1))):
        x, base = spot(0.10, 0.5)
        add(CAR, x, base, rng.uniform(0.75, 0.95) * scale * (base - horizon) + 0.02, objects.paint_car)
    for _ in range(int(rng.integers(0, 2 * many[3] + 1))):
        x, base = spot(0.12, 0.6)
        add(PERSON, x, base, rng.uniform(0.85, 1.1) * scale * (base - horizon) + 0.03, objects.paint_person)
    return sorted(things, key=lambda thing: thing.base)


def _add_building(add: Callable[..., None], x: float, base: float, height: float, rng: np.random.Generator) -> None:
    width = float(rng.uniform(0.1, 0.45)) * (0.6 + height)

    def draw(canvas: Canvas, label: int, x: float, base: float, height: float, depth: float,
             own: np.random.Generator) -> None:  # fmt: skip
        objects.paint_building(canvas, label, x - width / 2, base - height, x + width / 2, base, depth, own)

    add(BUILDING, x, base, height, draw)


def _aim(things: list[Thing], horizon: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Choose the camera window: left, top and span in scene units.

    Close-ups aim at one thing or surface and often show one or two classes only. They give the text-to-image
    model images whose prompt is a single word, which is what ties a word to its look.
    """
    shot = rng.random()
    if shot < 0.58:
        span = float(rng.uniform(0.75, 1.05))
        return float(rng.uniform(0, WIDTH - span)), float(rng.uniform(-0.15, 1.12 - span)), span
    spots = {SKY: (rng.uniform(0, WIDTH), rng.uniform(0.0, horizon * 0.8))}
    for label in (GRASS, ROAD, WATER):
        spots[label] = (rng.uniform(0, WIDTH), rng.uniform(horizon + 0.05, 1.0))
    heights: dict[int, float] = {}
    for thing in things:
        # A later (nearer) thing replaces an earlier one half the time, so all get their close-ups.
        if thing.label not in heights or rng.random() < 0.5:
            spots[thing.label], heights[thing.label] = thing.focus, thing.height
    label = int(rng.choice(sorted(spots)))
    x, y = spots[label]
    medium = shot < 0.8
    span = float(rng.uniform(0.4, 0.75) if medium else rng.uniform(0.16, 0.4))
    if label in heights:
        span = float(np.clip(heights[label] * (rng.uniform(1.3, 3.0) if medium else rng.uniform(0.55, 1.3)), 0.12, 0.9))
    shift = rng.uniform(-0.25, 0.25, 2) * span
    return float(x + shift[0] - span / 2), float(y + shift[1] - span / 2), span


def _paint_ground(canvas: Canvas, horizon: float, time: str, rng: np.random.Generator) -> float:
    """Sky and ground surfaces. Returns the shadow strength: 1 is no shadow."""
    vanish = float(rng.uniform(0.4, 1.2))
    # One generator per surface: what one surface draws never changes the next one.
    seeds = [np.random.default_rng(int(value)) for value in rng.integers(2**62, size=5)]
    surfaces.paint_sky(canvas, SKY, horizon, time, seeds[0])
    surfaces.paint_grass(canvas, GRASS, horizon, seeds[1])
    if rng.random() < 0.55:
        where = surfaces.water_region(canvas, horizon, seeds[2])
        surfaces.paint_water(canvas, WATER, where, horizon, seeds[2])
    for index in range(int(rng.choice([0, 1, 2], p=[0.2, 0.65, 0.15]))):
        where, lateral = surfaces.road_region(canvas, horizon, vanish, seeds[3 + index])
        surfaces.paint_road(canvas, ROAD, where, lateral, horizon, vanish, seeds[3 + index])
    return float(rng.uniform(0.45, 0.8)) if time != "night" and rng.random() < 0.7 else 1.0


def _paint_things(canvas: Canvas, things: list[Thing], shadow: float) -> None:
    ground_classes = np.zeros(256, np.bool_)
    ground_classes[[ROAD, GRASS]] = True
    for thing in things:
        x = thing.focus[0]
        if shadow < 1 and thing.label != BUILDING:
            reach = {TREE: 0.4, CAR: 1.3, PERSON: 0.35}[thing.label] * thing.height
            surfaces.cast_shadow(
                canvas, ground_classes[canvas.mask], x + 0.3 * reach, thing.base, reach, 0.16 * reach + 0.01, shadow
            )
        thing.draw(canvas, np.random.default_rng(thing.seed))


def _relight(canvas: Canvas, time: str, rng: np.random.Generator) -> Array:
    """Day, dusk, night, fog and colour cast: [h, w, 3] float32."""
    image = canvas.image
    if time == "night":
        dark = image * np.float32(rng.uniform(0.45, 0.65)) * rgb((0.85, 0.9, 1.2))
        image = dark + canvas.glow[..., None] * (image - dark)
        if rng.random() < 0.5:
            lamp_x, lamp_y, reach = rng.uniform(0, WIDTH), rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.5)
            spread = np.exp(-((canvas.x - lamp_x) ** 2 + (canvas.y - lamp_y) ** 2) / reach**2)
            image = image * (1 + spread[..., None] * rgb((1.3, 1.0, 0.5)))
    elif time == "dusk":
        image = image * np.float32(rng.uniform(0.65, 0.9)) * rgb((1.15, 0.95, 0.85))
    if rng.random() < 0.12:
        haze = rgb({"day": (0.80, 0.82, 0.84), "dusk": (0.75, 0.62, 0.55), "night": (0.25, 0.26, 0.32)}[time])
        thick = rng.uniform(0.3, 0.7) * canvas.depth[..., None]
        image = image * (1 - thick) + haze * thick
    cast = (1 + rng.uniform(-0.06, 0.06, 3)).astype(np.float32) * np.float32(rng.uniform(0.88, 1.1))
    return np.asarray(image * cast, dtype=np.float32)


def _expose(image: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Contrast, slight defocus and sensor noise, then uint8."""
    image = np.asarray(np.clip(image, 0, 1) ** np.float32(rng.uniform(0.9, 1.15)), dtype=np.float32)
    image = (image - 0.45) * np.float32(rng.uniform(0.85, 1.1)) + 0.45
    blur = float(rng.choice([0.0, 0.35, 0.7], p=[0.5, 0.3, 0.2]))
    if blur:
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        image = np.asarray((1 - blur) * image + blur * (image * 0.4 + around * 0.15), dtype=np.float32)
    image = image + rng.normal(0, rng.uniform(0.004, 0.018), image.shape).astype(np.float32)
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), dtype=np.uint8)
