"""Synthetic scenes: their masks are what was painted, a seed gives the same image again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dataset
import scenes
from dataset import DatasetSpec
from shapes import CLASS_NAMES, paint

SPEC = DatasetSpec(seed=3, unlabelled=6, classes_train=6, classes_val=6, train=5, val=4)


@pytest.mark.parametrize("index", range(12))
def test_masks_are_disjoint_inside_the_image_and_fill_their_boxes(index):
    scene = dataset.labelled_scene(SPEC, "train", index)
    size = SPEC.scene_size
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    annotations = dataset.coco_annotations(scene, 1, 1)
    assert len(scene.classes) == len(scene.masks) == len(scene.visible) == len(annotations)
    assert 1 <= len(scene.classes) <= SPEC.max_objects
    assert scene.masks.sum(axis=0).max() == 1
    assert min(scene.visible) >= 0.5 and max(scene.visible) <= 1
    for annotation, mask in zip(annotations, scene.masks, strict=True):
        x0, y0, width, height = map(int, annotation["bbox"])
        x1, y1 = x0 + width, y0 + height
        outside = mask.copy()
        outside[y0:y1, x0:x1] = False
        assert not outside.any()
        # Tight: each side of the box touches the mask.
        assert mask[y0, x0:x1].any() and mask[y1 - 1, x0:x1].any()
        assert mask[y0:y1, x0].any() and mask[y0:y1, x1 - 1].any()


def test_masks_cover_what_was_painted():
    """With the same draws but other colours, only pixels of objects (and their shadow) change."""
    rng = np.random.default_rng(5)
    surface = np.full((64, 64, 3), (0.9, 0.0, 0.0), np.float32)
    sprite = scenes._draw_sprite(rng, 2, 90.0, surface.mean(axis=(0, 1)))
    sprite = replace(sprite, row=30, column=30)
    scene = scenes._compose(np.random.default_rng(1), surface, [sprite])
    moved = replace(sprite, lab=sprite.lab - np.float32([0.3, 0, 0]))
    other = scenes._compose(np.random.default_rng(1), surface, [moved])
    changed = np.abs(scene.image.astype(int) - other.image).sum(axis=2) > 0
    mask = scene.masks[0]
    assert np.array_equal(mask, other.masks[0]) and mask.sum() > 200
    assert changed[mask].mean() > 0.99
    ring = np.zeros_like(mask)  # an edge pixel may be covered by less than half
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            ring |= np.roll(mask, (down, right), axis=(0, 1))
    assert not changed[~ring].any()


def test_an_image_depends_on_its_seed_and_index_alone():
    few, many = SPEC, replace(SPEC, unlabelled=1000, train=500)
    for draw in (
        lambda spec: dataset.unlabelled_image(spec, 4),
        lambda spec: dataset.labelled_scene(spec, "val", 2),
        lambda spec: dataset.class_image(spec, "val", 3)[0],
    ):
        first, again = draw(few), draw(many)
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(first.masks, again.masks) and first.classes == again.classes
        assert not np.array_equal(first.image, draw(replace(SPEC, seed=4)).image)
    train = dataset.labelled_scene(SPEC, "train", 2)
    assert not np.array_equal(train.image, dataset.labelled_scene(SPEC, "val", 2).image)


def test_another_process_draws_the_same():
    """Neither hash randomisation nor what was drawn before has a say."""
    code = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]; import dataset; "
        "scene = dataset.labelled_scene(dataset.DatasetSpec(seed=3), 'train', 4); "
        "print(hashlib.sha256(scene.image.tobytes() + scene.masks.tobytes()).hexdigest())"
    )
    paths = [str(Path(dataset.__file__).parent), str(Path(dataset.__file__).parents[2])]
    command = [sys.executable, "-c", code, *paths]
    other = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    scene = dataset.labelled_scene(SPEC, "train", 4)
    own = hashlib.sha256(scene.image.tobytes() + scene.masks.tobytes()).hexdigest()
    assert other == own


@pytest.mark.parametrize("class_index", range(len(CLASS_NAMES)))
def test_a_portrait_is_dominated_by_its_class(class_index):
    for seed in range(6):
        scene = scenes.draw_portrait(np.random.default_rng([seed, 1]), 72, class_index)
        areas = scene.masks.sum(axis=(1, 2))
        assert scene.classes[-1] == class_index
        assert areas.argmax() == len(areas) - 1 and areas[-1] > 0.08 * 72 * 72


def test_mean_colours_of_the_classes_overlap():
    """The mean colours of two classes' objects differ by less than objects of one class do."""
    means = []
    for class_index in range(len(CLASS_NAMES)):
        colours = []
        for seed in range(30):
            scene = scenes.draw_portrait(np.random.default_rng([seed, 9]), 48, class_index)
            colours.append(scene.image[scene.masks[-1]].mean(axis=0))
        means.append((np.mean(colours, axis=0), np.std(colours, axis=0)))
    centres = np.array([centre for centre, _ in means])
    within = np.mean([deviation for _, deviation in means])
    assert centres.std(axis=0).mean() < within
    assert within > 15  # grey levels: colours do vary


def test_wrong_arguments_say_what_is_wrong():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="size 16, num_objects 2: needs size >= 32 and an object"):
        scenes.draw_scene(rng, 16, 2)
    with pytest.raises(ValueError, match="num_objects 0"):
        scenes.draw_scene(rng, 64, 0)
    grid = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="unknown class 'dragon': use one of fish, "):
        paint(rng, "dragon", grid, grid)
