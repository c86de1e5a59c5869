"""The labelled images of a probe, as features of an encoder and as augmented batches."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from cwrgp.data.base import LabelledImages
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import EpochSampler
from cwrgp.data.views import LabelledViews, ProbeImages
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.features import extract_features

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """The images that a probe learns from and is tested on. Each of them has a label.

    Attributes:
        encoder: on its device.
        train: to learn from.
        test: held out; None where there are none.
        normalize: uint8 batch -> network input.
        precision: number format and device of this process.
        batch_size: images at a time when features are extracted.
        num_workers: processes that load.
        seed: of the augmented views.
        unreadable_limit: number of images -> number of unreadable ones that are tolerated, and the
            name of this limit in error messages.
        warnings: what the user should know about the images.
    """

    encoder: nn.Module
    train: LabelledImages
    test: LabelledImages | None
    normalize: Callable[[Tensor], Tensor]
    precision: Precision
    batch_size: int
    num_workers: int
    seed: int = 0
    unreadable_limit: Callable[[int], tuple[int, str]] = lambda _: (0, "max_unreadable")
    warnings: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return self.precision.device

    @property
    def num_classes(self) -> int:
        """One more than the largest label."""
        splits = (self.train, self.test)
        return 1 + max(int(images.labels.max()) for images in splits if images is not None)

    def features(self, images: LabelledImages, transform: Transform) -> tuple[Tensor, Tensor]:
        """Features (n, F) and labels (n,) of all readable images, on every process.

        Args:
            images: ``train`` or ``test``.
            transform: PIL image -> uint8 (3, H, W).

        Raises:
            ValueError: more images are unreadable than tolerated.
        """
        limit, limit_name = self.unreadable_limit(len(images))
        return extract_features(
            self.encoder,
            ProbeImages(images, transform, max_unreadable=limit, limit_name=limit_name),
            normalize=self.normalize,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            device=self.device,
            autocast=self.precision.autocast(),
        )

    def batches(
        self, sampler: EpochSampler, transform: Transform
    ) -> closing[Generator[list[Tensor], None, None]]:
        """Augmented training images and their labels, one step at a time; for a ``with``.

        Args:
            sampler: of indices of ``train``.
            transform: PIL image -> uint8 (3, H, W), random.
        """
        limit, limit_name = self.unreadable_limit(len(sampler.indices))
        views = LabelledViews(
            self.train,
            transform,
            sampler.indices,
            seed=self.seed,
            max_unreadable=limit,
            limit_name=limit_name,
        )
        pin_memory = self.device.type == "cuda"
        return closing(
            iterate_views(views, sampler, num_workers=self.num_workers, pin_memory=pin_memory)
        )
