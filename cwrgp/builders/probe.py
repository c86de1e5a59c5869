"""EVAL: the k-NN probe during the run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode

from cwrgp.builders.data import build_images
from cwrgp.data.augment import Normalize, build_probe_transform
from cwrgp.data.loaders import ProbeImages
from cwrgp.data.subsets import draw
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.features import extract_features
from cwrgp.evaluation.knn import knn_accuracy


def build_probe(
    cfg: CfgNode, encoder: torch.nn.Module, precision: Precision
) -> Callable[[], dict[str, float]]:
    """The k-NN accuracy of the encoder as a function without arguments; gives {} without labels.

    Where a data set has no held-out images, every training image asks the others.
    """
    transform = build_probe_transform(image_size=cfg.DATA.IMAGE_SIZE, resize=cfg.DATA.PROBE_RESIZE)

    def images_of(split: str) -> ProbeImages | None:
        dataset = build_images(cfg, split)
        if dataset is None:
            return None
        if max(dataset.labels) < 0:
            if cfg.EVAL.ROOT:
                raise ValueError(
                    f"EVAL.ROOT {cfg.EVAL.ROOT} has no labels, so there is nothing to probe with; "
                    "it takes a folder for each class, or omit it"
                )
            return None
        indices = draw(len(dataset), cfg.EVAL.MAX_IMAGES, cfg.SEED)
        return ProbeImages(dataset, transform, indices)

    splits = [images for images in map(images_of, ("train", "test")) if images is not None]
    if splits and len(splits[0]) < cfg.EVAL.KNN_K:
        raise ValueError(
            f"EVAL.KNN_K {cfg.EVAL.KNN_K} is more than the {len(splits[0])} images that vote"
        )

    def probe() -> dict[str, float]:
        if not splits:
            return {}
        features: list[torch.Tensor] = []
        for images in splits:
            features += extract_features(
                encoder,
                images,
                normalize=Normalize(cfg.DATA.MEAN, cfg.DATA.STD).to(precision.device),
                batch_size=cfg.EVAL.BATCH_SIZE,
                num_workers=cfg.DATA.NUM_WORKERS,
                device=precision.device,
                autocast=precision.autocast(),
            )
            skipped = len(images) - len(features[-1])
            if skipped > cfg.DATA.MAX_UNREADABLE:
                raise ValueError(
                    f"{skipped} of {len(images)} images of the probe cannot be read, more than "
                    f"DATA.MAX_UNREADABLE {cfg.DATA.MAX_UNREADABLE}"
                )
        return {"knn/top1": knn_accuracy(*features, k=cfg.EVAL.KNN_K)}

    return probe
