"""Views of an image, on the CPU, as the paper's recipes describe them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

INTERPOLATIONS = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
}


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

    Views stay uint8 until they are on the device: a quarter of the memory to move between
    processes. There are no defaults: those of a recipe stand in ``cwrgp/config/defaults.py`` only.

    Args:
        image_size: side of the crop in pixels.
        crop_scale: share of the image's area that the crop covers, least and most.
        interpolation: "bilinear" or "bicubic".
        crop_first: crop before the colours change (the ImageNet recipes, cheaper on large images);
            otherwise after it (CW-RGP's small-image recipes).
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_prob: probability of colour jitter.
        grayscale_prob: probability of grayscale.
        blur_prob: probability of Gaussian blur with sigma in [0.1, 2] pixels.
        solarize_prob: probability of solarization: pixels of 128 and above are inverted. It comes
            after the blur, as in BYOL (Grill et al., 2020, appendix B).
        flip_prob: probability of a horizontal flip.

    Raises:
        ValueError: unknown interpolation, a crop scale outside 0 < low <= high <= 1, or a
            probability outside [0, 1].
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"AUGMENT.INTERPOLATION {interpolation!r} is unknown; "
            f"choose one of {list(INTERPOLATIONS)}"
        )
    low, high = crop_scale
    if not 0 < low <= high <= 1:
        raise ValueError(f"AUGMENT.CROP_SCALE {(low, high)} is not 0 < low <= high <= 1")
    for name, probability in {
        "JITTER_PROB": jitter_prob,
        "GRAYSCALE_PROB": grayscale_prob,
        "BLUR_PROB": blur_prob,
        "SOLARIZE_PROB": solarize_prob,
        "FLIP_PROB": flip_prob,
    }.items():
        if not 0 <= probability <= 1:
            raise ValueError(f"AUGMENT.{name} {probability} is not a probability")
    crop = v2.RandomResizedCrop(
        image_size, scale=(low, high), interpolation=INTERPOLATIONS[interpolation], antialias=True
    )
    colour: list[nn.Module] = [
        v2.RandomApply([v2.ColorJitter(*jitter)], p=jitter_prob),
        v2.RandomGrayscale(grayscale_prob),
    ]
    steps = [crop, *colour] if crop_first else [*colour, crop]
    if blur_prob > 0:
        # Kernel of about a tenth of the side, as in SimCLR; odd as it must be.
        kernel = max(3, image_size // 10 // 2 * 2 + 1)
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, sigma=(0.1, 2.0))], p=blur_prob))
    if solarize_prob > 0:
        steps.append(v2.RandomSolarize(threshold=128, p=solarize_prob))
    steps.append(v2.RandomHorizontalFlip(flip_prob))
    return v2.Compose([*steps, v2.PILToTensor()])


def build_probe_transform(*, image_size: int, resize: int) -> v2.Compose:
    """For evaluation: shorter side to ``resize``, central square, uint8 (3, H, W)."""
    return v2.Compose(
        [
            v2.Resize(resize, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )


class Normalize(nn.Module):
    """uint8 images (B, 3, H, W) -> float32, (x / 255 - mean) / std, on the images' device.

    Args:
        mean: of the three channels, in units of [0, 1].
        std: likewise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(-1, 1, 1)))
        self.register_buffer("shift", (torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.scale.dtype) * self.scale - self.shift


def build_training_transform(image_size: int) -> v2.Compose:
    """What ImageNet classifiers are trained with: a random crop of 8 to 100 % of the area, and a
    flip. PIL image -> uint8 (3, image_size, image_size)."""
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


def build_test_transform(*, image_size: int, resize: int) -> v2.Compose:
    """What they are tested with: shorter side to ``resize``, bilinear, and the central square."""
    return v2.Compose(
        [
            v2.Resize(resize, interpolation=v2.InterpolationMode.BILINEAR, antialias=True),
            v2.CenterCrop(image_size),
            v2.PILToTensor(),
        ]
    )
