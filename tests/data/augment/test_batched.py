"""Views of a batch: each operation gives what torchvision gives for a PIL image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from photographs import differences, photograph
from PIL import Image
from torchvision.transforms.v2 import functional as F

from cwrgp.data.augment import batched
from cwrgp.data.augment.fast import make_view
from cwrgp.data.augment.parameters import NUM_UNIFORMS, sample_parameters
from cwrgp.data.augment.spec import ViewSpec, blur_kernel_size

NUM = 24
SPEC = ViewSpec(
    image_size=32,
    crop_scale=(0.2, 1.0),
    interpolation="bicubic",
    crop_first=False,
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_prob=0.8,
    grayscale_prob=0.2,
    blur_prob=0.5,
    solarize_prob=0.2,
    flip_prob=0.5,
)


def photos(width=32, height=32):
    return [photograph(width, height, seed) for seed in range(NUM)]


def to_planes(images):
    """float32 (3, N, H, W)."""
    return torch.stack([F.pil_to_tensor(image) for image in images], dim=1).float()


def to_images(planes):
    assert (planes == planes.round()).all() and planes.min() >= 0 and planes.max() <= 255
    return list(planes.permute(1, 2, 3, 0).numpy())


def parameters(height, width, spec=SPEC):
    uniforms = np.random.default_rng(0).random((NUM, NUM_UNIFORMS))
    return sample_parameters(spec, height, width, uniforms)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("width", "height", "size"), [(32, 32, 32), (96, 96, 64), (20, 33, 32), (64, 64, 9)]
)
def test_crop_and_resize_within_two_levels(width, height, size, interpolation):
    """Against Pillow's two passes, the horizontal one first in every version of Pillow."""
    views = parameters(height, width)
    images = photos(width, height)
    resized = batched.resized_crop(to_planes(images), views, size, interpolation)
    mode = Image.Resampling[interpolation.upper()]
    for number, ours in enumerate(to_images(resized)):
        top, left, h, w, flip = (
            int(x[number]) for x in (views.top, views.left, views.height, views.width, views.flip)
        )
        crop = F.crop(images[number], top, left, h, w)
        expected = crop.resize((size, h), mode).resize((size, size), mode)
        expected = F.horizontal_flip(expected) if flip else expected
        difference = differences(ours, expected)
        assert difference.max() <= 2 and difference.mean() < 0.1


@pytest.mark.parametrize("number", range(4))
def test_colours(number):
    theirs = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue][number]
    ours = batched.JITTER[number]
    images = photos() + [Image.new("RGB", (32, 32), (g, g, g)) for g in (0, 100, 255)]
    rng = np.random.default_rng(0)
    factors = rng.uniform(0.2, 1.8, len(images)) if number < 3 else rng.uniform(-0.5, 0.5, 27)
    tensor = torch.from_numpy(factors).float()[:, None, None]
    changed = to_images(ours(to_planes(images), tensor))
    levels, means = (9 if number == 3 else 1), []
    for image, factor, got in zip(images, factors, changed, strict=True):
        difference = differences(got, theirs(image, float(factor)))
        assert difference.max() <= levels
        means.append(difference.mean())
    assert np.mean(means) < 0.2


def test_grayscale_and_blur():
    images = photos()
    sigma = np.linspace(0.1, 2, NUM)
    taps = blur_kernel_size(32)
    grey = to_images(batched.to_grayscale(to_planes(images)))
    blurred = to_images(batched.blur(to_planes(images), sigma, 32))
    for image, s, g, b in zip(images, sigma, grey, blurred, strict=True):
        assert differences(g, F.rgb_to_grayscale(image, 3)).max() <= 1
        difference = differences(b, F.gaussian_blur(image, [taps] * 2, [s] * 2))
        assert difference.max() <= 1 and difference.mean() < 0.05


@pytest.mark.parametrize("crop_first", [False, True])
def test_a_batch_is_what_the_workers_make_of_the_same_parameters(crop_first):
    """Several operations in a row; solarization may invert a pixel that differs by one level."""
    spec = dataclasses.replace(SPEC, crop_first=crop_first, solarize_prob=0.0)
    images = photos()
    views = parameters(32, 32, spec)
    batch = torch.stack([F.pil_to_tensor(i) for i in images])
    made = batched.make_batch(batch, spec, views)
    assert made.dtype == torch.uint8 and made.shape == (NUM, 3, 32, 32) and made.is_contiguous()
    columns = {name: column.tolist() for name, column in views._asdict().items()}
    for number, image in enumerate(images):
        view = {name: column[number] for name, column in columns.items()}
        expected = make_view(np.asarray(image), spec, view)
        difference = (made[number].int() - expected.int()).abs().float()
        assert difference.mean() < 1 and difference.quantile(0.99) <= 8


def test_solarization_inverts_the_upper_half_of_the_range():
    off = dict.fromkeys(("jitter_prob", "grayscale_prob", "blur_prob", "flip_prob"), 0.0)
    spec = dataclasses.replace(SPEC, crop_scale=(1.0, 1.0), solarize_prob=1.0, **off)
    batch = torch.randint(0, 256, (NUM, 3, 32, 32), dtype=torch.uint8)
    uniforms = np.full((NUM, NUM_UNIFORMS), 0.5)  # the whole image
    made = batched.make_batch(batch, spec, sample_parameters(spec, 32, 32, uniforms))
    assert torch.equal(made, torch.where(batch >= 128, 255 - batch, batch))


def test_an_image_does_not_depend_on_its_neighbours():
    batch = torch.randint(0, 256, (NUM, 3, 32, 32), dtype=torch.uint8)
    views = parameters(32, 32)
    whole = batched.make_batch(batch, SPEC, views)
    few = batched.make_batch(batch[5:8], SPEC, type(views)(*(x[5:8] for x in views)))
    assert torch.equal(whole[5:8], few)
