"""The demo's classes of objects. Each function paints parts on a grid of local coordinates.

A painter gets a generator, coordinates x (to the right), y (down), float32 of one shape, the object
filling about -1..1, and an index map (uint8) of zeros, into which it paints tones 1..4 (base,
second, dark, light). Shape and parts make the class; colours are drawn elsewhere, per object.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tones = NDArray[np.uint8]
BASE, SECOND, DARK, LIGHT = 1, 2, 3, 4


def _ellipse(x: Floats, y: Floats, cx: float, cy: float, rx: float, ry: float) -> NDArray[np.bool_]:
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def _box(x: Floats, y: Floats, x0: float, y0: float, x1: float, y1: float) -> NDArray[np.bool_]:
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def _fish(rng: np.random.Generator, x: Floats, y: Floats, tones: Tones) -> None:
    height = rng.uniform(0.4, 0.6)
    reach = np.clip(1 - ((x + 0.2) / 0.75) ** 2, 0, None)
    body = np.abs(y) < height * reach ** rng.uniform(0.5, 0.85)
    spread = rng.uniform(0.7, 1.15)
    tail = (x > 0.35) & (x < 0.95 - 0.35 * (1 - np.abs(y) / 0.5)) & (np.abs(y) < (x - 0.3) * spread)
    fin_x = rng.uniform(-0.3, 0.0)
    fins = (np.abs(x - fin_x - 0.35 * np.abs(y)) < 0.22) & (np.abs(y) < height + 0.24)
    tones[tail | fins] = SECOND
    tones[body] = BASE
    if rng.random() < 0.6:
        bars = np.sin((x + 0.15 * np.cos(3 * y)) * rng.uniform(11, 18) + rng.uniform(0, 6)) > 0.35
    else:
        bars = np.abs(y - rng.uniform(-0.1, 0.1)) < 0.09
    tones[body & bars & (x > -0.5)] = SECOND
    tones[body & (np.abs(x + 0.5 - 0.3 * y * y) < 0.03)] = DARK
    tones[_ellipse(x, y, -0.68, -0.08, 0.13, 0.13) & body] = LIGHT
    tones[_ellipse(x, y, -0.7, -0.08, 0.065, 0.065) & body] = DARK


def _mushroom(rng: np.random.Generator, x: Floats, y: Floats, tones: Tones) -> None:
    width = rng.uniform(0.17, 0.32)
    foot = rng.uniform(0.75, 0.98)
    stem = (np.abs(x) < width * (1 + 0.45 * (y - 0.2) ** 2)) & (y > -0.1) & (y < foot)
    tones[stem] = LIGHT
    tones[stem & (np.abs(y - 0.38 - 0.3 * x * x) < 0.05)] = SECOND
    brim, top = rng.uniform(-0.02, 0.18), rng.uniform(0.75, 1.1)
    span = rng.uniform(0.8, 1.0)
    cap = _ellipse(x, y, 0, brim, span, top) & (y < brim + 0.16 * x * x)
    tones[_ellipse(x, y, 0, brim, span * 0.93, 0.22) & (y >= brim)] = DARK
    tones[cap] = BASE
    for _ in range(int(rng.integers(3, 7))):
        px, py = rng.uniform(-0.7, 0.7), brim - rng.uniform(0.08, 0.75)
        spot = _ellipse(x, y, px, py, rng.uniform(0.09, 0.19), rng.uniform(0.08, 0.15))
        tones[cap & spot] = LIGHT


def _house(rng: np.random.Generator, x: Floats, y: Floats, tones: Tones) -> None:
    half, eaves, floor = rng.uniform(0.55, 0.75), rng.uniform(-0.2, 0.05), rng.uniform(0.7, 0.9)
    side = float(rng.choice([-1, 1]))
    chimney = _box(x * side, y, 0.22, -0.85, 0.42, eaves)
    tones[chimney] = DARK
    wall = _box(x, y, -half, eaves - 0.02, half, floor)
    tones[wall] = BASE
    slope = (eaves + 0.9) / (half + 0.2)
    roof = (y > -0.9 + np.abs(x) * slope) & (y < eaves)
    tones[roof] = SECOND
    tones[roof & (np.sin(y * rng.uniform(25, 45)) > 0.6)] = DARK
    door = rng.uniform(-0.25, 0.25)
    tones[_box(x, y, door - 0.13, floor - 0.48, door + 0.13, floor) & wall] = DARK
    for centre in (-half * 0.62, half * 0.62):
        if abs(centre - door) > 0.3:
            w = _box(x, y, centre - 0.14, eaves + 0.12, centre + 0.14, eaves + 0.42)
            tones[w & wall] = LIGHT
            cross = (np.abs(x - centre) < 0.025) | (np.abs(y - eaves - 0.27) < 0.025)
            tones[w & wall & cross] = DARK


def _wheel(rng: np.random.Generator, x: Floats, y: Floats, tones: Tones) -> None:
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    rim = rng.uniform(0.62, 0.76)
    tones[radius < 0.93] = DARK
    tones[radius < rim] = LIGHT
    spokes = int(rng.integers(4, 9))
    phase = ((angle / (2 * np.pi) + rng.random()) * spokes) % 1 - 0.5
    tones[(radius < rim) & (np.abs(phase) * radius * 2 * np.pi / spokes < 0.07)] = BASE
    tones[np.abs(radius - rim) < 0.045] = SECOND
    tones[radius < rng.uniform(0.16, 0.28)] = BASE
    tones[radius < 0.07] = DARK


def _star(rng: np.random.Generator, x: Floats, y: Floats, tones: Tones) -> None:
    radius, angle = np.hypot(x, y), np.arctan2(x, -y)
    wedge = (angle * 5 / (2 * np.pi)) % 1 - 0.5  # 0 in a valley's direction, +-0.5 on an arm
    arm = np.abs(wedge) * 2
    inner, curl = rng.uniform(0.36, 0.5), rng.uniform(1.1, 2.2)
    edge = inner + (0.97 - inner) * arm**curl
    tones[radius < edge] = BASE
    tones[(radius < edge) & (radius > edge - 0.1)] = SECOND
    beads = np.hypot((1 - arm) * radius * 0.63, (radius * 6) % 1 / 6 - 0.083) < 0.052
    tones[(radius < edge - 0.05) & beads & (radius > 0.15)] = LIGHT
    tones[radius < 0.1] = DARK


def _butterfly(rng: np.random.Generator, x: Floats, y: Floats, tones: Tones) -> None:
    ax: Floats = np.abs(x)
    upper = _ellipse(ax * 0.8 + y * 0.6, y * 0.8 - ax * 0.6, 0.12, -0.62, 0.4, 0.55)
    lower = _ellipse(ax, y, 0.38, 0.42, rng.uniform(0.3, 0.4), rng.uniform(0.34, 0.46))
    tones[lower] = SECOND
    tones[upper] = BASE
    spot_x, spot_y, spot = rng.uniform(0.5, 0.65), rng.uniform(-0.5, -0.35), rng.uniform(0.1, 0.2)
    tones[_ellipse(ax, y, spot_x, spot_y, spot, spot)] = LIGHT
    tones[_ellipse(ax, y, spot_x, spot_y, spot * 0.5, spot * 0.5)] = DARK
    tones[_ellipse(ax, y, 0.42, 0.45, 0.13, 0.13)] = LIGHT
    tones[_ellipse(x, y, 0, 0.05, 0.085, 0.62)] = DARK
    feelers = (np.abs(ax - 0.28 * (-0.5 - y)) < 0.028) & _box(x, y, -1, -0.95, 1, -0.5)
    tones[feelers & (tones == 0)] = DARK


PAINTERS = {
    painter.__name__[1:]: painter
    for painter in (_fish, _mushroom, _house, _wheel, _star, _butterfly)
}
CLASS_NAMES = tuple(PAINTERS)


def paint(rng: np.random.Generator, name: str, x: Floats, y: Floats) -> Tones:
    """Paints one object of class ``name`` on local coordinates; see the module for the index map.

    Raises:
        ValueError: no such class.
    """
    if name not in PAINTERS:
        raise ValueError(f"unknown class {name!r}: use one of {', '.join(PAINTERS)}")
    tones = np.zeros(x.shape, np.uint8)
    PAINTERS[name](rng, x, y, tones)
    return tones
