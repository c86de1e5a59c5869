"""Annotations drawn on their images, as they are used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cwrgp.images import decode_rgb
from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage, Mask

CELL = 320  # px, the longer side of a drawn image
_GAP = 8
# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0))


def choose_samples(data: AnnotatedData, count: int, seed: int = 0) -> list[AnnotatedImage]:
    """Some images with objects, at random, in the order of the data."""
    with_objects = [image for image in data.images if image.things]
    chosen = np.random.default_rng(seed).permutation(len(with_objects))[:count]
    return [with_objects[number] for number in sorted(chosen)]


def draw(
    image: AnnotatedImage, classes: Sequence[str], pixel_range: Sequence[float] | None = None
) -> Image.Image:
    """An image with its boxes, masks and classes, at most `CELL` pixels wide and high.

    Args:
        image: with its file, and the size that its boxes are in.
        classes: names, each with a colour by its place.
        pixel_range: lowest and highest value of images with more than 8 bits.
    """
    assert image.file is not None and image.width is not None and image.height is not None
    content = image.file.read_bytes()
    picture = decode_rgb(content, str(image.file), pixel_range, turned=image.turned)
    scale = CELL / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    factor = size[0] / image.width, size[1] / image.height
    for thing in image.things:
        colour = _COLOURS[list(classes).index(thing.label) % len(_COLOURS)]
        if thing.mask is not None:
            picture = _with_mask(picture, thing.mask, colour, factor)
    pen = ImageDraw.Draw(picture)
    for thing in image.things:
        colour = _COLOURS[list(classes).index(thing.label) % len(_COLOURS)]
        x0, y0, x1, y1 = (v * factor[i % 2] for i, v in enumerate(thing.box))
        # A line is drawn on pixels, whose last one ends where the box ends.
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=2)
        label = f"{thing.label} (crowd)" if thing.crowd else thing.label
        area = pen.textbbox((x0 + 2, max(0, y0 - 12)), label)
        pen.rectangle(area, fill=colour)
        pen.text((x0 + 2, max(0, y0 - 12)), label, fill=(255, 255, 255))
    return picture


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in rows and columns on one."""
    columns = max(1, math.ceil(math.sqrt(len(pictures))))
    rows = math.ceil(len(pictures) / columns)
    side = CELL + _GAP
    whole = Image.new("RGB", (columns * side + _GAP, rows * side + _GAP), (255, 255, 255))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        whole.paste(picture, (_GAP + column * side, _GAP + row * side))
    return whole


def _with_mask(
    picture: Image.Image, mask: Mask, colour: tuple[int, int, int], factor: tuple[float, float]
) -> Image.Image:
    """The picture with a translucent mask."""
    from pycocotools import mask as rles  # noqa: PLC0415

    if isinstance(mask, list):
        area = Image.new("L", picture.size)
        pen = ImageDraw.Draw(area)
        for polygon in mask:
            pen.polygon([v * factor[i % 2] for i, v in enumerate(polygon)], fill=110)
    else:
        area = Image.fromarray(rles.decode(mask) * np.uint8(110)).resize(picture.size)
    return Image.composite(Image.new("RGB", picture.size, colour), picture, area)
