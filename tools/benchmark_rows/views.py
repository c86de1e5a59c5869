"""Views of an image, on one core: against torchvision's first transforms on PIL images."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torchvision import transforms

from benchmark_rows.timing import Pair, Row
from cwrgp.data.augment.fast import FastViews
from cwrgp.data.augment.spec import ViewSpec
from cwrgp.data.resident import ResidentViews

PIPELINE = "torchvision v1 on PIL, PIL's Gaussian blur, ToTensor"
MULTI_CROP = [224, 224, 192, 160, 128, 96]


def rows() -> list[Row]:
    """Four views of photographs, a multi-crop recipe, large photographs, small images."""
    four = [224] * 4
    photographs = [
        Row(
            name="views: 4 x 224 px of 500 x 375",
            against=PIPELINE,
            prepare=partial(_files, (500, 375), 90, four, 16),
            amount=4 * 16,
            unit="views",
            target=2.7,
        ),
        Row(
            name="views: multi-crop, 6 of 224 to 96 px",
            against=PIPELINE,
            prepare=partial(_files, (500, 375), 90, MULTI_CROP, 16),
            amount=6 * 16,
            unit="views",
            target=2.7,
        ),
    ]
    large = [
        Row(
            name=f"views: 4 x 224 px of 2048 x 1536, {size} MB",
            against=PIPELINE,
            prepare=partial(_files, (2048, 1536), quality, four, 4),
            amount=4 * 4,
            unit="views",
            target=2.5,
        )
        for size, quality in (("0.3", 77), ("1", 94), ("1.3", 96))
    ]
    small = Row(
        name="views: 4 x 32 px, 256 images in memory",
        against=PIPELINE,
        prepare=_small,
        amount=4 * 256,
        unit="views",
        target=3,
    )
    return [*photographs, *large, small]


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """A synthetic photograph: gradients, edges and noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = rng.integers(4, width // 4), rng.integers(4, height // 4)
        draw.ellipse((x, y, x + int(w), y + int(h)), fill=tuple(rng.integers(0, 256, 3).tolist()))
    noise = rng.normal(0, 5, (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _files(size: tuple[int, int], quality: int, sides: Sequence[int], count: int) -> Pair:
    """Views of JPEG files in memory."""
    _one_core()
    files = []
    for seed in range(count):
        file = io.BytesIO()
        photograph(*size, seed).save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    ours = FastViews([_spec(side) for side in sides], seed=0)
    theirs = [_pipeline(side) for side in sides]

    def a() -> None:
        for index, content in enumerate(files):
            ours(content, "photograph", epoch=0, index=index)

    def b() -> None:
        for content in files:
            image = Image.open(io.BytesIO(content)).convert("RGB")
            for make in theirs:
                make(image)

    return a, b


def _small() -> Pair:
    """Views of CIFAR-10's recipe."""
    _one_core()
    images = [photograph(32, 32, seed) for seed in range(256)]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    ours = ResidentViews(pixels.permute(0, 3, 1, 2).contiguous(), [_small_spec()] * 4, seed=0)
    colours = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    theirs = transforms.Compose(
        [
            transforms.RandomApply([colours], 0.8),
            transforms.RandomGrayscale(0.1),
            transforms.RandomResizedCrop(
                32, (0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )

    def a() -> None:
        ours([(0, index) for index in range(256)])

    def b() -> None:
        for image in images:
            for _ in range(4):
                theirs(image)

    return a, b


def _one_core() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _spec(side: int) -> ViewSpec:
    return ViewSpec(
        image_size=side,
        crop_scale=(0.2, 1.0),
        interpolation="bilinear",
        crop_first=True,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_prob=0.8,
        grayscale_prob=0.2,
        blur_prob=0.5,
        solarize_prob=0.0,
        flip_prob=0.5,
    )


def _small_spec() -> ViewSpec:
    return ViewSpec(
        image_size=32,
        crop_scale=(0.2, 1.0),
        interpolation="bicubic",
        crop_first=False,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_prob=0.8,
        grayscale_prob=0.1,
        blur_prob=0.0,
        solarize_prob=0.0,
        flip_prob=0.5,
    )


def _pipeline(side: int) -> Callable[[Image.Image], torch.Tensor]:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(side, (0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([_blur], 0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )


def _blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
