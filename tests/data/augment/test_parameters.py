"""The distributions of the parameters are torchvision's: Kolmogorov-Smirnov and binomial tests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from cwrgp.data.augment.parameters import NUM_UNIFORMS, sample_parameters
from cwrgp.data.augment.spec import ASPECT_RATIO, BLUR_SIGMA, ViewSpec

SPEC = ViewSpec(
    image_size=32,
    crop_scale=(0.2, 1.0),
    interpolation="bilinear",
    crop_first=True,
    jitter=(0.4, 0.4, 0.2, 0.1),
    jitter_prob=0.8,
    grayscale_prob=0.2,
    blur_prob=0.5,
    solarize_prob=0.1,
    flip_prob=0.5,
)
NUM = 4000


def sample(height, width, spec=SPEC, seed=0):
    uniforms = np.random.default_rng(seed).random((NUM, NUM_UNIFORMS))
    return sample_parameters(spec, height, width, uniforms)


def same_distribution(ours, theirs):
    """Neither test would fail once in 10,000 repetitions if the distributions were equal."""
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(375, 500, (0.2, 1.0)), (32, 32, (0.2, 1.0)), (100, 700, (0.2, 1.0)), (90, 60, (0.03, 0.3))],
)
def test_crops_are_distributed_as_torchvisions(height, width, scale):
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(32, scale=scale, ratio=ASPECT_RATIO)
    image = torch.empty(3, height, width)
    theirs = [crop.make_params([image]) for _ in range(NUM)]
    ours = sample(height, width, dataclasses.replace(SPEC, crop_scale=scale))
    for name in ("top", "left", "height", "width"):
        same_distribution(getattr(ours, name), [params[name] for params in theirs])
    area = [params["height"] * params["width"] for params in theirs]
    same_distribution(ours.height * ours.width, area)
    assert (ours.top >= 0).all() and (ours.top + ours.height <= height).all()
    assert (ours.left >= 0).all() and (ours.left + ours.width <= width).all()


@pytest.mark.parametrize(("height", "width"), [(1, 400), (400, 1), (10, 500), (500, 10)])
def test_where_no_crop_fits_the_centre_is_taken(height, width):
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(32, scale=(0.9, 1.0), ratio=ASPECT_RATIO)
    theirs = crop.make_params([torch.empty(3, height, width)])
    ours = sample(height, width, dataclasses.replace(SPEC, crop_scale=(0.9, 1.0)))
    for name in ("top", "left", "height", "width"):
        assert (getattr(ours, name) == theirs[name]).all(), name


def test_colours_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    jitter = v2.ColorJitter(*SPEC.jitter)
    theirs = [jitter.make_params([]) for _ in range(NUM)]
    ours = sample(50, 50)
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for column, name in enumerate(names):
        same_distribution(ours.factors[:, column], [params[name] for params in theirs])
    # The 24 orders are equally frequent, as torch.randperm's are.
    _, counts = np.unique(ours.order, axis=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-4
    blur = v2.GaussianBlur(13, BLUR_SIGMA)
    sigma = [blur.make_params([])["sigma"][0] for _ in range(NUM)]
    same_distribution(ours.sigma[ours.sigma > 0], sigma)


def test_probabilities():
    ours = sample(50, 50)
    for happened, probability in (
        (ours.jitter, 0.8),
        (ours.grayscale, 0.2),
        (ours.sigma > 0, 0.5),
        (ours.solarize, 0.1),
        (ours.flip, 0.5),
    ):
        assert stats.binomtest(int(happened.sum()), NUM, probability).pvalue > 1e-4
    never = dataclasses.replace(
        SPEC, jitter_prob=0, grayscale_prob=0, blur_prob=0, solarize_prob=0, flip_prob=0
    )
    off = sample(50, 50, never)
    assert not any(
        np.any(x) for x in (off.jitter, off.grayscale, off.sigma, off.solarize, off.flip)
    )
    always = dataclasses.replace(
        SPEC, jitter_prob=1, grayscale_prob=1, blur_prob=1, solarize_prob=1, flip_prob=1
    )
    on = sample(50, 50, always)
    assert all(np.all(x) for x in (on.jitter, on.grayscale, on.sigma, on.solarize, on.flip))


def test_parameters_are_independent():
    """No two of them are functions of the same random number."""
    ours = sample(375, 500)
    places = [ours.top / (376 - ours.height), ours.left / (501 - ours.width)]
    columns = [
        *places,
        ours.height * ours.width,
        ours.jitter,
        *ours.factors.T,
        ours.grayscale,
        ours.sigma > 0,
    ]
    columns += [ours.solarize, ours.flip, ours.order[:, 0], ours.order[:, 1] > ours.order[:, 2]]
    correlation = np.corrcoef(np.stack(columns).astype(float))
    np.fill_diagonal(correlation, 0)
    assert abs(correlation).max() < 5 / np.sqrt(NUM)


def test_a_view_is_a_function_of_its_own_numbers():
    uniforms = np.random.default_rng(0).random((8, NUM_UNIFORMS))
    whole = sample_parameters(SPEC, 40, 60, uniforms)
    part = sample_parameters(SPEC, 40, 60, uniforms[3:5])
    for a, b in zip(whole, part, strict=True):
        assert (a[3:5] == b).all()
