"""The operations of a view on one image, uint8 (H, W, 3), with the kernels of OpenCV and torch.

Each gives what torchvision gives for a PIL image with the same parameters, but for rounding: the
tests state how many grey levels it may differ.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from cwrgp.data.augment.spec import SOLARIZE_THRESHOLD

_LEVELS = np.arange(256)
_SOLARIZE = np.where(_LEVELS >= SOLARIZE_THRESHOLD, 255 - _LEVELS, _LEVELS).astype(np.uint8)
# OpenCV's degrees and share -> Pillow's levels of hue and saturation.
_TO_LEVELS = np.diag([255 / 360, 255, 1]).astype(np.float32)
_BLUR_REACH = 3.5  # sigmas; what lies beyond weighs less than half a grey level


def resized_crop(
    image: np.ndarray,
    top: int,
    left: int,
    height: int,
    width: int,
    size: int,
    interpolation: str,
) -> np.ndarray:
    """Crops a box and resizes it with antialiasing, to uint8 (size, size, 3)."""
    box = image[top : top + height, left : left + width]
    if interpolation == "bicubic":
        # Pillow clips between its two passes and torch does not, which differs by up to 15 levels.
        return np.array(Image.fromarray(box).resize((size, size), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(np.ascontiguousarray(box)).permute(2, 0, 1)[None]
    resized = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies all channels."""
    return cv2.LUT(image, (_LEVELS * factor).clip(0, 255).astype(np.uint8))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the mean grey of the image."""
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.LUT(image, (mean + (_LEVELS - mean) * factor).clip(0, 255).astype(np.uint8))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the grayscale image."""
    # Pillow truncates where OpenCV rounds; a little less than a half leaves whole numbers alone.
    return cv2.addWeighted(image, factor, to_grayscale(image), 1 - factor, -0.499)


def adjust_hue(image: np.ndarray, turns: float) -> np.ndarray:
    """Shifts the hue by a number of turns, in 255 steps, as Pillow's HSV images have them."""
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)
    levels = cv2.transform(hsv, _TO_LEVELS).astype(np.uint8)
    levels[..., 0] += np.uint8(int(turns * 255) & 255)
    return cv2.cvtColor(levels, cv2.COLOR_HSV2RGB_FULL)


def to_grayscale(image: np.ndarray) -> np.ndarray:
    """Luma in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def blur(image: np.ndarray, sigma: float, kernel_size: int) -> np.ndarray:
    """Gaussian blur; the border is reflected without repeating its pixels.

    Args:
        image: uint8 (H, W, 3).
        sigma: standard deviation in pixels.
        kernel_size: number of taps of the kernel, odd; taps that weigh nothing are omitted.
    """
    taps = min(2 * math.ceil(_BLUR_REACH * sigma) + 1, kernel_size)
    kernel = cv2.getGaussianKernel(taps, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def solarize(image: np.ndarray) -> np.ndarray:
    """Inverts the pixels of 128 and above."""
    return cv2.LUT(image, _SOLARIZE)


def flip(image: np.ndarray) -> np.ndarray:
    """Mirrors left and right."""
    return cv2.flip(image, 1)


JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
