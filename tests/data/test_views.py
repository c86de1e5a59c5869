"""Views as a function of (seed, epoch, index), and what becomes of broken files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from images import write_images
from PIL import Image, ImageOps

from cwrgp.builders.data import build_pretraining_images, build_specs, build_views
from cwrgp.cli import load_config
from cwrgp.config import get_cfg, unused_keys, validate_cfg
from cwrgp.data.augment.reference import (
    ReferenceViews,
    build_test_transform,
    build_view_transform,
)
from cwrgp.data.augment.spec import ViewSpec, blur_kernel_size
from cwrgp.data.folders import ImageFolder
from cwrgp.data.loaders import iterate_views
from cwrgp.data.normalize import Normalize
from cwrgp.data.samplers import StepSampler
from cwrgp.data.subsets import ImageSubset
from cwrgp.data.views import ProbeImages, Views

NOTHING = {
    "image_size": 16,
    "crop_scale": (1.0, 1.0),
    "interpolation": "bicubic",
    "crop_first": False,
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_prob": 0.0,
    "grayscale_prob": 0.0,
    "blur_prob": 0.0,
    "solarize_prob": 0.0,
    "flip_prob": 0.0,
}
USUAL = NOTHING | {
    "crop_scale": (0.2, 1.0),
    "jitter_prob": 0.8,
    "grayscale_prob": 0.1,
    "blur_prob": 0.5,
    "flip_prob": 0.5,
}


def view_transform(**values):
    return build_view_transform(ViewSpec(**values))


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def views_of(folder, *, limit=0, seed=3, transform=None):
    return Views(
        ImageFolder(folder),
        ReferenceViews([transform or view_transform(**USUAL)] * 2, seed=seed),
        max_unreadable=limit,
    )


def test_views_depend_on_seed_epoch_and_index_only(image_folder):
    views, others = views_of(image_folder), views_of(image_folder, seed=4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = views[2, 5]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    for a, b in zip(first, views[2, 5], strict=True):
        assert a.dtype == torch.uint8 and a.shape == (3, 16, 16) and torch.equal(a, b)
    assert not torch.equal(first[0], first[1])
    for other in (views[3, 5], views[2, 6], others[2, 5]):
        assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_are_counted_and_replaced(tmp_path, num_workers):
    write_images(tmp_path, 6)
    (tmp_path / "001.png").write_bytes(b"no image")
    (tmp_path / "004.png").write_bytes((tmp_path / "003.png").read_bytes()[:60])  # cut short
    views = views_of(tmp_path, limit=2, transform=to_tensor)
    sampler = StepSampler(6, 6, start_step=0, total_steps=2, seed=0)
    batches = list(iterate_views(views, sampler, num_workers=num_workers, pin_memory=False))
    assert len(batches) == 2 and len(views.reader.unreadable) == 2
    assert torch.equal(views[0, 1][0], to_tensor(Image.open(tmp_path / "002.png")))

    strict = views_of(tmp_path, limit=1, transform=to_tensor)
    with pytest.raises(
        ValueError, match=r"^2 of 6 images cannot be read, more than max_unreadable 1; "
    ):
        list(iterate_views(strict, sampler, num_workers=num_workers, pin_memory=False))


def test_a_folder_of_broken_images_is_an_error(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 3 images can be read; the first is"):
        views_of(tmp_path, limit=3)[0, 0]


def test_probe_images_mark_what_cannot_be_read(tmp_path):
    for name in "ab":
        write_images(tmp_path / name, 2)
    (tmp_path / "b" / "001.png").write_bytes(b"no image")
    transform = build_test_transform(image_size=16, resize=20, interpolation="bicubic")
    images = ImageSubset(ImageFolder(tmp_path), [0, 2, 3])
    probe = ProbeImages(images, transform, max_unreadable=1)
    assert [label for _, label in (probe[i] for i in range(3))] == [0, 1, -1]
    assert probe[0][0].shape == probe[2][0].shape == (3, 16, 16)
    with pytest.raises(ValueError, match="1 of 3 .* than DATA.MAX 0; the first is .*b/001.png"):
        ProbeImages(images, transform, limit_name="DATA.MAX")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"interpolation": "lanczos"},
            "interpolation 'lanczos' is unknown; choose one of bilinear",
        ),
        ({"crop_scale": (0.5, 0.2)}, r"crop_scale \(0.5, 0.2\) is not 0 < low"),
        ({"solarize_prob": 1.5}, r"solarize_prob 1.5 is outside \[0, 1\]"),
        ({"blur_prob": -0.1}, r"blur_prob -0.1 is outside"),
    ],
)
def test_transforms_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ViewSpec(**USUAL | arguments)


def test_normalization():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    expected = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(Normalize(mean, std)(images), expected, rtol=1e-5, atol=1e-5)


def random_image(side=16):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_solarization_inverts_the_upper_half_of_the_range():
    image = random_image()
    assert torch.equal(view_transform(**NOTHING)(image), to_tensor(image))
    pixels = to_tensor(image)
    expected = torch.where(pixels >= 128, 255 - pixels, pixels)
    always = view_transform(**NOTHING | {"solarize_prob": 1.0})
    assert torch.equal(always(image), expected)
    assert torch.equal(to_tensor(ImageOps.solarize(image)), expected)  # as INTL's code has it
    torch.manual_seed(0)
    sometimes = view_transform(**NOTHING | {"solarize_prob": 0.2})
    hits = sum(torch.equal(sometimes(image), expected) for _ in range(1000))
    assert abs(hits - 200) < 50  # 4 standard deviations


@pytest.mark.parametrize(
    ("side", "taps"), [(1, 1), (5, 9), (32, 13), (96, 13), (139, 13), (150, 15), (224, 23)]
)
def test_the_blur_reaches_three_sigma(side, taps):
    assert blur_kernel_size(side) == taps
    blurred = view_transform(**NOTHING | {"image_size": side, "blur_prob": 1.0})
    assert blurred(random_image(side)).shape == (3, side, side)


def config_of(**keys):
    cfg = get_cfg()
    for key, value in keys.items():
        section, _, name = key.partition("__")
        cfg[section][name] = value
    return cfg


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_views_that_differ(image_folder, backend):
    sizes = [24, 24, 16, 12]
    per_view = [
        {"IMAGE_SIZE": 24, "BLUR_PROB": 1.0},
        {"IMAGE_SIZE": 24, "BLUR_PROB": 0.1, "SOLARIZE_PROB": 0.2},
        {"IMAGE_SIZE": 16, "CROP_SCALE": [0.171, 0.857]},
        {"IMAGE_SIZE": 12, "FLIP_PROB": 0},
    ]
    cfg = config_of(DATA__NUM_VIEWS=4, AUGMENT__PER_VIEW=per_view)
    cfg.DATA.ROOT, cfg.AUGMENT.BACKEND, cfg.SOLVER.BATCH_SIZE = str(image_folder), backend, 32
    views = build_views(cfg, build_pretraining_images(cfg))
    sampler = StepSampler(128, 32, start_step=0, total_steps=2, seed=0)
    for num_workers in (0, 2):
        batches = list(iterate_views(views, sampler, num_workers=num_workers, pin_memory=False))
        assert len(batches) == 2
        for batch in batches:
            assert [tuple(view.shape) for view in batch] == [(32, 3, s, s) for s in sizes]


def test_a_view_differs_in_what_its_dictionary_names_only():
    """Each view is what these values give where they are those of all views."""
    changes = [{"SOLARIZE_PROB": 1.0, "IMAGE_SIZE": 8}, {}, {"CROP_SCALE": [0.1, 0.2]}]
    common = {"DATA__NUM_VIEWS": 3, "DATA__IMAGE_SIZE": 12}
    different = build_specs(config_of(**common, AUGMENT__PER_VIEW=changes))
    for change, spec in zip(changes, different, strict=True):
        keys = {("DATA__" if k == "IMAGE_SIZE" else "AUGMENT__") + k: v for k, v in change.items()}
        assert build_specs(config_of(**common | keys)) == [spec] * 3


@pytest.mark.parametrize(
    ("per_view", "message"),
    [
        ([{}], "AUGMENT.PER_VIEW describes 1 views, DATA.NUM_VIEWS is 2; give one dictionary for"),
        ([{}, {"BLUR": 0.1}], "PER_VIEW, view 1: unknown key BLUR; choose from BLUR_PROB, CROP_FI"),
        ([{"PER_VIEW": []}, {}], "AUGMENT.PER_VIEW, view 0: unknown key PER_VIEW"),
        ([{"BACKEND": "fast"}, {}], "AUGMENT.PER_VIEW, view 0: unknown key BACKEND"),
        ([{}, {"BLUR_PROB": 2}], r"view 1: BLUR_PROB 2 is outside \[0, 1\]"),
        ([{}, {"BLUR_PROB": "x"}], "view 1: BLUR_PROB 'x' must be of type float"),
        ([{}, {"IMAGE_SIZE": 9.5}], "view 1: IMAGE_SIZE 9.5 must be of type int"),
        ([{}, {"IMAGE_SIZE": 0}], "view 1: IMAGE_SIZE 0 is below 1"),
        ([{}, {"CROP_SCALE": [0.1]}], r"view 1: CROP_SCALE \[0.1\] must be a list of 2 numbers"),
        ([{}, {"JITTER": None}], "view 1: JITTER None must be a list of 4 numbers"),
    ],
)
def test_views_that_cannot_be_are_refused(per_view, message):
    cfg = config_of(DATA__ROOT="images", DATA__NUM_VIEWS=2, AUGMENT__PER_VIEW=per_view)
    with pytest.raises(ValueError, match=message):
        validate_cfg(cfg)


def test_a_key_that_every_view_replaces_has_no_effect_and_is_listed():
    cfg = config_of(DATA__NUM_VIEWS=2)
    cfg.AUGMENT.BLUR_PROB, cfg.AUGMENT.FLIP_PROB = 0.3, 0.4
    cfg.AUGMENT.PER_VIEW = [{"BLUR_PROB": 0.1, "FLIP_PROB": 0.1}, {"BLUR_PROB": 0.2}]
    build_specs(cfg)
    assert unused_keys(cfg) == ["AUGMENT.BLUR_PROB"]


def test_every_key_of_the_augmentation_is_read_where_no_view_differs():
    cfg = config_of(DATA__NUM_VIEWS=2)
    for name in set(cfg.AUGMENT) - {"PER_VIEW", "BACKEND", "DEVICE"}:
        cfg.given[f"AUGMENT.{name}"] = "pairs"
    build_specs(cfg)
    assert not [name for name in cfg.given if name not in cfg.read]


def test_views_from_a_command_line(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("AUGMENT:\n  PER_VIEW: [{IMAGE_SIZE: 9}, {IMAGE_SIZE: 8, BLUR_PROB: 0.5}]\n")
    for opts, sizes in (
        ([], [9, 8]),
        (["AUGMENT.PER_VIEW", "[{'IMAGE_SIZE': 7}, {}]"], [7, 224]),
        (["AUGMENT.PER_VIEW", "[]"], [224, 224]),
    ):
        cfg = get_cfg()
        load_config(cfg, str(file), opts)
        assert [spec.image_size for spec in build_specs(cfg)] == sizes


def test_no_default_of_a_view_contradicts_the_configuration():
    """It has none."""
    with pytest.raises(TypeError, match="missing 9 required keyword-only arguments"):
        ViewSpec(image_size=16)
