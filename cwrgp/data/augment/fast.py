"""Views of an image file, all from one decoding, with fast kernels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cwrgp.data.augment import operations as ops
from cwrgp.data.augment.parameters import NUM_UNIFORMS, sample_parameters
from cwrgp.data.augment.spec import ViewSpec, blur_kernel_size
from cwrgp.data.encoded_image import EncodedImage
from cwrgp.seeding import Stream, numpy_generator


class FastViews:
    """Makes views with the kernels of libjpeg-turbo, OpenCV and torch, all from one decoding.

    A JPEG file much larger than the views is decoded at 1/2, 1/4 or 1/8 of its size, which is never
    below the resolution of a view.

    Args:
        specs: one for each view.
        seed: the run's.
    """

    def __init__(self, specs: Sequence[ViewSpec], *, seed: int) -> None:
        self.specs = list(specs)
        self.seed = seed

    def __call__(
        self, content: bytes | np.ndarray, name: str, *, epoch: int, index: int
    ) -> list[Tensor]:
        generator = numpy_generator(Stream.VIEW, self.seed, epoch, index)
        if isinstance(content, np.ndarray):
            views = sample_each(self.specs, content.shape[0], content.shape[1], generator)
            return [make_view(content, spec, view) for spec, view in views]
        image = EncodedImage(content, name)
        views = sample_each(self.specs, image.height, image.width, generator)
        pixels = image.decode(max(_needed_scale(spec, view) for spec, view in views))
        scale = (pixels.shape[0] / image.height, pixels.shape[1] / image.width)
        return [make_view(pixels, spec, view, scale) for spec, view in views]


def make_view(
    image: np.ndarray, spec: ViewSpec, view: dict[str, Any], scale: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """A view with given parameters, uint8 (3, S, S).

    Args:
        image: uint8 (H, W, 3).
        spec: the augmentation.
        view: the fields of `ViewParameters` for this view, as Python values.
        scale: rows and columns of ``image`` for each of those that the crop counts in.
    """
    if not spec.crop_first:
        image = _change_colours(image, spec, view)
    top, bottom = (round(scale[0] * y) for y in (view["top"], view["top"] + view["height"]))
    left, right = (round(scale[1] * x) for x in (view["left"], view["left"] + view["width"]))
    image = ops.resized_crop(
        image, top, left, bottom - top, right - left, spec.image_size, spec.interpolation
    )
    if spec.crop_first:
        image = _change_colours(image, spec, view)
    if view["sigma"]:
        image = ops.blur(image, view["sigma"], blur_kernel_size(spec.image_size))
    if view["solarize"]:
        image = ops.solarize(image)
    if view["flip"]:
        image = ops.flip(image)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _change_colours(image: np.ndarray, spec: ViewSpec, view: dict[str, Any]) -> np.ndarray:
    if view["jitter"]:
        for number in view["order"]:
            if spec.jitter[number]:
                image = ops.JITTER[number](image, view["factors"][number])
    return ops.to_grayscale(image) if view["grayscale"] else image


def sample_each(
    specs: Sequence[ViewSpec], height: int, width: int, generator: np.random.Generator
) -> list[tuple[ViewSpec, dict[str, Any]]]:
    """The parameters of each view: the fields of `ViewParameters` as Python values.

    Equal specs that follow each other are sampled at once, which saves time.
    """
    views = []
    for spec, group in groupby(specs):
        uniforms = generator.random((len(list(group)), NUM_UNIFORMS))
        fields = sample_parameters(spec, height, width, uniforms)._asdict()
        columns = [column.tolist() for column in fields.values()]
        views += [(spec, dict(zip(fields, row, strict=True))) for row in zip(*columns, strict=True)]
    return views


def _needed_scale(spec: ViewSpec, view: dict[str, Any]) -> float:
    """The scale at which the crop has the resolution of the view; all of it for small crops."""
    return spec.image_size / min(view["height"], view["width"])
