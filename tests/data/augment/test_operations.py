"""Each fast operation gives what torchvision gives for a PIL image, within stated grey levels."""

from __future__ import annotations

import numpy as np
import pytest
from photographs import differences, photograph
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cwrgp.data.augment import operations as ops

SIZES = [(120, 90), (224, 224), (1, 60), (60, 1), (7, 5), (32, 32)]
FACTORS = [0.0, 0.37, 0.6, 0.99, 1.0, 1.01, 1.4, 2.0]


def photos():
    for seed, size in enumerate(SIZES):
        yield photograph(*size, seed)
        yield photograph(*size, seed).convert("L").convert("RGB")  # no hue
    yield Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8))
    yield Image.fromarray(np.full((9, 9, 3), 255, dtype=np.uint8))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ops.adjust_brightness, F.adjust_brightness),
        (ops.adjust_contrast, F.adjust_contrast),
        (ops.adjust_saturation, F.adjust_saturation),
    ],
)
def test_colours_within_one_level(ours, theirs):
    for photo in photos():
        for factor in FACTORS:
            difference = differences(ours(np.asarray(photo), factor), theirs(photo, factor))
            assert difference.max() <= 1 and difference.mean() < 0.2, (photo.size, factor)


def test_hue_within_nine_levels():
    """And a fifth of a level on average; a level of hue is up to six of a colour."""
    means = []
    for photo in photos():
        for turns in (-0.5, -0.1, -0.01, 0.0, 0.003, 0.05, 0.1, 0.5):
            difference = differences(
                ops.adjust_hue(np.asarray(photo), turns), F.adjust_hue(photo, turns)
            )
            assert difference.max() <= 9, (photo.size, turns)
            means.append(difference.mean())
    assert np.mean(means) < 0.2


def test_grayscale_and_solarization():
    for photo in photos():
        pixels = np.asarray(photo)
        assert differences(ops.to_grayscale(pixels), F.rgb_to_grayscale(photo, 3)).max() <= 1
        assert (ops.solarize(pixels) == np.asarray(F.solarize(photo, 128))).all()
        assert (ops.flip(pixels) == np.asarray(F.horizontal_flip(photo))).all()


@pytest.mark.parametrize("kernel_size", [13, 23])
@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 1.0, 1.7, 2.0])
def test_blur_within_one_level(sigma, kernel_size):
    for seed in range(3):
        photo = photograph(60, 40, seed)
        expected = F.gaussian_blur(photo, [kernel_size] * 2, [sigma] * 2)
        difference = differences(ops.blur(np.asarray(photo), sigma, kernel_size), expected)
        assert difference.max() <= 1 and difference.mean() < 0.1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "box", "side"),
    [
        ((500, 375), (20, 31, 300, 400), 224),  # reduction
        ((500, 375), (0, 0, 375, 500), 96),
        ((100, 80), (11, 7, 40, 33), 224),  # enlargement
        ((100, 80), (0, 0, 64, 64), 64),  # neither
        ((500, 375), (5, 9, 300, 100), 224),  # one of each
        ((1, 60), (3, 0, 40, 1), 32),
        ((60, 1), (0, 3, 1, 40), 32),
    ],
)
def test_crop_and_resize_within_two_levels(size, box, side, interpolation):
    for seed in range(3):
        photo = photograph(*size, seed)
        expected = F.resized_crop(
            photo, *box, [side, side], interpolation=InterpolationMode(interpolation)
        )
        ours = ops.resized_crop(np.array(photo), *box, side, interpolation)
        difference = differences(ours, expected)
        assert ours.shape == (side, side, 3) and ours.flags.c_contiguous
        assert difference.max() <= 2 and difference.mean() < 0.3
