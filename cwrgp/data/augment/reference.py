"""The reference path: torchvision's transforms on PIL images, and the transform of the probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from cwrgp.data.augment.spec import (
    ASPECT_RATIO,
    BLUR_SIGMA,
    INTERPOLATIONS,
    SOLARIZE_THRESHOLD,
    ViewSpec,
    blur_kernel_size,
)
from cwrgp.images import decode_rgb
from cwrgp.seeding import Stream, derive_seed, forked_generator

_MODES = {name: v2.InterpolationMode(name) for name in INTERPOLATIONS}


class ReferenceViews:
    """Makes views with transforms of PIL images.

    Args:
        transforms: one for each view: PIL image -> uint8 (3, H, W). They draw from torch's default
            generator.
        seed: the run's.
    """

    def __init__(self, transforms: Sequence[Callable[[Image.Image], Tensor]], *, seed: int) -> None:
        self.transforms = list(transforms)
        self.seed = seed

    def __call__(
        self, content: bytes | np.ndarray, name: str, *, epoch: int, index: int
    ) -> list[Tensor]:
        image = decode_rgb(content, name)
        with forked_generator(derive_seed(Stream.VIEW, self.seed, epoch, index)):
            return [transform(image) for transform in self.transforms]


def build_view_transform(spec: ViewSpec) -> v2.Compose:
    """The random transform from a PIL image to one view, uint8 (3, image_size, image_size).

    It draws from torch's default generator. Views stay uint8 until they are on the device, which
    takes a quarter of the memory between processes.
    """
    crop = v2.RandomResizedCrop(
        spec.image_size,
        scale=spec.crop_scale,
        ratio=ASPECT_RATIO,
        interpolation=_MODES[spec.interpolation],
        antialias=True,
    )
    colour: list[nn.Module] = [
        v2.RandomApply([v2.ColorJitter(*spec.jitter)], p=spec.jitter_prob),
        v2.RandomGrayscale(spec.grayscale_prob),
    ]
    steps = [crop, *colour] if spec.crop_first else [*colour, crop]
    if spec.blur_prob > 0:
        kernel = blur_kernel_size(spec.image_size)
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, BLUR_SIGMA)], p=spec.blur_prob))
    if spec.solarize_prob > 0:
        steps.append(v2.RandomSolarize(SOLARIZE_THRESHOLD, p=spec.solarize_prob))
    steps.append(v2.RandomHorizontalFlip(spec.flip_prob))
    return v2.Compose([*steps, v2.PILToTensor()])


def build_classifier_transform(image_size: int) -> v2.Compose:
    """The augmentation of ImageNet classifiers: crops of 8 to 100 % of the area, and flips.

    PIL image -> uint8 (3, image_size, image_size).
    """
    spec = ViewSpec(
        image_size=image_size,
        crop_scale=(0.08, 1.0),
        interpolation="bilinear",
        crop_first=True,
        jitter=(0.0, 0.0, 0.0, 0.0),
        jitter_prob=0.0,
        grayscale_prob=0.0,
        blur_prob=0.0,
        solarize_prob=0.0,
        flip_prob=0.5,
    )
    return build_view_transform(spec)


def build_test_transform(*, image_size: int, resize: int, interpolation: str) -> v2.Compose:
    """For evaluation: resize and centre crop, PIL image -> uint8 (3, image_size, image_size).

    Args:
        image_size: side of the crop in pixels.
        resize: length of the shorter side after the resize.
        interpolation: "bilinear" (ImageNet classifiers) or "bicubic" (probes of small images).
    """
    mode = _MODES[interpolation]
    return v2.Compose(
        [
            v2.Resize(resize, interpolation=mode, antialias=True),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )
