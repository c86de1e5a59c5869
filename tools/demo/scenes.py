"""Procedural scenes: textured backgrounds, objects with masks; a pure function of a generator.

An object's class lies in its shape and its parts (`shapes.py`). Colours, textures, light, size,
turn and slight deformation are drawn per object from the same distributions for every class. Which
parts are dark or light does belong to the class (a wheel has a dark tyre), so colour is a weak
cue, not none: over 600 portraits the neighbour in mean colour is of the same class in 27 to 29 of
100 cases, the neighbour in amount of edges in 31 to 33, by chance 17.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from shapes import CLASS_NAMES, paint
from textures import Floats, background, fractal_noise, lighting, oklab_to_srgb, random_lab, turned

SUPERSAMPLE = 3  # an odd number: a pixel shared by two surfaces always has one that covers more
MIN_VISIBLE = 0.5  # share of an object's own area that must stay visible
_PLACEMENTS = 8  # positions tried before an object is omitted


@dataclass(frozen=True)
class Scene:
    """An image and the objects that are visible in it."""

    image: NDArray[np.uint8]  # (H, W, 3), RGB
    masks: NDArray[np.bool_]  # (N, H, W), each object's visible pixels; no pixel belongs to two
    classes: tuple[int, ...]  # N indices into `shapes.CLASS_NAMES`
    visible: tuple[float, ...]  # N shares (0.5..1) of the objects' areas that can be seen


@dataclass(frozen=True)
class _Sprite:
    """An object on the supersampled canvas: where its window lies, its colours, its outline."""

    row: int
    column: int
    lab: Floats  # (h, w, 3)
    inside: NDArray[np.bool_]  # (h, w)
    class_index: int

    def windows(self, canvas: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of the canvas that the sprite covers, and the part of the sprite on it."""
        corner = np.array([self.row, self.column])
        start, stop = np.clip([corner, corner + self.inside.shape], 0, canvas)
        (top, left), (bottom, right) = start - corner, stop - corner
        area = (slice(start[0], stop[0]), slice(start[1], stop[1]))
        return area, (slice(top, bottom), slice(left, right))


def _draw_sprite(
    rng: np.random.Generator, class_index: int, side: float, surround: Floats
) -> _Sprite:
    """Draws an object about ``side`` canvas pixels large; its colours differ from ``surround``."""
    half = side / 2
    pixels = int(np.ceil(side * 1.3))  # room for the corners of a turned object
    line = (np.arange(pixels, dtype=np.float32) + 0.5 - pixels / 2) / np.float32(half)
    angle, shear = rng.normal(0, 0.3), rng.uniform(-0.2, 0.2)
    stretch, mirror = np.exp(rng.uniform(-0.18, 0.18)), rng.choice([-1.0, 1.0])
    u, v = turned(line, angle)
    bend, phase = rng.uniform(0, 0.07), rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    x, y = (u + np.float32(shear) * v) * np.float32(mirror * stretch), v / np.float32(stretch)
    bent_x, bent_y = (
        np.float32(bend) * np.sin(3 * z + p) for z, p in zip((y, x), phase, strict=True)
    )
    tones = paint(rng, CLASS_NAMES[class_index], x + bent_x, y + bent_y)
    lab = _palette(rng, surround)[tones]
    # The same surface noise and light for every class: they do not depend on it.
    relief = fractal_noise(rng, pixels, rng.uniform(2, 7), 2) - 0.5
    relief *= np.float32(rng.uniform(0.02, 0.22))
    turn = rng.uniform(0, 2 * np.pi)
    light = np.float32(np.cos(turn)) * u + np.float32(np.sin(turn)) * v
    lab[..., 0] += relief + light * np.float32(rng.uniform(0, 0.12))
    return _Sprite(0, 0, lab, tones > 0, class_index)


def _palette(rng: np.random.Generator, surround: Floats) -> Floats:
    """Five OKLab colours (5, 3): unused, base (unlike ``surround``), second, dark, light."""
    base = random_lab(rng, 8, (0.35, 0.85), (0.05, 0.18))
    distance = np.linalg.norm((base - surround) * np.array([1.0, 1.6, 1.6], np.float32), axis=1)
    # The first that is different enough: a camouflaged object would be a wrong label.
    far = distance > 0.17
    chosen = base[far.argmax() if far.any() else distance.argmax()]
    second = random_lab(rng, 1, (0.35, 0.85), (0.05, 0.18))[0]
    dark = random_lab(rng, 1, (0.18, 0.34), (0.0, 0.06))[0]
    light = random_lab(rng, 1, (0.85, 0.97), (0.0, 0.06))[0]
    return np.stack([chosen, chosen, second, dark, light])


def _owner(sprites: list[_Sprite], canvas: int) -> NDArray[np.uint8]:
    """(canvas, canvas): 0 for the background, else 1 + the index of the foremost sprite."""
    owner = np.zeros((canvas, canvas), np.uint8)
    for index, sprite in enumerate(sprites, start=1):
        area, own = sprite.windows(canvas)
        owner[area][sprite.inside[own]] = index
    return owner


def _visible(sprites: list[_Sprite], owner: NDArray[np.uint8]) -> tuple[float, ...]:
    """The share of each sprite's own area that `_owner` gives to it."""
    seen = np.bincount(owner.ravel(), minlength=len(sprites) + 1)[1:]
    return tuple(float(n / s.inside.sum()) for n, s in zip(seen, sprites, strict=True))


def _place(
    rng: np.random.Generator,
    placed: list[_Sprite],
    sprite: _Sprite,
    canvas: int,
    centred: float | None,
) -> list[_Sprite]:
    """Puts ``sprite`` in front of the others where everything stays visible; else omits it."""
    pixels = sprite.inside.shape[0]
    for _ in range(_PLACEMENTS):
        if centred is None:
            middle = rng.uniform(0.16, 0.84, 2) * canvas
        else:
            middle = canvas * (0.5 + rng.uniform(-centred, centred, 2))
        row, column = (int(round(m - pixels / 2)) for m in middle)
        trial = [*placed, replace(sprite, row=row, column=column)]
        if min(_visible(trial, _owner(trial, canvas))) >= MIN_VISIBLE:
            return trial
    return placed


def _mean_pool(values: NDArray[Any], factor: int = SUPERSAMPLE) -> Floats:
    """Means of factor x factor blocks; adding strided slices is much faster than reshaping."""
    total = np.zeros_like(values[::factor, ::factor], np.float32)
    for row, column in np.ndindex(factor, factor):
        total += values[row::factor, column::factor]
    return total / np.float32(factor**2)


def _compose(rng: np.random.Generator, surface: Floats, sprites: list[_Sprite]) -> Scene:
    """Paints sprites on an OKLab surface (size, size, 3); adds light and grain, finds the masks."""
    size = surface.shape[0]
    canvas = size * SUPERSAMPLE
    owner = _owner(sprites, canvas)
    paint_lab = np.zeros((canvas, canvas, 3), np.float32)
    for sprite in sprites:
        area, own = sprite.windows(canvas)
        inside = sprite.inside[own]
        paint_lab[area][inside] = sprite.lab[own][inside]
    cover = _mean_pool(owner > 0)[..., None]
    lit = surface * (1 - np.float32(rng.uniform(0.0, 0.3)) * _shadow(rng, cover[..., 0]))
    lab = (lit * (1 - cover) + _mean_pool(paint_lab)) * lighting(rng, size)
    noise = rng.standard_normal((size, size, 3), dtype=np.float32)
    noise *= np.float32(rng.uniform(0.004, 0.025))
    image = (np.clip(oklab_to_srgb(lab) + noise, 0, 1) * 255 + 0.5).astype(np.uint8)

    shares = [_mean_pool(owner == k) for k in range(len(sprites) + 1)]
    foremost = np.argmax(np.stack(shares), axis=0)
    masks = foremost[None] == np.arange(1, len(sprites) + 1)[:, None, None]
    classes = tuple(sprite.class_index for sprite in sprites)
    return Scene(image, masks, classes, _visible(sprites, owner))


def _shadow(rng: np.random.Generator, cover: Floats) -> Floats:
    """A soft shadow (size, size, 1) in 0..1 of what covers the surface, cast to a random side."""
    size = cover.shape[0]
    reach = max(1, size // 40)
    right, down = (int(n) for n in rng.integers(-reach, reach + 1, 2))
    solid = Image.fromarray((cover * 255).astype(np.uint8))
    soft = solid.filter(ImageFilter.GaussianBlur(size * 0.02))
    moved = Image.new("L", soft.size)
    moved.paste(soft, (right, down))
    return np.array(moved, np.float32)[..., None] * np.float32(1 / 255)


def draw_scene(
    rng: np.random.Generator, size: int, num_objects: int, scale: tuple[float, float] = (0.22, 0.55)
) -> Scene:
    """Draws a scene with up to ``num_objects`` objects of random classes.

    Args:
        rng: the only source of randomness.
        size: side of the square image, in pixels.
        num_objects: objects wanted; one that finds no place where it and all others stay at least
            half visible is omitted, so crowded scenes can have fewer (never none).
        scale: smallest and largest size of an object, relative to the image's side.

    Raises:
        ValueError: a size under 32 or fewer than one object.
    """
    if size < 32 or num_objects < 1:
        raise ValueError(f"size {size}, num_objects {num_objects}: needs size >= 32 and an object")
    canvas = size * SUPERSAMPLE
    surface = background(rng, size)
    surround = surface.mean(axis=(0, 1))
    sprites: list[_Sprite] = []
    for _ in range(num_objects):
        side = canvas * np.exp(rng.uniform(*np.log(scale)))
        sprite = _draw_sprite(rng, int(rng.integers(len(CLASS_NAMES))), side, surround)
        sprites = _place(rng, sprites, sprite, canvas, None if sprites else 0.28)
    return _compose(rng, surface, sprites)


def draw_portrait(rng: np.random.Generator, size: int, class_index: int) -> Scene:
    """Draws an object-centred image: one large object, sometimes another at the border behind.

    Args:
        rng: the only source of randomness.
        size: side of the square image, in pixels.
        class_index: the large object's class, an index into `shapes.CLASS_NAMES`. It is the last in
            the scene's ``classes`` and ``masks``.
    """
    canvas = size * SUPERSAMPLE
    surface = background(rng, size)
    surround = surface.mean(axis=(0, 1))
    main = _draw_sprite(rng, class_index, canvas * rng.uniform(0.75, 1.0), surround)
    sprites: list[_Sprite] = []
    if rng.random() < 0.15:
        other = _draw_sprite(
            rng, int(rng.integers(len(CLASS_NAMES))), canvas * rng.uniform(0.25, 0.4), surround
        )
        sprites = _place(rng, sprites, other, canvas, None)
    trial = _place(rng, sprites, main, canvas, 0.08)
    if len(trial) == len(sprites):  # the other would be hidden: omit it
        trial = _place(rng, [], main, canvas, 0.05)
    return _compose(rng, surface, trial)
