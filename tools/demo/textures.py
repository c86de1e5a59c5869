"""Colours and background textures of the demo's scenes: pure functions of a random generator.

Colours are drawn in OKLCH (lightness, chroma, hue: https://bottosson.github.io/posts/oklab/), where
equal steps look equally large, so "two colours that differ enough" can be said with one number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

_OKLAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ],
    np.float32,
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ],
    np.float32,
)


def oklab_to_srgb(lab: Floats) -> Floats:
    """Converts OKLab colours (..., 3) to gamma-encoded sRGB in 0..1, clipped into the gamut."""
    linear = np.clip(((lab @ _OKLAB_TO_LMS.T) ** 3) @ _LMS_TO_RGB.T, 0, 1)
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-6) ** (1 / 2.4) - 0.055
    ).astype(np.float32)


def random_lab(
    rng: np.random.Generator,
    count: int,
    lightness: tuple[float, float],
    chroma: tuple[float, float],
) -> Floats:
    """Draws ``count`` OKLab colours (count, 3) with any hue."""
    light = rng.uniform(*lightness, count)
    radius = rng.uniform(*chroma, count)
    hue = rng.uniform(0, 2 * np.pi, count)
    return np.stack([light, radius * np.cos(hue), radius * np.sin(hue)], axis=1).astype(np.float32)


def value_noise(rng: np.random.Generator, size: int, cells: tuple[float, float]) -> Floats:
    """Smooth noise (size, size) in about 0..1: a random lattice, enlarged with a cubic kernel.

    Args:
        rng: source of the lattice.
        size: side of the result, in pixels.
        cells: lattice cells per side, vertically and horizontally; unequal ones give fibres.
    """
    rows, columns = (int(np.ceil(c)) + 3 for c in cells)
    lattice = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    # A margin of one cell keeps the kernel's border handling out of the image.
    box = (1.0, 1.0, 1.0 + cells[1], 1.0 + cells[0])
    return np.asarray(lattice.resize((size, size), Image.Resampling.BICUBIC, box=box))


def fractal_noise(rng: np.random.Generator, size: int, cells: float, octaves: int = 3) -> Floats:
    """Sum of ``octaves`` noises, each twice as fine, half as strong; (size, size), about 0..1."""
    total = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        frequency = cells * 2**octave
        total += value_noise(rng, size, (frequency, frequency)) * np.float32(0.5**octave)
    return total / np.float32(2 - 0.5 ** (octaves - 1))


def turned(line: Floats, angle: float) -> tuple[Floats, Floats]:
    """Coordinates (n, n) of a square with sides ``line`` (n,), turned by ``angle`` radians."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * line[None, :] + s * line[:, None], c * line[:, None] - s * line[None, :]


def _grid(size: int, angle: float) -> tuple[Floats, Floats]:
    line = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return turned(line.astype(np.float32), angle)


def _smoothstep(x: Floats, low: float, high: float) -> Floats:
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _clouds(rng: np.random.Generator, size: int) -> Floats:
    return _smoothstep(fractal_noise(rng, size, rng.uniform(1.5, 6), 4), 0.25, 0.75)


def _stripes(rng: np.random.Generator, size: int) -> Floats:
    across, _ = _grid(size, rng.uniform(0, np.pi))
    wobble = (value_noise(rng, size, (3, 3)) - 0.5) * np.float32(rng.uniform(0, 0.12))
    wave = np.sin((across + wobble) * np.float32(2 * np.pi * rng.uniform(3, 13)))
    sharpness = rng.uniform(0.15, 1.0)
    return _smoothstep(wave, -sharpness, sharpness)


def _blotches(rng: np.random.Generator, size: int) -> Floats:
    noise = fractal_noise(rng, size, rng.uniform(3, 9), 2)
    levels = [_smoothstep(noise, t - 0.012, t + 0.012) for t in (0.42, 0.5, 0.6)]
    return np.mean(levels, axis=0, dtype=np.float32)


def _gradient(rng: np.random.Generator, size: int) -> Floats:
    along, _ = _grid(size, rng.uniform(0, 2 * np.pi))
    return np.clip(along * np.float32(rng.uniform(0.6, 1.2)) + 0.5, 0, 1)


def _fibres(rng: np.random.Generator, size: int) -> Floats:
    fine, coarse = rng.uniform(14, 30), rng.uniform(1.5, 5)
    cells = (fine, coarse) if rng.random() < 0.5 else (coarse, fine)
    return _smoothstep(value_noise(rng, size, cells), 0.2, 0.8)


def _tiles(rng: np.random.Generator, size: int) -> Floats:
    x, y = _grid(size, rng.uniform(0, np.pi))
    count = rng.uniform(3, 8)
    u, v = x * np.float32(count), y * np.float32(count * rng.choice([1.0, 1.0, 2.0]))
    row = np.floor(v)
    u = u + 0.5 * (row % 2) * np.float32(rng.random() < 0.6)  # bricks or a plain grid
    shade = rng.random((64, 64), dtype=np.float32)
    tone = shade[row.astype(int) % 64, np.floor(u).astype(int) % 64]
    joint = np.maximum(np.abs((u % 1) - 0.5), np.abs((v % 1) - 0.5)) > 0.45
    return np.where(joint, np.float32(0), 0.35 + 0.65 * tone).astype(np.float32)


def _pebbles(rng: np.random.Generator, size: int) -> Floats:
    noise = value_noise(rng, size, (rng.uniform(9, 20),) * 2)
    return _smoothstep(noise, 0.5, 0.62) * (0.5 + 0.5 * value_noise(rng, size, (6, 6)))


TEXTURES = (_clouds, _stripes, _blotches, _gradient, _fibres, _tiles, _pebbles)


def _one_texture(rng: np.random.Generator, size: int) -> Floats:
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    blend = np.clip(texture(rng, size), 0, 1)[..., None]
    first = random_lab(rng, 1, (0.35, 0.9), (0.0, 0.07))
    # The second colour is near the first: a background may be busy, but it stays one surface.
    second = first + rng.normal(0, 1, (1, 3)).astype(np.float32) * np.array(
        [0.08, 0.03, 0.03], np.float32
    )
    grain = (fractal_noise(rng, size, 12, 2) - 0.5)[..., None] * np.array([0.05, 0, 0], np.float32)
    return first + (second - first) * blend + grain


def background(rng: np.random.Generator, size: int) -> Floats:
    """A textured surface, or two that meet at a wavy line; OKLab, (size, size, 3) float32."""
    surface = _one_texture(rng, size)
    if rng.random() < 0.3:
        x, y = _grid(size, rng.normal(0, 0.25))
        wave = (value_noise(rng, size, (3, 3)) - 0.5) * np.float32(rng.uniform(0, 0.2))
        ground = _smoothstep(y + wave - np.float32(rng.uniform(-0.25, 0.25)), -0.008, 0.008)
        surface = surface + (_one_texture(rng, size) - surface) * ground[..., None]
    return surface


def lighting(rng: np.random.Generator, size: int) -> Floats:
    """A brightness factor (size, size, 1) around 1: light from one side and a slight vignette."""
    along, across = _grid(size, rng.uniform(0, 2 * np.pi))
    vignette = (along**2 + across**2) * np.float32(rng.uniform(0, 0.4))
    return (1 + along * np.float32(rng.uniform(0, 0.45)) - vignette)[..., None]
