"""EVAL: the labelled images of a probe, and the k-NN probe during a run."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from cwrgp.builders.data import build_images, build_normalize, root_of, unreadable_limit
from cwrgp.builders.errors import config_key
from cwrgp.builders.photos import check_range
from cwrgp.comm import get_rank
from cwrgp.data.augment.reference import build_test_transform
from cwrgp.data.base import LabelledImages
from cwrgp.data.image_findings import inspect_files
from cwrgp.data.subsets import ImageSubset, sample_indices
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.accuracy import Accuracy
from cwrgp.evaluation.features import check_finite
from cwrgp.evaluation.knn import check_neighbours, knn_accuracy
from cwrgp.evaluation.probe_data import ProbeData, Transform
from cwrgp.seeding import Stream

logger = logging.getLogger("cwrgp")


LEAVE_ONE_OUT = "knn_leave_one_out"


class NoLabels(ValueError):
    """The images that a probe would learn from have no labels."""


@dataclass
class ProbeResult:
    """The result of a probe.

    Attributes:
        protocol: name of the probe and of what it measures.
        accuracy: on the test images, at the end.
        train_images: number of images that the probe learnt from.
        test_images: number of test images.
        details: further results, as plain values.
        subset: names of the training images, where the probe learns from a part of them.
    """

    protocol: str
    accuracy: Accuracy
    train_images: int
    test_images: int
    details: dict[str, Any] = field(default_factory=dict)
    subset: list[str] | None = None


def build_probe_data(
    cfg: CfgNode, encoder: nn.Module, precision: Precision, *, max_images: int = 0
) -> ProbeData:
    """The labelled images of a probe.

    Args:
        cfg: validated.
        encoder: on its device.
        precision: number format and device of this process.
        max_images: use this many images of each split, sampled once; 0: all.

    Raises:
        NoLabels: the training images have no labels.
        ValueError, FileNotFoundError: as :func:`build_images`, or the test images have no labels.
    """
    warnings: list[str] = []
    train = _labelled_images(cfg, "train", max_images, warnings)
    assert train is not None
    test = _labelled_images(cfg, "test", max_images, warnings)
    return ProbeData(
        encoder=encoder,
        train=train,
        test=test,
        normalize=build_normalize(cfg, precision.device),
        precision=precision,
        batch_size=cfg.EVAL.BATCH_SIZE,
        num_workers=cfg.DATA.NUM_WORKERS,
        seed=cfg.SEED,
        unreadable_limit=functools.partial(unreadable_limit, cfg),
        warnings=tuple(warnings),
    )


def _labelled_images(
    cfg: CfgNode, split: str, max_images: int, warnings: list[str]
) -> LabelledImages | None:
    images = build_images(cfg, split)
    if images is None:
        return None
    labelled = (images.labels >= 0).nonzero()[0]
    key, root = root_of(cfg, split)
    if not len(labelled):
        raise (NoLabels if split == "train" else ValueError)(
            f"{key} {root}: the images of the probe's {split} split have no labels; a probe needs "
            "one folder per class (EVAL.ROOT names labelled images if DATA.ROOT has none)"
        )
    if missing := len(images) - len(labelled):
        first = images.name(int((images.labels < 0).argmax()))
        warnings.append(
            f"{key} {root}: {missing} of the {len(images)} images of the probe's {split} split "
            f"have no label (no class folder, no .cls) and are omitted; the first is {first}"
        )
    chosen = labelled[sample_indices(len(labelled), max_images, Stream.PROBE_SUBSET, cfg.SEED)]
    result = ImageSubset(images, chosen) if len(chosen) < len(images) else images
    check_range(cfg, result, inspect_files(result), split)
    return result


def build_probe(
    cfg: CfgNode, encoder: nn.Module, precision: Precision
) -> Callable[[], dict[str, float]]:
    """The k-NN probe during a run: a function without arguments, name -> accuracy.

    It returns {} where the images of ``DATA.ROOT`` have no labels. Without held-out images the
    probe is leave-one-out, under a name of its own.
    """
    try:
        data = build_probe_data(cfg, encoder, precision, max_images=cfg.EVAL.MAX_IMAGES)
    except NoLabels:
        if cfg.EVAL.ROOT:
            raise
        return dict
    transform, k = probe_transform(cfg, "bicubic"), cfg.EVAL.KNN_K
    with config_key("EVAL.KNN_K"):
        check_neighbours(k, len(data.train) - (data.test is None))
    warnings = list(data.warnings if get_rank() == 0 else ())

    def probe() -> dict[str, float]:
        while warnings:  # once, when the log is set up
            logger.warning(warnings.pop(0))
        result = knn_probe(data, transform, k)
        return {f"{result.protocol}/top1": result.accuracy.top1}

    return probe


def knn_probe(data: ProbeData, transform: Transform, k: int) -> ProbeResult:
    """k nearest neighbours; leave-one-out where there are no test images."""
    train = labelled_features(data, data.train, transform)
    test = () if data.test is None else labelled_features(data, data.test, transform)
    with config_key("EVAL.KNN_K"):
        top1 = knn_accuracy(*train, *test, k=k)
    protocol, num_test = ("knn", len(test[0])) if test else (LEAVE_ONE_OUT, len(train[0]))
    return ProbeResult(protocol, Accuracy(top1, None), len(train[0]), num_test)


def probe_transform(cfg: CfgNode, interpolation: str) -> Transform:
    """The transform of test images; the interpolation is the protocol's."""
    return build_test_transform(
        image_size=cfg.DATA.IMAGE_SIZE, resize=cfg.DATA.PROBE_RESIZE, interpolation=interpolation
    )


def labelled_features(
    data: ProbeData, images: LabelledImages, transform: Transform
) -> tuple[Tensor, Tensor]:
    """The features of labelled images and their labels.

    Raises:
        ValueError: a feature is not finite.
    """
    features, labels = data.features(images, transform)
    with config_key("SOLVER.AMP.ENABLED"):
        check_finite(features)
    return features, labels
