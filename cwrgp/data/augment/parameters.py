"""The random parameters of views as a pure function of uniform random numbers, for many views."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cwrgp.data.augment.spec import ASPECT_RATIO, BLUR_SIGMA, ViewSpec

_ATTEMPTS = 10  # to find a crop that fits, as in torchvision
_CROP = 4 * _ATTEMPTS  # area, aspect ratio, top and left of each attempt
_COLOUR = 1 + 4 + 4  # whether, four strengths, four ranks of the order
_OTHER = 5  # grayscale, blur, sigma, solarization, flip
NUM_UNIFORMS = _CROP + _COLOUR + _OTHER


class ViewParameters(NamedTuple):
    """What is done in each of n views, in this order of operations unless ``crop_first`` is off.

    Attributes:
        top: first row of the crop, int64 (n,).
        left: first column, int64 (n,).
        height: of the crop in pixels of the image, int64 (n,).
        width: likewise, int64 (n,).
        jitter: whether the colours change, bool (n,).
        order: int64 (n, 4), in which they do: 0 brightness, 1 contrast, 2 saturation, 3 hue.
        factors: float64 (n, 4), of brightness, contrast and saturation (1: none), and the shift of
            the hue in turns (0: none).
        grayscale: bool (n,).
        sigma: of the blur in pixels, float64 (n,); 0: none.
        solarize: bool (n,).
        flip: bool (n,).
    """

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    jitter: np.ndarray
    order: np.ndarray
    factors: np.ndarray
    grayscale: np.ndarray
    sigma: np.ndarray
    solarize: np.ndarray
    flip: np.ndarray


def sample_parameters(
    spec: ViewSpec, height: int, width: int, uniforms: np.ndarray
) -> ViewParameters:
    """Parameters with the distributions of torchvision's transforms.

    Args:
        spec: the augmentation.
        height: of the images in pixels.
        width: likewise.
        uniforms: float64 (n, NUM_UNIFORMS) in [0, 1); independent, so that views are.
    """
    crop = _sample_crops(spec, height, width, uniforms[:, :_CROP])
    colour, other = uniforms[:, _CROP : _CROP + _COLOUR], uniforms[:, -_OTHER:]
    strength = np.array(spec.jitter)
    low, high = 1 - strength, 1 + strength
    low[:3] = low[:3].clip(min=0)
    low[3], high[3] = -strength[3], strength[3]
    sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * other[:, 2]
    return ViewParameters(
        *crop,
        jitter=colour[:, 0] < spec.jitter_prob,
        order=colour[:, 5:].argsort(axis=1),
        factors=low + (high - low) * colour[:, 1:5],
        grayscale=other[:, 0] < spec.grayscale_prob,
        sigma=np.where(other[:, 1] < spec.blur_prob, sigma, 0.0),
        solarize=other[:, 3] < spec.solarize_prob,
        flip=other[:, 4] < spec.flip_prob,
    )


def _sample_crops(
    spec: ViewSpec, height: int, width: int, uniforms: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Top, left, height and width: the first of ten random boxes that fits, or the centre."""
    area, ratio, down, right = np.moveaxis(uniforms.reshape(-1, _ATTEMPTS, 4), 2, 0)
    low, high = spec.crop_scale
    area = height * width * (low + (high - low) * area)
    first, last = math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])
    ratio = np.exp(first + (last - first) * ratio)
    w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    view, attempt = np.arange(len(uniforms)), fits.argmax(axis=1)
    w, h = w[view, attempt], h[view, attempt]
    top = (down[view, attempt] * (height - h + 1)).astype(np.int64)
    left = (right[view, attempt] * (width - w + 1)).astype(np.int64)
    if not fits.any(axis=1).all():
        none = ~fits.any(axis=1)
        h[none], w[none] = _largest(height, width)
        top[none], left[none] = (height - h[none]) // 2, (width - w[none]) // 2
    return top, left, h, w


def _largest(height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest box whose aspect ratio is allowed."""
    low, high = ASPECT_RATIO
    if width < low * height:
        return round(width / low), width
    if width > high * height:
        return height, round(height * high)
    return height, width
