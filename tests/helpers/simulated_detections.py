"""Detections drawn from a model whose true AP is known, for the coverage of intervals.

An image has up to three objects of one class. An object has a quality that all runs share, and one
of each run; an arm and a seed move the quality of all objects. The score of a detection is the
quality; an object whose quality is low is not found. False detections have scores of their own, a
part of which all runs share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from d2_transfer.scoring.weighted import ClassMatches, class_aps

CLASSES = 10
_FALSE = 2.0  # false detections for each object
_FOUND = -1.0  # least quality of an object that is found


@dataclass(frozen=True)
class Spread:
    """Standard deviations, in units of the quality.

    Attributes:
        arm: of what an arm adds to an object, for all seeds.
        seed: of what a seed of an arm adds to all objects.
        run: of what a run adds to each object and false detection.
    """

    arm: float
    seed: float
    run: float


class Scene(NamedTuple):
    """Test images: the image and the class of each object, and of each place that may deceive."""

    images: int
    object_image: np.ndarray
    object_class: np.ndarray
    false_image: np.ndarray
    false_class: np.ndarray


def draw_scene(rng: np.random.Generator, images: int, objects_a_class: float) -> Scene:
    """Images with ``objects_a_class`` objects of each class on average, in clusters."""
    clusters = rng.poisson(objects_a_class * CLASSES / images / 2, images)  # 1 to 3 objects each
    image = np.repeat(np.arange(images), clusters)
    size = rng.integers(1, 4, len(image))
    label = rng.integers(0, CLASSES, len(image))
    false = rng.poisson(_FALSE * objects_a_class * CLASSES / images, images)
    return Scene(
        images,
        np.repeat(image, size),
        np.repeat(label, size),
        np.repeat(np.arange(images), false),
        rng.integers(0, CLASSES, false.sum()),
    )


def draw_runs(
    rng: np.random.Generator, scene: Scene, qualities: Sequence[float], seeds: int, s: Spread
) -> list[list[list[ClassMatches]]]:
    """For each arm, one a quality, and each seed: the matches of each class at one threshold."""
    objects, false = len(scene.object_image), len(scene.false_image)
    shared, deceit = rng.normal(0, 1, objects), rng.normal(-1.0, 1, false)
    arms = []
    for mean in qualities:
        of_arm = rng.normal(0, s.arm, objects + false)
        runs = []
        for _ in range(seeds):
            change = of_arm + rng.normal(0, s.run, objects + false)
            quality = shared + mean + rng.normal(0, s.seed) + change[:objects]
            runs.append(_matches(scene, quality, deceit + change[objects:]))
        arms.append(runs)
    return arms


def _matches(scene: Scene, quality: np.ndarray, deceit: np.ndarray) -> list[ClassMatches]:
    found = quality > _FOUND
    score = np.concatenate([quality[found], deceit])
    image = np.concatenate([scene.object_image[found], scene.false_image])
    label = np.concatenate([scene.object_class[found], scene.false_class])
    hit = np.arange(len(score)) < found.sum()
    matches = []
    order = np.lexsort((-score, label))
    ends = np.searchsorted(label[order], np.arange(CLASSES + 1))
    key = scene.object_class * scene.images + scene.object_image
    objects = np.bincount(key, minlength=CLASSES * scene.images).reshape(CLASSES, -1)
    for c in range(CLASSES):
        of_class = order[ends[c] : ends[c + 1]]
        none = np.zeros((1, len(of_class)), dtype=bool)
        matches.append(ClassMatches(image[of_class], hit[of_class][None], none, objects[c]))
    return matches


def mean_ap(matches: list[ClassMatches], weights: np.ndarray) -> np.ndarray:
    """Percent under each set of weights: float64 (r,)."""
    return 100 * np.nanmean(class_aps(matches, weights, "voc10")[:, :, 0], axis=1)


def true_ap(rng: np.random.Generator, quality: float, s: Spread, images: int) -> float:
    """AP of an arm on very many images, the mean over very many seeds."""
    scene = draw_scene(rng, images, images / CLASSES)
    once = np.ones((1, images))
    at, weight = np.polynomial.hermite_e.hermegauss(9)
    silent = Spread(s.arm, 0.0, s.run)
    aps = [
        mean_ap(draw_runs(rng, scene, [quality + s.seed * x], 1, silent)[0][0], once)[0] for x in at
    ]
    return float(np.dot(aps, weight) / weight.sum())
