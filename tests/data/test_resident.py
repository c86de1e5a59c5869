"""Small data sets in memory: what is loaded, and views as a function of seed, epoch and index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from images import write_images
from PIL import Image

from cwrgp.data.augment.spec import ViewSpec
from cwrgp.data.folders import ImageFolder
from cwrgp.data.reader import ImageReader, load_rgb
from cwrgp.data.resident import NotResident, ResidentViews, iterate_resident, load_images
from cwrgp.data.samplers import StepSampler

SPEC = ViewSpec(
    image_size=16,
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


def pixels(images, index):
    return torch.from_numpy(np.array(load_rgb(images, index))).permute(2, 0, 1)


@pytest.mark.parametrize("num_threads", [0, 3])
def test_all_images_are_loaded_in_order(image_folder, num_threads):
    images = ImageFolder(image_folder)
    loaded = load_images(ImageReader(images), num_threads)
    assert loaded.dtype == torch.uint8 and loaded.shape == (128, 3, 40, 40)
    for index in (0, 63, 127):
        assert torch.equal(loaded[index], pixels(images, index))


def test_unreadable_images_are_counted_and_replaced_by_the_next(tmp_path):
    write_images(tmp_path, 6)
    for name in ("001", "002", "005"):
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    images = ImageFolder(tmp_path)
    reader = ImageReader(images, max_unreadable=3)
    loaded = load_images(reader, 2)
    assert reader.unreadable == [1, 2, 5]
    for index, source in enumerate([0, 3, 3, 3, 4, 0]):
        assert torch.equal(loaded[index], pixels(images, source))
    with pytest.raises(ValueError, match="2 of 6 images cannot be read, more than max_unreadable"):
        load_images(ImageReader(images, max_unreadable=1), 0)


def test_images_of_different_sizes_are_refused(tmp_path):
    write_images(tmp_path, 3, side=12)
    Image.new("RGB", (9, 12)).save(tmp_path / "x.png")
    with pytest.raises(NotResident, match=r"x.png has 9 x 12 pixels and an .* it 12 x 12$"):
        load_images(ImageReader(ImageFolder(tmp_path)), 2)


def test_images_that_need_too_much_memory_are_refused(image_folder, monkeypatch):
    monkeypatch.setattr("cwrgp.data.resident.MAX_BYTES", 2**19)
    with pytest.raises(NotResident, match=r"^128 images of 40 x 40 pixels need 0.0 GiB, more than"):
        load_images(ImageReader(ImageFolder(image_folder)), 0)


def test_views_are_a_function_of_seed_epoch_and_index():
    images = torch.randint(0, 256, (9, 3, 20, 20), dtype=torch.uint8)
    larger = ViewSpec(**{**SPEC.__dict__, "image_size": 24})
    views = ResidentViews(images, [SPEC, SPEC, larger], seed=0)
    keys = [(0, 3), (0, 5), (1, 3), (0, 0)]
    batch = views(keys)
    assert [tuple(v.shape) for v in batch] == [(4, 3, 16, 16)] * 2 + [(4, 3, 24, 24)]
    for key, *alone in zip(keys, *batch, strict=True):
        for view, expected in zip(views([key]), alone, strict=True):
            assert torch.equal(view[0], expected)
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch[0][0], batch[0][2])
    other = ResidentViews(images, [SPEC], seed=1)(keys)
    assert not torch.equal(other[0], batch[0])


def test_batches_are_the_same_wherever_a_run_starts():
    images = torch.randint(0, 256, (20, 3, 20, 20), dtype=torch.uint8)
    views = ResidentViews(images, [SPEC] * 2, seed=0)

    def batches(start):
        sampler = StepSampler(20, 8, start_step=start, total_steps=5, seed=0)
        return list(iterate_resident(views, sampler))

    for whole, part in zip(batches(0)[3:], batches(3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(whole, part, strict=True))
