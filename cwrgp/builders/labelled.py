"""DATA and EVAL: the labelled images of a probe, as features and as batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from cwrgp.builders.data import build_images
from cwrgp.comm import get_rank, get_world_size
from cwrgp.data.augment import (
    Normalize,
    build_probe_transform,
    build_test_transform,
    build_training_transform,
)
from cwrgp.data.base import LabelledImages
from cwrgp.data.labelled_views import LabelledViews
from cwrgp.data.loaders import ProbeImages, iterate_views
from cwrgp.data.samplers import EpochSampler
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.features import extract_features
from cwrgp.evaluation.linear import build_classifier
from cwrgp.evaluation.supervised import Supervised


def with_labels(images: LabelledImages) -> list[int]:
    """Numbers of the images that have one."""
    return [i for i, label in enumerate(images.labels) if label >= 0]


class Labelled:
    """The labelled images that probes learn from and are asked about: as features, and as batches.

    Args:
        cfg: validated.
        encoder: on its device.
        precision: number format and device of this process.
    """

    def __init__(self, cfg: CfgNode, encoder: nn.Module, precision: Precision) -> None:
        self.cfg, self.encoder, self.precision = cfg, encoder, precision
        self.device = precision.device
        self.normalize = Normalize(cfg.DATA.MEAN, cfg.DATA.STD).to(self.device)
        train = build_images(cfg, "train")
        assert train is not None
        self.train, self.test = train, build_images(cfg, "test")
        self.root = cfg.EVAL.ROOT or cfg.DATA.ROOT
        for images in (self.train, self.test):
            if images is not None and max(images.labels) < 0:
                raise ValueError(
                    f"the images of {self.root} have no labels; a probe needs a folder for each "
                    "class (EVAL.ROOT takes labelled images for those of DATA.ROOT)"
                )
        self.num_classes = 1 + max(max(i.labels) for i in (self.train, self.test) if i is not None)

    def held_out(self) -> LabelledImages:
        """The test images, without which nothing but k-NN makes sense."""
        if self.test is None:
            raise ValueError(
                f"{self.root} has no held-out images (train with val or test beside it); only knn "
                "goes without"
            )
        return self.test

    def features(self, images: LabelledImages, *, bilinear: bool = False) -> tuple[Tensor, Tensor]:
        """Features (n, F) and labels (n,) of all labelled images, on every process."""
        c = self.cfg
        build = build_test_transform if bilinear else build_probe_transform
        transform = build(image_size=c.DATA.IMAGE_SIZE, resize=c.DATA.PROBE_RESIZE)
        known = with_labels(images)
        features, labels = extract_features(
            self.encoder,
            ProbeImages(images, transform, known),
            normalize=self.normalize,
            batch_size=c.EVAL.BATCH_SIZE,
            num_workers=c.DATA.NUM_WORKERS,
            device=self.device,
            autocast=self.precision.autocast(),
        )
        if (skipped := len(known) - len(features)) > c.DATA.MAX_UNREADABLE or not len(features):
            raise ValueError(
                f"{skipped} of {len(known)} images of {self.root} cannot be read, more than "
                f"DATA.MAX_UNREADABLE {c.DATA.MAX_UNREADABLE}"
            )
        if not bool(torch.isfinite(features).all()):
            raise FloatingPointError(
                "the encoder's features are not finite; SOLVER.AMP.ENABLED False tells whether "
                "the number format is too small for these weights"
            )
        return features, labels

    def classifier(self, *, std: float | None = None) -> nn.Linear:
        """Untrained."""
        width = int(self.encoder.inplanes)  # type: ignore[arg-type]
        classifier = build_classifier(width, self.num_classes, seed=self.cfg.SEED, std=std)
        return classifier.to(self.device)

    def supervised(self, sampler: EpochSampler, after: Callable[[int, float], None]) -> Supervised:
        """Training on the sampler's images."""
        return Supervised(
            sampler.sizes,
            sampler.epochs,
            self.normalize,
            self.device,
            self.precision.autocast(),
            self.precision.scaler(),
            after,
        )

    def sampler(self, indices: list[int], section: CfgNode, *, equal: bool) -> EpochSampler:
        """EPOCHS of BATCH_SIZE of a section of EVAL."""
        return EpochSampler(
            indices,
            section.BATCH_SIZE,
            section.EPOCHS,
            seed=self.cfg.SEED,
            rank=get_rank(),
            world_size=get_world_size(),
            equal_parts=equal,
        )

    def batches(
        self, sampler: EpochSampler
    ) -> contextlib.closing[Generator[list[Tensor], None, None]]:
        """Augmented training images and their labels, a step each; for a ``with``."""
        views = LabelledViews(
            self.train,
            build_training_transform(self.cfg.DATA.IMAGE_SIZE),
            sampler.indices,
            seed=self.cfg.SEED,
            max_unreadable=self.cfg.DATA.MAX_UNREADABLE,
        )
        return contextlib.closing(
            iterate_views(
                views,
                sampler,
                num_workers=self.cfg.DATA.NUM_WORKERS,
                pin_memory=self.device.type == "cuda",
            )
        )
