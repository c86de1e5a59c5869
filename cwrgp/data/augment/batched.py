"""Views of a batch of images of one size, on any device: products and elementwise operations.

The parameters come from the host, so a GPU is never waited for. Each operation gives what
torchvision gives for a PIL image with the same parameters, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cwrgp.data.augment.parameters import ViewParameters
from cwrgp.data.augment.spec import SOLARIZE_THRESHOLD, ViewSpec, blur_kernel_size

_LUMA = (0.299, 0.587, 0.114)


def make_batch(images: Tensor, spec: ViewSpec, views: ViewParameters) -> Tensor:
    """One view of each image.

    Args:
        images: uint8 (N, 3, H, W).
        spec: the augmentation.
        views: its parameters, N of each.

    Returns:
        uint8 (N, 3, S, S) on the device of the images.
    """
    planes = images.movedim(1, 0).float().contiguous()
    if not spec.crop_first:
        planes = _change_colours(planes, spec, views)
    planes = resized_crop(planes, views, spec.image_size, spec.interpolation)
    if spec.crop_first:
        planes = _change_colours(planes, spec, views)
    _apply(planes, views.sigma > 0, lambda x, chosen: blur(x, views.sigma[chosen], spec.image_size))
    _apply(planes, views.solarize, lambda x, _: torch.where(x >= SOLARIZE_THRESHOLD, 255 - x, x))
    return planes.to(torch.uint8).movedim(0, 1).contiguous()


def resized_crop(planes: Tensor, views: ViewParameters, size: int, interpolation: str) -> Tensor:
    """Crops a box of each image, resizes it with antialiasing, and mirrors it where it should be.

    Args:
        planes: float32 (3, N, H, W) in levels of grey.
        views: N crops and flips.
        size: side of the result.
        interpolation: "bilinear" or "bicubic".

    Returns:
        float32 (3, N, size, size), integers.
    """
    rows = resize_weights(views.top, views.height, planes, 2, size, interpolation)
    columns = resize_weights(views.left, views.width, planes, 3, size, interpolation)
    columns = torch.where(_send(views.flip, planes)[:, None, None], columns.flip(1), columns)
    # Pillow rounds and clips between its two passes too. Since version 13 it does the vertical one
    # first where that saves time; here the horizontal one is always first, as in Pillow 12.
    across = [_round(torch.bmm(plane, columns.mT)) for plane in planes]
    return _round(torch.stack([torch.bmm(rows, plane) for plane in across]))


def resize_weights(
    start: np.ndarray, length: np.ndarray, planes: Tensor, axis: int, size: int, interpolation: str
) -> Tensor:
    """The linear maps that crop and resize one axis of images.

    Pillow's resampling: a triangle (bilinear) or Keys' cubic with a = -0.5, stretched by the factor
    of a reduction, cut off at the border of the crop, and normalised.

    Args:
        start: first pixel of each crop, int64 (N,).
        length: of each crop in pixels, int64 (N,).
        planes: (3, N, H, W).
        axis: 2 for rows, 3 for columns.
        size: along this axis of the result.
        interpolation: "bilinear" or "bicubic".

    Returns:
        float32 (N, size, H or W) on the device of the images.
    """
    numbers = np.stack([start, start + length, length / size]).astype(np.float32)
    first, end, scale = _send(numbers, planes)[:, :, None, None]
    pixel = torch.arange(0.5, planes.shape[axis], device=planes.device)
    place = torch.arange(0.5, size, device=planes.device)[:, None]
    distance = (pixel - (first + place * scale)).abs_().div_(scale.clamp(min=1))
    weights = _KERNELS[interpolation](distance)
    weights *= (pixel > first) & (pixel < end)
    return weights.div_(weights.sum(2, keepdim=True))


def adjust_brightness(planes: Tensor, factors: Tensor) -> Tensor:
    """Multiplies all channels: float32 (3, N, H, W), factors (N, 1, 1)."""
    return _floor(planes * factors)


def adjust_contrast(planes: Tensor, factors: Tensor) -> Tensor:
    """Blends with the mean grey of each image."""
    mean = _luma(planes).mean((1, 2), keepdim=True).add_(0.5).floor_()
    return _floor(torch.lerp(mean, planes, factors))


def adjust_saturation(planes: Tensor, factors: Tensor) -> Tensor:
    """Blends with the grayscale image."""
    return _floor(torch.lerp(_luma(planes), planes, factors))


def adjust_hue(planes: Tensor, turns: Tensor) -> Tensor:
    """Shifts the hue by a number of turns, in 255 steps, as Pillow's HSV images have them."""
    red, green, blue = planes
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp(min=1)
    sector = torch.where(
        value == green, (blue - red).div_(divisor).add_(2), (red - green) / divisor + 4
    )
    sector = torch.where(value == red, (green - blue).div_(divisor), sector)
    # Pillow's image has 256 levels of hue, of which 255 are a turn.
    levels = _modulo(sector, 6.0).mul_(255 / 6).floor_().add_((turns * 255).trunc())
    sector = _modulo(levels, 256.0).mul_(6 / 255)
    saturation = (chroma * 255).div_(value.clamp(min=1)).floor_()
    amplitude = saturation.mul_(value).div_(255)
    shares = [2 - (sector - 3).abs_(), (sector - 2).abs_().sub_(1), (sector - 4).abs_().sub_(1)]
    return _round(torch.stack([value - share.clamp_(0, 1).mul_(amplitude) for share in shares]))


def to_grayscale(planes: Tensor) -> Tensor:
    """Luma in all three channels."""
    return _luma(planes).expand_as(planes)


def blur(planes: Tensor, sigma: np.ndarray, image_size: int) -> Tensor:
    """Gaussian blur of each image; the border is reflected without repeating its pixels."""
    weights = _send(_blur_weights(sigma, planes.shape[3], blur_kernel_size(image_size)), planes)
    return _round(torch.stack([weights @ (plane @ weights.mT) for plane in planes]))


JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def _change_colours(planes: Tensor, spec: ViewSpec, views: ViewParameters) -> Tensor:
    for place in range(len(JITTER)):
        for number, adjust in enumerate(JITTER):
            if not spec.jitter[number]:
                continue
            factors = views.factors[:, number, None, None].astype(np.float32)

            def operation(
                x: Tensor,
                chosen: np.ndarray,
                adjust: Callable[[Tensor, Tensor], Tensor] = adjust,
                factors: np.ndarray = factors,
            ) -> Tensor:
                return adjust(x, _send(factors[chosen], x))

            _apply(planes, views.jitter & (views.order[:, place] == number), operation)
    _apply(planes, views.grayscale, lambda x, _: to_grayscale(x))
    return planes


def _apply(
    planes: Tensor, chosen: np.ndarray, operation: Callable[[Tensor, np.ndarray], Tensor]
) -> None:
    """Replaces the chosen images, in place; their numbers are known on the host."""
    if chosen.any():
        numbers = _send(chosen.nonzero()[0], planes)
        planes.index_copy_(1, numbers, operation(planes.index_select(1, numbers), chosen))


def _send(array: np.ndarray, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if like.device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(like.device, non_blocking=True)


def _luma(planes: Tensor) -> Tensor:
    red, green, blue = planes
    return _round((red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2]))


def _modulo(x: Tensor, period: float) -> Tensor:
    """``x`` in [0, period), as torch.remainder, which is slower."""
    return x.sub_((x / period).floor_().mul_(period))


def _round(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_().clamp_(0, 255)


def _floor(x: Tensor) -> Tensor:
    return x.floor_().clamp_(0, 255)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp_(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5 at distances x >= 0."""
    near = ((1.5 * x - 2.5) * x).mul_(x).add_(1)
    far = ((-0.5 * x + 2.5) * x).sub_(4).mul_(x).add_(2)
    return torch.where(x < 1, near, far.mul_(x < 2))


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic}


def _blur_weights(sigma: np.ndarray, size: int, taps: int) -> np.ndarray:
    """float32 (N, size, size): the Gaussian with its reflected border."""
    reach = taps // 2
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    position = np.abs(np.arange(size)[:, None] + offsets)
    position = np.where(position >= size, 2 * (size - 1) - position, position)
    selection = np.zeros((size, len(offsets), size), dtype=np.float32)
    np.put_along_axis(selection, position[..., None], 1, axis=2)
    return np.einsum("nk,pkq->npq", kernel.astype(np.float32), selection)
