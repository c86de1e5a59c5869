"""What is done to an image to make a view of it: a distribution of augmentations."""

from __future__ import annotations

from dataclasses import dataclass

INTERPOLATIONS = ("bilinear", "bicubic")
BLUR_SIGMA = (0.1, 2.0)  # smallest and largest, in pixels
ASPECT_RATIO = (3 / 4, 4 / 3)  # of a crop
SOLARIZE_THRESHOLD = 128


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """The augmentation of one view. It has no defaults: the config has them.

    Attributes:
        image_size: side of the view in pixels.
        crop_scale: smallest and largest share of the image's area that the crop covers.
        interpolation: "bilinear" or "bicubic".
        crop_first: crop before the colours change (the ImageNet recipes; cheaper for large images)
            or after it (CW-RGP's recipes for small images).
        jitter: strengths of brightness, contrast, saturation and hue; 0 omits it.
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

    image_size: int
    crop_scale: tuple[float, float]
    interpolation: str
    crop_first: bool
    jitter: tuple[float, float, float, float]
    jitter_prob: float
    grayscale_prob: float
    blur_prob: float
    solarize_prob: float
    flip_prob: float

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation {self.interpolation!r} is unknown; choose one of "
                f"{', '.join(INTERPOLATIONS)}"
            )
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale {(low, high)} is not 0 < low <= high <= 1")
        for name in ("jitter", "grayscale", "blur", "solarize", "flip"):
            probability = getattr(self, f"{name}_prob")
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}_prob {probability} is outside [0, 1]")


def blur_kernel_size(image_size: int) -> int:
    """Taps of the Gaussian blur: a tenth of the side, as in SimCLR, and at least 3 sigma each way.

    A tenth of a small side would cut off most of the Gaussian: 9 taps at 96 pixels reach 2 sigma
    for the largest sigma of 2 pixels. The reflected border limits the kernel of tiny images.
    """
    tenth = image_size // 10 // 2 * 2 + 1
    three_sigma = 2 * round(3 * BLUR_SIGMA[1]) + 1
    return min(max(tenth, three_sigma), 2 * image_size - 1)
