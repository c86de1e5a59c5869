"""Data sets by name, image folders and their labels; what is missing is said."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
import torchvision
from images import write_images

from cwrgp.data.datasets import build_dataset
from cwrgp.data.folders import ImageFolder, read_class_list
from cwrgp.data.reader import load_rgb
from cwrgp.data.string_array import StringArray
from cwrgp.data.subsets import ImageSubset, sample_indices
from cwrgp.image_files import describe_suffixes
from cwrgp.seeding import Stream


def test_the_first_level_of_folders_gives_the_labels(image_folder):
    images = ImageFolder(image_folder)
    assert (len(images), images.classes) == (128, ["cat", "dog"])
    assert images.labels.tolist() == [0] * 64 + [1] * 64
    assert load_rgb(images, 100).mode == "RGB"
    assert images.name(64).endswith("dog/000.png")


def test_a_sample_depends_on_the_seed_and_keeps_name_and_label(image_folder):
    images = ImageFolder(image_folder)

    def sample(limit, seed=1, stream=Stream.SUBSET):
        return sample_indices(128, limit, stream, seed)

    assert sample(0) == sample(128) == sample(500) == list(range(128))
    chosen = sample(40)
    assert len(set(chosen)) == 40 and chosen == sample(70)[:40] != sample(40, seed=2)
    assert chosen != sample(40, stream=Stream.PROBE_SUBSET)
    subset = ImageSubset(images, chosen)
    assert len(subset) == len(subset.labels) == 40
    for number, index in enumerate(chosen):
        assert subset.name(number) == images.name(index)
        assert subset.labels[number] == images.labels[index]
    assert load_rgb(subset, 7).tobytes() == load_rgb(images, chosen[7]).tobytes()


def test_a_flat_folder_has_no_labels(tmp_path):
    write_images(tmp_path / "a" / "deep", 2)
    assert ImageFolder(tmp_path).labels.tolist() == [-1, -1]  # one class tells nothing
    write_images(tmp_path, 1)
    assert ImageFolder(tmp_path).labels.tolist() == [-1] * 3


def test_images_beside_the_class_folders_have_no_label(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            write_images(tmp_path / split / name, 2)
        write_images(tmp_path / split, 1)
    for split in ("pretrain", "train", "test"):
        images = build_dataset("imagefolder", str(tmp_path), split)
        assert images.labels.tolist() == [-1, 0, 0, 1, 1] and images.classes == ["a", "b"]
    write_images(tmp_path / "train" / "None", 1)
    assert ImageFolder(tmp_path / "train").labels.tolist() == [-1, 0, 1, 1, 2, 2]


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
    assert build_dataset("imagefolder", str(tmp_path), "test").labels.tolist() == [1, 2]
    write_images(tmp_path / "val" / "d", 1)
    with pytest.raises(
        ValueError, match="val has the class d, which the training images do not have"
    ):
        build_dataset("imagefolder", str(tmp_path), "test")


def test_a_class_called_train_is_not_taken_for_a_split(tmp_path):
    for name in ("bus", "car", "train"):
        write_images(tmp_path / name, 1)
    with pytest.raises(ValueError, match="has images in train and in bus: is train a split or a"):
        build_dataset("imagefolder", str(tmp_path), "pretrain")


def test_names_and_labels_are_arrays_which_workers_share(tmp_path):
    names = ["a/0.png", "a/ünï.png", "b/" + 40 * "x" + ".png"]
    for name in names:
        write_images(tmp_path / name[0], 1)
        (tmp_path / name[0] / "000.png").rename(tmp_path / name)
    raw = os.fsencode(tmp_path / "b") + b"/\xff.png"  # not UTF-8
    shutil.copy(tmp_path / names[0], raw)
    images = ImageFolder(tmp_path)
    assert type(images.files) is StringArray and images.files[-1] == "b/\udcff.png"
    assert sorted(images.files) == sorted([*names, "b/\udcff.png"])
    assert load_rgb(images, 3).size == (40, 40)
    with pytest.raises(IndexError):
        images.files[4]
    subset = ImageSubset(images, [2, 0])
    for array in (images.labels, subset.labels, subset.indices):
        assert array.dtype == np.int64
    (tmp_path / "b" / "\udcff.png").unlink()
    lists = [k for k, v in vars(images).items() if isinstance(v, list | tuple | dict)]
    assert lists == ["skipped", "classes"]


def test_a_link_to_a_folder_above_counts_nothing_twice(tmp_path):
    write_images(tmp_path / "a", 2)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(ImageFolder(tmp_path)) == 2
    (tmp_path / "0").symlink_to(tmp_path / "a")  # a link to a folder beside it is a folder
    assert ImageFolder(tmp_path).classes == ["0", "a"]


def test_hidden_files_and_folders_are_neither_images_nor_classes(tmp_path):
    for place in ("train/a", "train/b", "val/a", "val/b"):
        write_images(tmp_path / place, 2)
        (tmp_path / place / "._000.png").write_bytes(b"attributes of macOS")
        (tmp_path / place / ".DS_Store").write_bytes(b"")
    for place in ("train/.ipynb_checkpoints", "train/__MACOSX/a", ".thumbnails", "__MACOSX/a"):
        write_images(tmp_path / place, 1)
    images = build_dataset("imagefolder", str(tmp_path), "pretrain")
    assert (len(images), images.classes) == (4, ["a", "b"])
    assert images.skipped == {}  # nor are they counted
    assert len(build_dataset("imagefolder", str(tmp_path), "test")) == 4
    write_images(tmp_path / ".cache" / "photos", 2)  # the folder that the user names is read
    assert len(ImageFolder(tmp_path / ".cache" / "photos")) == 2
    for split in ("pretrain", "test"):
        imagenet = build_dataset("imagenet", str(tmp_path), split)
        assert imagenet.classes == ["a", "b"]


def test_files_that_are_no_images_are_counted_by_suffix(tmp_path):
    for name in ("a.HEIC", "b.heic", "list.txt", "noext"):
        (tmp_path / name).touch()
    message = (
        "holds no image .*; there are files of .heic \\(2\\), .txt \\(1\\), no suffix \\(1\\)$"
    )
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path)
    write_images(tmp_path, 1)
    assert ImageFolder(tmp_path).skipped == {".heic": 2, ".txt": 1, "": 1}
    counts = Counter({f".{i:02}": 20 - i for i in range(12)})
    assert describe_suffixes(counts).endswith(", .09 (11) and others")


def test_no_held_out_part_is_none(image_folder):
    assert build_dataset("imagefolder", str(image_folder), "test") is None


@pytest.mark.parametrize(
    ("name", "make", "error", "message"),
    [
        ("imagefolder", False, FileNotFoundError, "image folder .*gone does not exist"),
        ("imagefolder", True, ValueError, r"gone holds no image \(\.bmp, "),
        (
            "imagenet22k",
            False,
            ValueError,
            "data set 'imagenet22k' is unknown; choose one of imagefolder, cifar10",
        ),
        (
            "cifar10",
            True,
            FileNotFoundError,
            r"cifar10 is not in .*gone, or is damaged: looked for .*gone/cifar-10-b",
        ),
        (
            "cifar100",
            True,
            FileNotFoundError,
            r"import CIFAR100; CIFAR100\('.*gone', downl",
        ),
        ("stl10", True, FileNotFoundError, "stl10 is not in .*gone/stl10_binary; ge"),
        (
            "tiny_imagenet",
            True,
            FileNotFoundError,
            "looked for .*gone/train; get it with cur",
        ),
        (
            "imagenet",
            False,
            FileNotFoundError,
            "looked for .*gone/train/<wnid>/.*; get it from",
        ),
        (
            "webdataset",
            True,
            FileNotFoundError,
            r"no shard matches .*gone/\*.tar; name the .ta",
        ),
    ],
)
def test_missing_data_is_an_error(tmp_path, name, make, error, message):
    root = tmp_path / "gone"
    if make:
        root.mkdir()
    with pytest.raises(error, match=message):
        build_dataset(name, str(root), "pretrain")


def test_cifar_and_stl10_have_the_published_splits(tmp_path, monkeypatch):
    """The binary layouts themselves, with three images a file instead of thousands."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
    for factory, folder, key in (("CIFAR10", "cifar-10-batches-py", "labels"),
                                 ("CIFAR100", "cifar-100-python", "fine_labels")):  # fmt: skip
        kind = getattr(torchvision.datasets, factory)
        monkeypatch.setattr(kind, "_check_integrity", lambda self: True)  # of MD5 sums
        monkeypatch.setattr(kind, "_load_meta", lambda self: None)
        (tmp_path / folder).mkdir()
        for name, _ in kind.train_list + kind.test_list:
            content = pickle.dumps({"data": pixels, key: [2, 0, 1]})
            (tmp_path / folder / name).write_bytes(content)
        for split, count in (("pretrain", 3 * len(kind.train_list)), ("train", 3), ("test", 3)):
            images = build_dataset(factory.lower(), str(tmp_path), split)
            assert len(images) == (count if split != "train" else 3 * len(kind.train_list))
            assert images.labels[:3].tolist() == [2, 0, 1]
        assert images.dataset.targets is images.labels  # an array, no list that workers copy
        expected = pixels[1].reshape(3, 32, 32).transpose(1, 2, 0)
        assert (images.read(1) == expected).all()

    kind = torchvision.datasets.STL10
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for name, count in (("train", 2), ("test", 4), ("unlabeled", 5)):
        images = rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        images.tofile(folder / f"{name}_X.bin")
        np.arange(1, count + 1, dtype=np.uint8).tofile(folder / f"{name}_y.bin")
    labels = {
        split: build_dataset("stl10", str(tmp_path), split).labels.tolist()
        for split in ("pretrain", "train", "test")
    }
    assert labels == {"pretrain": [0, 1] + 5 * [-1], "train": [0, 1], "test": [0, 1, 2, 3]}


def make_imagenet(root, train=("n1", "n2", "n3"), val=("n1", "n2", "n3")):
    for split, names in (("train", train), ("val", val)):
        for number, name in enumerate(names):
            write_images(root / split / name, 1 + number, seed=number)


def test_imagenet_is_train_and_val(tmp_path):
    make_imagenet(tmp_path)
    for split in ("pretrain", "train", "test"):
        assert build_dataset("imagenet", str(tmp_path), split).labels.tolist() == [0, 1, 1, 2, 2, 2]


def test_imagenet_without_val_or_with_a_flat_one(tmp_path):
    make_imagenet(tmp_path, val=())
    assert len(build_dataset("imagenet", str(tmp_path), "pretrain")) == 6
    with pytest.raises(FileNotFoundError, match=r"looked for .*val/<wnid>/\*.JPEG; get it from"):
        build_dataset("imagenet", str(tmp_path), "test")
    write_images(tmp_path / "val", 2)
    with pytest.raises(FileNotFoundError, match="but its images are not in class folders; so"):
        build_dataset("imagenet", str(tmp_path), "test")


def test_imagenet100_has_the_classes_of_its_list_only(tmp_path):
    make_imagenet(tmp_path)
    names = tmp_path / "classes.txt"

    def images(split, text):
        names.write_text(text)
        return build_dataset(
            "imagenet100", str(tmp_path), split, classes=read_class_list(str(names))
        )

    for split in ("pretrain", "train", "test"):
        part = images(split, "n3\nn1\n\n")
        assert part.classes == ["n1", "n3"] and part.labels.tolist() == [0, 1, 1, 1]
    for text, message in [
        ("n1\nn9\n", r"has 2 classes, of which 1 are not in .*train: n9"),
        ("n1\nn2\nn1\n", "has the class n1 more than once"),
        ("n1\n", "has 1 classes; it needs two or more"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            images("pretrain", text)
    with pytest.raises(FileNotFoundError, match="class list gone.txt: no such file"):
        read_class_list("gone.txt")
    with pytest.raises(ValueError, match="the class list is not set; imagenet100 needs a file"):
        read_class_list("")


def test_tiny_imagenet_as_it_is_released(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n1", "n2"):
        write_images(root / "train" / name / "images", 2)
        (root / "train" / name / f"{name}_boxes.txt").write_text("n1_0.JPEG\t0\t0\t9\t9\n")
    write_images(root / "val" / "images", 3)
    annotations = root / "val" / "val_annotations.txt"
    rows = ["002.png\tn1\t0\t0\t9\t9", "000.png\tn2\t0\t0\t9\t9", "001.png\tn1\t0\t0\t9\t9"]
    annotations.write_text("\n".join(rows) + "\n")
    for place in (root, tmp_path):  # what was unpacked, or where
        assert build_dataset("tiny_imagenet", str(place), "pretrain").labels.tolist() == [
            0,
            0,
            1,
            1,
        ]
        test = build_dataset("tiny_imagenet", str(place), "test")
        assert test.labels.tolist() == [1, 0, 0] and test.classes == ["n1", "n2"]
        assert load_rgb(test, 0).size == (40, 40)
    annotations.write_text("\n".join(rows[1:]) + "\n")
    with pytest.raises(
        ValueError, match="gives 002.png the class of nothing, which .*train does n"
    ):
        build_dataset("tiny_imagenet", str(root), "test")
    annotations.unlink()
    with pytest.raises(FileNotFoundError, match=r"looked for .*val_annotations.txt; get it with"):
        build_dataset("tiny_imagenet", str(root), "test")
