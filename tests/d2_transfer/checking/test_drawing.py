"""Drawn annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_sets import BOXES, WIDTH, coco_set, save_turned
from PIL import Image

from d2_transfer.checking.drawing import CELL, choose_samples, draw, sheet
from d2_transfer.data.load import load_annotated

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


@pytest.mark.parametrize("orientation", [1, 6])
def test_boxes_are_where_the_objects_are(tmp_path: Path, orientation: int) -> None:
    """Also where the boxes ignore the orientation: the image is drawn as it is stored."""
    loaded = load_annotated(coco_set(tmp_path, save=save_turned(orientation)))
    for number, image in enumerate(loaded.data.images):
        pixels = np.asarray(draw(image, ("cat", "dog")))
        assert pixels.shape == (CELL * 60 // 80, CELL, 3)
        x0, y0, x1, y1 = (v * CELL // WIDTH for v in BOXES[number])
        colour = (BLUE, ORANGE)[number % 2]
        for y, x in ((y1 - 1, x0), (y1 - 1, x1 - 1), ((y0 + y1) // 2, x0)):
            assert tuple(pixels[y, x]) == colour
        # Inside is the object: blue of the cats, red of the dogs.
        assert pixels[(y0 + y1) // 2, (x0 + x1) // 2].argmax() == (2, 0)[number % 2]


def test_masks_and_crowds(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][1].update(
            iscrowd=1,
            bbox=[0, 0, 80, 60],
            segmentation={"size": [60, 80], "counts": [0, 60 * 40, 60 * 40]},
        )

    loaded = load_annotated(coco_set(tmp_path, change), masks=True)
    plain = load_annotated(coco_set(tmp_path, change))
    for number in (0, 1):
        with_mask = np.asarray(draw(loaded.data.images[number], ("cat", "dog"))).astype(int)
        without = np.asarray(draw(plain.data.images[number], ("cat", "dog"))).astype(int)
        changed = np.abs(with_mask - without).sum(axis=2) > 0
        x0, y0, x1, y1 = BOXES[0] if number == 0 else (0, 0, 40, 60)
        inside = np.zeros_like(changed)
        inside[4 * y0 : 4 * y1 + 1, 4 * x0 : 4 * x1 + 1] = True
        assert changed[inside].mean() > 0.85 and not changed[~inside][::7].mean() > 0.02


def test_16_bit_images_are_drawn_in_8_bits(tmp_path: Path) -> None:
    def save(image: Image.Image, path: Path, number: int) -> None:
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 16).save(path)

    loaded = load_annotated(coco_set(tmp_path, save=save), pixel_range=(0, 4095))
    pixels = np.asarray(draw(loaded.data.images[0], ("cat", "dog"), (0, 4095)))
    assert 90 < pixels[:8].mean() < 160


def test_samples_are_chosen_and_laid_out(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, lambda content: content["annotations"].pop(2)))
    chosen = choose_samples(loaded.data, 10)
    assert [image.id for image in chosen] == [1, 2, 4]
    assert len(choose_samples(loaded.data, 2)) == 2
    whole = sheet([draw(image, ("cat", "dog")) for image in chosen])
    assert whole.size == (2 * CELL + 24, 2 * CELL + 24)
