"""Things that stand in the scenes: buildings, trees, cars and persons, each in several builds.

Every function draws on the smallest part of the canvas that holds the object and paints class and colour
together. `base` is the y where the object meets the ground; sizes are in scene units.
"""

from __future__ import annotations

import numpy as np

from genaug_tiny.canvas import Canvas, Region, blend, box, ellipse, shade
from genaug_tiny.surfaces import RGB, jitter, pick

WALLS: list[RGB] = [
    (0.62, 0.60, 0.56),
    (0.62, 0.32, 0.25),
    (0.82, 0.74, 0.58),
    (0.45, 0.44, 0.46),
    (0.72, 0.52, 0.34),
]
ROOFS: list[RGB] = [(0.55, 0.25, 0.18), (0.30, 0.28, 0.30), (0.45, 0.38, 0.32)]
LEAVES: list[RGB] = [(0.18, 0.36, 0.14), (0.26, 0.44, 0.18), (0.10, 0.26, 0.16), (0.60, 0.40, 0.14)]
TRUNKS: list[RGB] = [(0.35, 0.25, 0.18), (0.45, 0.40, 0.36), (0.82, 0.80, 0.76)]
PAINTS: list[RGB] = [
    (0.78, 0.10, 0.10),
    (0.12, 0.25, 0.65),
    (0.92, 0.92, 0.92),
    (0.12, 0.12, 0.14),
    (0.88, 0.72, 0.12),
]
CLOTHES: list[RGB] = [
    (0.85, 0.35, 0.60),
    (0.95, 0.50, 0.12),
    (0.45, 0.22, 0.60),
    (0.20, 0.65, 0.65),
    (0.80, 0.12, 0.15),
    (0.15, 0.16, 0.30),
]
SKINS: list[RGB] = [(0.90, 0.72, 0.60), (0.75, 0.55, 0.42), (0.45, 0.30, 0.22)]


def paint_building(
    canvas: Canvas,
    label: int,
    left: float,
    top: float,
    right: float,
    base: float,
    depth: float,
    rng: np.random.Generator,
) -> None:
    """A facade: wall material, a window pattern, and a flat or gabled roof."""
    width, height = right - left, base - top
    gable = rng.random() < 0.4 and width > 0.08
    peak = top - rng.uniform(0.25, 0.5) * width if gable else top
    material = str(rng.choice(["plain", "brick", "planks", "glass"]))
    base_colour, roof, trim = pick(WALLS, rng), pick(ROOFS, rng), pick(WALLS, rng)
    cell = rng.uniform(0.035, 0.08) * (0.6 + height)
    ratio, fill_w, fill_h = rng.uniform(0.7, 1.4), rng.uniform(0.35, 0.7), rng.uniform(0.4, 0.7)
    strips, lit, offset = rng.random() < 0.2, rng.uniform(0.1, 0.6), rng.uniform(0, 60)
    pane = pick([(0.20, 0.24, 0.30), (0.45, 0.55, 0.65), (0.12, 0.12, 0.14), (0.65, 0.72, 0.78)], rng)
    part = canvas.clip(left - 0.02, peak, right + 0.02, base)
    if part is None:
        return
    wall = box(part, left, top, right, base)
    u, v = (part.x - left) / (cell * ratio), (part.y - top) / cell
    bright = 1 + 0.2 * (part.texture(0.1, offset=offset) - 0.5) - 0.12 * (part.y - top) / max(height, 0.01)
    if material == "brick":
        row = part.y / 0.016
        bright = bright + 0.3 * (part.noise.cells(part.x / 0.035 + 0.5 * (np.floor(row) % 2), row) - 0.5)
    elif material == "planks":
        bright = bright + 0.12 * np.sign(np.sin(part.y * (6.28 / max(0.022, 4 * canvas.pixel))))
    colour = shade(base_colour, bright.astype(np.float32))
    part.paint(wall, colour, label, depth)
    fu, fv = u - np.floor(u), v - np.floor(v)
    gap_w, gap_h = (0.0 if strips else (1 - fill_w) / 2), (1 - fill_h) / 2
    if material == "glass":
        gap_w, gap_h = 0.06, 0.10
    window = wall & (fu > gap_w) & (fu < 1 - gap_w) & (fv > gap_h) & (fv < 1 - gap_h)
    # No windows hanging over the wall's edge: only whole columns, and not on the lowest strip.
    window &= (np.floor(u) < np.floor(width / (cell * ratio)) + (material == "glass")) & (v < height / cell - 0.3)
    cells = part.noise.cells(u + offset, v)
    part.tint(window, shade(pane, (0.75 + 0.5 * cells).astype(np.float32)))
    # Lit rooms: by day only a hint, at night the light stays (see `relight`).
    part.glow[window & (cells < lit)] = 0.9
    if material in ("plain", "brick") and rng.random() < 0.5:
        part.tint(wall & (part.y < top + 0.012), trim)
    if gable:
        half = width / 2 + 0.015
        slope = (part.y - peak) / max(top - peak, 1e-3)
        roof_region = (np.abs(part.x - (left + right) / 2) < half * slope) & (part.y < top)
        tiles = 1 + 0.15 * np.sin(part.y * (6.28 / max(0.018, 4 * canvas.pixel))) + 0.2 * (part.texture(0.03) - 0.5)
        part.paint(roof_region, shade(roof, tiles.astype(np.float32)), label, depth)
    elif rng.random() < 0.3:
        part.tint(wall & (part.y < top + 0.03), roof)
    _paint_door(part, wall, left + rng.uniform(0.15, 0.8) * width, base, cell, rng)


def _paint_door(part: Canvas, wall: Region, x: float, base: float, cell: float, rng: np.random.Generator) -> None:
    if rng.random() < 0.6:
        part.tint(wall & box(part, x, base - 1.1 * cell, x + 0.5 * cell, base), pick(CLOTHES, rng))


def paint_tree(
    canvas: Canvas, label: int, x: float, base: float, height: float, depth: float, rng: np.random.Generator
) -> None:
    """A round tree, a conifer, a poplar or a bush: ragged outline, high-contrast leaf texture."""
    kind = str(rng.choice(["round", "round", "conifer", "poplar", "bush"]))
    leaf, trunk = pick(LEAVES, rng), pick(TRUNKS, rng)
    ratio = {"round": 0.38, "conifer": 0.26, "poplar": 0.15, "bush": 0.7}[kind] * rng.uniform(0.8, 1.25)
    if kind == "bush":
        height = height * 0.35
    half, offset = ratio * height, rng.uniform(0, 60)
    blobs = rng.uniform(-0.5, 0.5, (3, 2))
    stem, contrast = height * rng.uniform(0.025, 0.05), rng.uniform(0.8, 1.5)
    part = canvas.clip(x - 1.4 * half, base - 1.15 * height, x + 1.4 * half, base)
    if part is None:
        return
    if kind != "bush":
        bark = 1 + 0.5 * (part.texture(height * 0.03, stretch=0.4, offset=offset) - 0.5)
        stem_region = np.abs(part.x - x) < np.maximum(stem, 0.6 * canvas.pixel)
        stem_region &= part.y > base - 0.6 * height
        part.paint(stem_region & (part.y <= base), shade(trunk, bark.astype(np.float32)), label, depth)
    rag = part.texture(height * 0.09, offset=offset) - 0.5
    if kind == "conifer":
        down = np.clip((part.y - (base - height)) / (0.88 * height), 0, 1.0)
        tier = 0.72 + 0.28 * (down * 4.5 - np.floor(down * 4.5))
        crown = np.abs(part.x - x) < half * down * tier + 0.25 * half * rag
        crown &= (part.y > base - height) & (part.y < base - 0.1 * height)
    else:
        bottom = base if kind == "bush" else base - height * (0.12 if kind == "poplar" else 0.3)
        cy, ry = (base - height + bottom) / 2, (bottom - base + height) / 2
        crown = ellipse(part, x, cy, half, ry) < 1 + 1.3 * rag
        if kind == "round":
            for dx, dy in blobs:
                crown |= ellipse(part, x + dx * half * 1.1, cy + dy * ry, 0.6 * half, 0.55 * ry) < 1 + 1.3 * rag
    leaves = 0.6 * part.texture(height * 0.05, offset=offset + 5) + 0.4 * part.texture(height * 0.022, offset=offset)
    light = 0.25 * ((base - 0.6 * height - part.y) / height - (part.x - x) / max(half, 1e-3) * 0.4)
    bright = 1 + contrast * (leaves - 0.5) + light
    part.paint(crown & (part.y <= base), shade(leaf, np.clip(bright, 0.25, 1.9).astype(np.float32)), label, depth)


def paint_car(
    canvas: Canvas, label: int, x: float, base: float, height: float, depth: float, rng: np.random.Generator
) -> None:
    """A car from the side (saloon, hatchback, van) or from its end (with lights and a plate)."""
    paint, glass = pick(PAINTS, rng), pick([(0.15, 0.18, 0.22), (0.45, 0.52, 0.60), (0.25, 0.30, 0.32)], rng)
    if rng.random() < 0.6:
        _car_side(canvas, label, x, base, height, depth, paint, glass, rng)
    else:
        _car_end(canvas, label, x, base, height, depth, paint, glass, rng)


def _car_side(
    canvas: Canvas, label: int, x: float, base: float, height: float, depth: float, paint: RGB, glass: RGB,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    van, facing = rng.random() < 0.25, (1.0 if rng.random() < 0.5 else -1.0)
    half = height * rng.uniform(1.2, 1.5)
    front, back = (0.75, 0.92) if van else (rng.uniform(0.3, 0.5), rng.uniform(0.5, 0.85))
    part = canvas.clip(x - half, base - height, x + half, base)
    if part is None:
        return
    u, v = facing * (part.x - x) / half, (base - part.y) / height
    body = (v > 0.16) & (v < 0.60) & (np.abs(u) < 0.98 - 0.12 * np.abs(v - 0.38))
    lean = (v - 0.58) / 0.42
    cabin = (v >= 0.58) & (v < 1.0) & (u < front + 0.12 - 0.28 * lean) & (u > -back - 0.05 + 0.18 * lean)
    gloss = 0.85 + 0.35 * np.clip(v, 0, 1) + 0.15 * (np.abs(v - 0.5) < 0.06)
    part.paint(body | cabin, shade(paint, gloss.astype(np.float32)), label, depth)
    pane = cabin & (v > 0.62) & (v < 0.92) & (u < front + 0.04 - 0.28 * lean) & (u > -back + 0.04 + 0.18 * lean)
    pane &= np.abs(u + 0.12) > 0.035
    part.tint(pane, shade(glass, (0.7 + 0.6 * v).astype(np.float32)))
    part.tint(body & (u > 0.88) & (v > 0.40) & (v < 0.54), (0.95, 0.92, 0.75), glow=0.95)
    part.tint(body & (u < -0.90) & (v > 0.40) & (v < 0.54), (0.75, 0.10, 0.08), glow=0.8)
    for wheel in (-0.58, 0.58):
        radius = ((u - wheel) * half) ** 2 + ((v - 0.2) * height) ** 2
        part.paint(radius < (0.2 * height) ** 2, (0.07, 0.07, 0.08), label, depth, glow=0.0)
        part.tint(radius < (0.10 * height) ** 2, (0.60, 0.60, 0.62))


def _car_end(
    canvas: Canvas, label: int, x: float, base: float, height: float, depth: float, paint: RGB, glass: RGB,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    half, rear = height * rng.uniform(0.58, 0.68), rng.random() < 0.5
    part = canvas.clip(x - half, base - height, x + half, base)
    if part is None:
        return
    u, v = (part.x - x) / half, (base - part.y) / height
    tyres = (v >= 0) & (v < 0.3) & (np.abs(np.abs(u) - 0.78) < 0.15)
    part.paint(tyres, (0.06, 0.06, 0.07), label, depth)
    body = (v > 0.13) & (v < 0.62) & (np.abs(u) < 0.98 - 0.2 * np.clip(v - 0.5, 0, 1))
    roof = (v >= 0.6) & (v < 1.0) & (np.abs(u) < 0.90 - 0.5 * (v - 0.6))
    part.paint(body | roof, shade(paint, (0.8 + 0.4 * np.clip(v, 0, 1)).astype(np.float32)), label, depth)
    pane = (v > 0.64) & (v < 0.92) & (np.abs(u) < 0.80 - 0.5 * (v - 0.6))
    part.tint(pane, shade(glass, (0.6 + 0.7 * v).astype(np.float32)))
    lamp: RGB = (0.80, 0.10, 0.08) if rear else (0.97, 0.94, 0.80)
    part.tint(body & (np.abs(np.abs(u) - 0.78) < 0.16) & (v > 0.40) & (v < 0.54), lamp, glow=0.95)
    part.tint(body & (np.abs(u) < 0.25) & (v > 0.26) & (v < 0.36), (0.85, 0.85, 0.80))
    part.tint(body & (v < 0.2), (0.12, 0.12, 0.13))


def paint_person(
    canvas: Canvas, label: int, x: float, base: float, height: float, depth: float, rng: np.random.Generator
) -> None:
    """A standing or walking person: head, torso, arms, legs or a skirt."""
    shirt, trousers, skin = pick(CLOTHES, rng), pick(CLOTHES, rng), pick(SKINS, rng)
    hair = pick([(0.12, 0.09, 0.07), (0.35, 0.22, 0.12), (0.75, 0.62, 0.35), (0.55, 0.55, 0.55)], rng)
    stride, skirt, sleeves, bulk = (
        rng.uniform(0.02, 0.14),
        rng.random() < 0.25,
        rng.random() < 0.6,
        rng.uniform(0.85, 1.25),
    )
    half = 0.24 * height * bulk
    part = canvas.clip(x - half, base - height, x + half, base)
    if part is None:
        return
    u, v = (part.x - x) / height / bulk, (base - part.y) / height
    # Limbs never thinner than a pixel, or far persons would fall apart into dots.
    thick = max(0.045, 0.55 * canvas.pixel / height)
    spread = stride * np.clip((0.5 - v) / 0.5, 0, 1)
    legs = (v >= 0) & (v < 0.5) & (np.abs(np.abs(u) - spread - 0.04) < thick)
    if skirt:
        legs |= (v > 0.22) & (v < 0.52) & (np.abs(u) < 0.10 + 0.25 * (0.52 - v))
    torso = (v >= 0.46) & (v < 0.83) & (np.abs(u) < 0.095 + 0.06 * (v - 0.46))
    arms = (v > 0.44) & (v < 0.81) & (np.abs(np.abs(u) - 0.14 - stride * 0.3 * (0.8 - v)) < thick * 0.8)
    head = (u / 0.068) ** 2 + ((v - 0.92) / 0.08) ** 2 < 1
    fold = 1 + 0.35 * (part.texture(height * 0.07, stretch=0.6, offset=x * 40) - 0.5) - 0.5 * u
    part.paint(legs, shade(trousers, fold.astype(np.float32)), label, depth)
    part.tint(legs & (v < 0.045), (0.10, 0.09, 0.09))
    part.paint(arms, shade(shirt if sleeves else skin, (fold * 0.88).astype(np.float32)), label, depth)
    part.paint(torso, shade(shirt, fold.astype(np.float32)), label, depth)
    if rng.random() < 0.3:
        stripes = np.sin(v * 6.28 / 0.09) > 0
        part.tint(torso & stripes, blend(shirt, (0.9, 0.9, 0.9), np.full(v.shape, 0.6, np.float32)))
    part.paint(head, skin, label, depth)
    part.tint(head & (v > 0.94 - (0.06 if rng.random() < 0.4 else 0.0)), jitter(hair, rng, 0.02))
