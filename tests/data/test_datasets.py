"""Image folders, their labels, broken files, and views as a function of (seed, epoch, index)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from images import write_images
from PIL import Image

from cwrgp.data.augment import Normalize, build_probe_transform, build_view_transform
from cwrgp.data.datasets import ImageFolder, Views, build_dataset
from cwrgp.data.loaders import ProbeImages, StepSampler, iterate_views


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_first_level_of_folders_gives_the_labels(image_folder):
    images = ImageFolder(image_folder)
    assert (len(images), images.classes) == (128, ["cat", "dog"])
    assert images.labels == [0] * 64 + [1] * 64
    assert images.load(100).mode == "RGB"
    assert images.name(64).endswith("dog/000.png")


def test_a_flat_or_mixed_folder_has_no_labels(tmp_path):
    write_images(tmp_path / "a" / "deep", 2)
    assert ImageFolder(tmp_path).labels == [-1, -1]  # one class tells nothing
    write_images(tmp_path, 1)
    write_images(tmp_path / "b", 1)
    assert ImageFolder(tmp_path).labels == [-1] * 4


def test_train_and_val_are_used_where_they_are(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in "xy":
            write_images(tmp_path / split / name, count)
    sizes = [
        len(build_dataset("imagefolder", str(tmp_path), s)) for s in ("pretrain", "train", "test")
    ]
    assert sizes == [6, 6, 4]


def test_held_out_images_have_the_numbers_of_the_training_classes(tmp_path):
    for place in ("train/a", "train/b", "train/c", "val/c", "val/b"):
        write_images(tmp_path / place, 1)
    assert build_dataset("imagefolder", str(tmp_path), "test").labels == [1, 2]
    write_images(tmp_path / "val" / "d", 1)
    with pytest.raises(ValueError, match="val has the class d, which the training images have not"):
        build_dataset("imagefolder", str(tmp_path), "test")


def test_a_class_called_train_is_not_taken_for_a_split(tmp_path):
    for name in ("bus", "car", "train"):
        write_images(tmp_path / name, 1)
    with pytest.raises(ValueError, match="has images in train and in bus: is train a split or a"):
        build_dataset("imagefolder", str(tmp_path), "pretrain")


def test_a_link_to_a_folder_above_counts_nothing_twice(tmp_path):
    write_images(tmp_path / "a", 2)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(ImageFolder(tmp_path)) == 2
    (tmp_path / "0").symlink_to(tmp_path / "a")  # a link to a folder beside it is a folder
    assert ImageFolder(tmp_path).classes == ["0", "a"]


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    loaded = np.asarray(ImageFolder(tmp_path).load(0))
    assert (loaded == (grey >> 8)[..., None]).all()
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "grey.tif")
    with pytest.raises(OSError, match="grey.tif: 32 bits a pixel are not supported"):
        ImageFolder(tmp_path).load(1)


def test_no_held_out_part_is_none(image_folder):
    assert build_dataset("imagefolder", str(image_folder), "test") is None


@pytest.mark.parametrize(
    ("name", "make", "error", "message"),
    [
        ("imagefolder", False, FileNotFoundError, "gone does not exist; set DATA.ROOT"),
        ("imagefolder", True, ValueError, r"gone holds no image \(\.bmp, "),
        ("imagenet22k", False, ValueError, "DATA.NAME 'imagenet22k' is unknown; choose one of"),
        ("cifar10", True, FileNotFoundError, "cifar10 is not in DATA.ROOT"),
        ("stl10", True, FileNotFoundError, "stl10 is not in DATA.ROOT"),
    ],
)
def test_missing_data_is_an_error(tmp_path, name, make, error, message):
    root = tmp_path / "gone"
    if make:
        root.mkdir()
    with pytest.raises(error, match=message):
        build_dataset(name, str(root), "pretrain")


def views_of(folder, *, limit=0, seed=3, transform=None):
    return Views(
        ImageFolder(folder),
        transform or build_view_transform(image_size=16, blur_prob=0.5),
        num_views=2,
        seed=seed,
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
    assert len(batches) == 2 and len(views.unreadable) == 2
    assert torch.equal(views[0, 1][0], to_tensor(Image.open(tmp_path / "002.png")))

    strict = views_of(tmp_path, limit=1, transform=to_tensor)
    with pytest.raises(ValueError, match=r"^2 of 6 images cannot be read, more than DATA.MAX_UNRE"):
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
    transform = build_probe_transform(image_size=16, resize=20)
    probe = ProbeImages(ImageFolder(tmp_path), transform, [0, 2, 3])
    assert [label for _, label in (probe[i] for i in range(3))] == [0, 1, -1]
    assert probe[0][0].shape == probe[2][0].shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interpolation": "lanczos"}, "AUGMENT.INTERPOLATION 'lanczos' is unknown"),
        ({"crop_scale": (0.5, 0.2)}, r"AUGMENT.CROP_SCALE \(0.5, 0.2\) is not 0 < low"),
    ],
)
def test_transforms_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_view_transform(image_size=16, **arguments)


def test_normalization():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    expected = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(Normalize(mean, std)(images), expected, rtol=1e-5, atol=1e-5)
