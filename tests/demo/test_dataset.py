"""The demo's data set on disk: complete or absent, and what was drawn."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from dataset import STAMP, DatasetSpec, class_image, labelled_scene, write_dataset
from shapes import CLASS_NAMES

SPEC = DatasetSpec(
    seed=3,
    unlabelled=5,
    classes_train=12,
    classes_val=6,
    train=5,
    val=4,
    portrait_size=40,
    scene_size=64,
)
TINY = replace(SPEC, unlabelled=2, classes_train=6, classes_val=6, train=2, val=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "scenes"
    write_dataset(folder, SPEC)
    return folder


def load_coco(root, split):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / "coco" / "annotations" / f"{split}.json"))


@pytest.mark.parametrize(("split", "count"), [("train", SPEC.train), ("val", SPEC.val)])
def test_coco_holds_the_masks_that_were_drawn(root, split, count):
    coco = load_coco(root, split)
    assert [coco.cats[k]["name"] for k in sorted(coco.cats)] == list(CLASS_NAMES)
    assert len(coco.imgs) == count
    for image_id, image in coco.imgs.items():
        scene = labelled_scene(SPEC, split, image_id - 1)
        with Image.open(root / "coco" / split / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            assert np.array_equal(np.array(picture), scene.image)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert [a["category_id"] - 1 for a in annotations] == list(scene.classes)
        for annotation, mask in zip(annotations, scene.masks, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
            rle = annotation["segmentation"]
            assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
            assert annotation["area"] == coco_mask.area(rle) == mask.sum()


def test_class_folders_hold_their_class(root):
    for split, count in (("train", SPEC.classes_train), ("val", SPEC.classes_val)):
        for name in CLASS_NAMES:
            files = sorted((root / "classes" / split / name).iterdir())
            assert len(files) == count // len(CLASS_NAMES)
            for file in files:
                scene, class_index = class_image(SPEC, split, int(file.stem))
                assert CLASS_NAMES[class_index] == name
                with Image.open(file) as picture:
                    assert np.array_equal(np.array(picture), scene.image)


def test_an_image_does_not_depend_on_how_many_there_are(root, tmp_path):
    write_dataset(tmp_path / "few", TINY)
    pictures = [p for p in (tmp_path / "few").rglob("*") if p.suffix in (".jpg", ".png")]
    assert len(pictures) == 2 + 6 + 6 + 2 + 1
    for picture in pictures:
        assert picture.read_bytes() == (root / picture.relative_to(tmp_path / "few")).read_bytes()


def test_splits_and_seeds_differ():
    scenes = [
        labelled_scene(SPEC, "train", 0),
        labelled_scene(SPEC, "val", 0),
        labelled_scene(replace(SPEC, seed=4), "train", 0),
    ]
    assert len({scene.image.tobytes() for scene in scenes}) == 3


def test_an_interrupted_run_leaves_nothing_and_the_next_one_completes(tmp_path):
    def interrupt(done, total):
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "scenes", TINY, interrupt)
    assert list(tmp_path.iterdir()) == []

    killed = tmp_path / ".scenes.partial" / "unlabelled"  # kill -9 gives no time to clean up
    killed.mkdir(parents=True)
    (killed / "99999.jpg").write_bytes(b"half")
    calls = []
    write_dataset(tmp_path / "scenes", TINY, lambda *counts: calls.append(counts))
    assert calls == [(n, 17) for n in range(1, 18)]
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]
    assert len(list((tmp_path / "scenes" / "unlabelled").iterdir())) == TINY.unlabelled


@pytest.mark.parametrize("name", ["thesis.txt", STAMP])
def test_a_folder_with_files_is_refused_and_unharmed(tmp_path, name):
    (tmp_path / name).write_text("years of work")
    with pytest.raises(ValueError, match="exists: delete it, or choose another folder"):
        write_dataset(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "years of work"


def test_the_stamp_tells_what_was_drawn(root):
    assert json.loads((root / STAMP).read_text()) == asdict(SPEC)


def test_the_command_names_a_mistake_in_one_line(tmp_path, run_tool):
    (tmp_path / "file").touch()
    result = run_tool("tools/demo/dataset.py", tmp_path)
    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path} exists: delete it, or choose another folder\n"
    assert "Traceback" in run_tool("tools/demo/dataset.py", tmp_path, "--debug").stderr
    negative = run_tool("tools/demo/dataset.py", tmp_path / "new", "--seed", "-1")
    assert negative.returncode == 2
    assert negative.stderr == "error: --seed -1: must not be negative\n"
