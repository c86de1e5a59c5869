"""Transforms of an image on the CPU: training views, classifier training, and tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

INTERPOLATIONS = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
}
BLUR_SIGMA = (0.1, 2.0)  # smallest and largest, in pixels


def build_view_transform(
    *,
    image_size: int,
    crop_scale: tuple[float, float],
    interpolation: str,
    crop_first: bool,
    jitter: tuple[float, float, float, float],
    jitter_prob: float,
    grayscale_prob: float,
    blur_prob: float,
    solarize_prob: float,
    flip_prob: float,
) -> v2.Compose:
    """The random transform from a PIL image to one view, uint8 (3, image_size, image_size).

    Views stay uint8 until they are on the device, which takes a quarter of the memory between
    processes. There are no default values here: they are in ``cwrgp/config/defaults.py`` only.

    Args:
        image_size: side of the crop in pixels.
        crop_scale: smallest and largest share of the image's area that the crop covers.
        interpolation: "bilinear" or "bicubic".
        crop_first: crop before the colours change (the ImageNet recipes; cheaper for large images)
            or after it (CW-RGP's recipes for small images).
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_prob: probability of colour jitter.
        grayscale_prob: probability of grayscale.
        blur_prob: probability of Gaussian blur with sigma in [0.1, 2] pixels.
        solarize_prob: probability of solarization, which inverts pixels of 128 and above. It
            follows the blur, as in BYOL (Grill et al., 2020, appendix B).
        flip_prob: probability of a horizontal flip.

    Raises:
        ValueError: unknown interpolation, a crop scale outside 0 < low <= high <= 1, or a
            probability outside [0, 1].
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation {interpolation!r} is unknown; choose one of {', '.join(INTERPOLATIONS)}"
        )
    low, high = crop_scale
    if not 0 < low <= high <= 1:
        raise ValueError(f"crop_scale {(low, high)} is not 0 < low <= high <= 1")
    for name, probability in {
        "jitter_prob": jitter_prob,
        "grayscale_prob": grayscale_prob,
        "blur_prob": blur_prob,
        "solarize_prob": solarize_prob,
        "flip_prob": flip_prob,
    }.items():
        if not 0 <= probability <= 1:
            raise ValueError(f"{name} {probability} is outside [0, 1]")
    crop = v2.RandomResizedCrop(
        image_size, scale=(low, high), interpolation=INTERPOLATIONS[interpolation], antialias=True
    )
    colour: list[nn.Module] = [
        v2.RandomApply([v2.ColorJitter(*jitter)], p=jitter_prob),
        v2.RandomGrayscale(grayscale_prob),
    ]
    steps = [crop, *colour] if crop_first else [*colour, crop]
    if blur_prob > 0:
        kernel = blur_kernel_size(image_size)
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, BLUR_SIGMA)], p=blur_prob))
    if solarize_prob > 0:
        steps.append(v2.RandomSolarize(threshold=128, p=solarize_prob))
    steps.append(v2.RandomHorizontalFlip(flip_prob))
    return v2.Compose([*steps, v2.PILToTensor()])


def blur_kernel_size(image_size: int) -> int:
    """Taps of the Gaussian blur: a tenth of the side, as in SimCLR, and at least 3 sigma each way.

    A tenth of a small side would cut off most of the Gaussian: 9 taps at 96 pixels reach 2 sigma
    for the largest sigma of 2 pixels. The reflected border limits the kernel of tiny images.
    """
    tenth = image_size // 10 // 2 * 2 + 1
    three_sigma = 2 * round(3 * BLUR_SIGMA[1]) + 1
    return min(max(tenth, three_sigma), 2 * image_size - 1)


def build_classifier_transform(image_size: int) -> v2.Compose:
    """The augmentation of ImageNet classifiers: crops of 8 to 100 % of the area, and flips.

    PIL image -> uint8 (3, image_size, image_size).
    """
    return build_view_transform(
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


def build_test_transform(*, image_size: int, resize: int, interpolation: str) -> v2.Compose:
    """For evaluation: resize and centre crop, PIL image -> uint8 (3, image_size, image_size).

    Args:
        image_size: side of the crop in pixels.
        resize: length of the shorter side after the resize.
        interpolation: "bilinear" (ImageNet classifiers) or "bicubic" (probes of small images).
    """
    mode = INTERPOLATIONS[interpolation]
    return v2.Compose(
        [
            v2.Resize(resize, interpolation=mode, antialias=True),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )


class Normalize(nn.Module):
    """uint8 images (B, 3, H, W) -> float32 (x / 255 - mean) / std, on the images' device.

    Args:
        mean: of R, G, B in units of [0, 1].
        std: standard deviation, likewise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(-1, 1, 1)))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.scale.dtype) * self.scale - self.shift
