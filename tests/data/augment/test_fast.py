"""Views of an encoded image: a function of seed, epoch and index, and close to the reference."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from photographs import jpeg, photograph
from PIL import Image
from scipy import stats
from torchvision.transforms.v2 import functional as F

from cwrgp.data.augment.fast import FastViews, make_view, sample_each
from cwrgp.data.augment.reference import ReferenceViews, build_view_transform
from cwrgp.data.augment.spec import ViewSpec

VALUES = {
    "image_size": 64,
    "crop_scale": (0.2, 1.0),
    "interpolation": "bilinear",
    "crop_first": True,
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_prob": 0.8,
    "grayscale_prob": 0.2,
    "blur_prob": 0.5,
    "solarize_prob": 0.0,
    "flip_prob": 0.5,
}
SPEC = ViewSpec(**VALUES)
CROPS = ViewSpec(**VALUES | dict.fromkeys(["jitter_prob", "grayscale_prob", "blur_prob"], 0.0))


def test_views_are_a_function_of_seed_epoch_and_index():
    content = jpeg(photograph(300, 200))
    make = FastViews([SPEC] * 2, seed=3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = make(content, "photo", epoch=2, index=5)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first, make(content, "photo", epoch=2, index=5), strict=True):
        assert a.dtype == torch.uint8 and a.shape == (3, 64, 64) and torch.equal(a, b)
    assert not torch.equal(*first)
    others = FastViews([SPEC] * 2, seed=4)
    for other in (
        make(content, "photo", epoch=3, index=5),
        make(content, "photo", epoch=2, index=6),
        others(content, "photo", epoch=2, index=5),
    ):
        assert not torch.equal(first[0], other[0])


def test_pixels_give_the_views_of_the_file_that_holds_them():
    content = jpeg(photograph(90, 70))
    pixels = np.array(Image.open(io.BytesIO(content)))
    make = FastViews([SPEC] * 2, seed=0)
    for a, b in zip(
        make(content, "photo", epoch=0, index=0),
        make(pixels, "photo", epoch=0, index=0),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_whole_views_are_torchvisions_with_the_same_parameters():
    """All operations in their order, and a level or two of rounding."""
    photo = photograph(300, 200)
    spec = ViewSpec(**VALUES | {"jitter_prob": 1.0, "grayscale_prob": 0.0, "blur_prob": 1.0})
    steps = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    for seed in range(12):
        ((_, view),) = sample_each([spec], 200, 300, np.random.default_rng(seed))
        box = (view["top"], view["left"], view["height"], view["width"])
        expected = F.resized_crop(photo, *box, [64, 64])
        for number in view["order"]:
            expected = steps[number](expected, view["factors"][number])
        expected = F.gaussian_blur(expected, [13, 13], [view["sigma"]] * 2)
        if view["flip"]:
            expected = F.horizontal_flip(expected)
        difference = (
            make_view(np.asarray(photo), spec, view) - F.pil_to_tensor(expected).int()
        ).abs()
        assert difference.max() <= 12 and difference.float().mean() < 1


def test_large_files_are_decoded_at_a_smaller_scale_but_not_below_the_views():
    """The views of half the decoding differ little from those of a full one."""
    photo = photograph(1600, 1200)
    content = jpeg(photo, quality=95)
    make = FastViews([CROPS] * 3, seed=0)
    for index in range(4):
        small = make(content, "photo", epoch=0, index=index)
        full = make(np.asarray(photo), "photo", epoch=0, index=index)
        for a, b in zip(small, full, strict=True):
            assert (a.float() - b.float()).abs().mean() < 4


def test_the_decoding_is_never_below_the_resolution_of_a_view(monkeypatch):
    heights = []

    def resized_crop(image, top, left, height, width, size, interpolation):
        assert height >= size and width >= size
        heights.append(len(image))
        return np.zeros((size, size, 3), dtype=np.uint8)

    monkeypatch.setattr("cwrgp.data.augment.operations.resized_crop", resized_crop)
    content = jpeg(photograph(800, 600))
    for index in range(60):
        FastViews([CROPS], seed=0)(content, "photo", epoch=0, index=index)
    assert set(heights) == {150, 75}


def test_the_pixels_of_many_views_are_distributed_as_the_references():
    """The mean and contrast of views of one image."""
    content = jpeg(photograph(120, 90))
    ours = FastViews([SPEC], seed=0)
    theirs = ReferenceViews([build_view_transform(SPEC)], seed=0)
    values = {}
    for name, make in (("ours", ours), ("theirs", theirs)):
        views = [make(content, "photo", epoch=0, index=i)[0].float() for i in range(400)]
        values[name] = [(v.mean().item(), v.std().item(), v[0].mean().item()) for v in views]
    for a, b in zip(zip(*values["ours"]), zip(*values["theirs"]), strict=True):  # noqa: B905
        assert stats.ks_2samp(a, b).pvalue > 1e-4


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (2, 2)])
def test_tiny_images(size):
    (view,) = FastViews([SPEC], seed=0)(jpeg(photograph(*size)), "photo", epoch=0, index=0)
    assert view.shape == (3, 64, 64)
