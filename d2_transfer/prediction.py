"""A trained detector on images without annotations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from torch import nn

from cwrgp.checkpoints.last_checkpoint import read_last_checkpoint
from cwrgp.config_files import find_config, merge_file
from cwrgp.image_check import ImageFile, inspect_images, unknown_range_of
from cwrgp.shared_memory import worker_errors_end_the_run
from d2_transfer.checkpoint import TransferCheckpointer
from d2_transfer.config import TransferConfig, check_model, choose_device, get_cfg
from d2_transfer.data.mapper import UNREADABLE, TransferMapper
from d2_transfer.data.settle import set_num_classes, stored_classes
from d2_transfer.data.sizes import problem_of
from d2_transfer.data.subsets import parse_subset
from d2_transfer.trainer import Trainer
from d2_transfer.weights import check_weights_for

_CHECKPOINTS = (".pth", ".pkl")  # suffixes


@dataclass(frozen=True)
class Prediction:
    """What a detector finds in an image.

    Attributes:
        file: the image.
        width: in pixels, after the rotation that EXIF asks for; 0 of an unreadable image.
        height: likewise.
        boxes: (n, 4) float32, XYXY in pixels of the image, by falling score.
        scores: (n,) float32 in 0..1.
        classes: (n,) int64, numbers of `Detector.classes`, from 0.
        masks: n masks as COCO's compressed RLE, which ``pycocotools.mask.decode`` takes; None for a
            detector of boxes.
        unreadable: why the image could not be read; "" if it could.
    """

    file: Path
    width: int
    height: int
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    masks: list[dict[str, Any]] | None = None
    unreadable: str = ""


@dataclass(frozen=True)
class Detector:
    """A trained detector with all that it needs to be used.

    Attributes:
        cfg: of its run; frozen.
        model: in evaluation mode.
        classes: their names.
    """

    cfg: CfgNode
    model: nn.Module
    classes: tuple[str, ...]

    def predict(self, files: Sequence[Path], *, batch_size: int = 1) -> Iterator[Prediction]:
        """Finds objects.

        Args:
            files: images. Their headers are read first.
            batch_size: images that the model gets at a time.

        Returns:
            One prediction for each file, in order.

        Raises:
            ValueError: the images have more than 8 bits and the range of their values is not known.
        """
        known = inspect_images(files)
        problems = {file: problem_of(known[file]) for file in files}
        good = [file for file in files if not problems[file]]
        problem = unknown_range_of("INPUT.PIXEL_RANGE", {file: known[file] for file in good})
        if problem and not self.cfg.INPUT.PIXEL_RANGE:
            raise ValueError(problem)
        found = self._run(good, known, batch_size)
        for file in files:
            if problems[file]:
                yield Prediction(file, 0, 0, unreadable=problems[file])
            else:
                yield next(found)

    @torch.no_grad()
    def _run(
        self, files: Sequence[Path], known: dict[Path, ImageFile], batch_size: int
    ) -> Iterator[Prediction]:
        records = []
        for number, file in enumerate(files):
            width, height = known[file].size_as_seen
            records.append(
                {"file_name": str(file), "image_id": number, "width": width, "height": height}
            )
        loader = build_detection_test_loader(
            records,
            mapper=TransferMapper(self.cfg, is_train=False),
            batch_size=batch_size,
            num_workers=min(self.cfg.DATALOADER.NUM_WORKERS, len(records)),
        )
        with worker_errors_end_the_run("DATALOADER.NUM_WORKERS"):
            for batch in loader:
                for record, output in zip(batch, self.model(batch), strict=True):
                    file, unreadable = files[record["image_id"]], record.get(UNREADABLE)
                    if unreadable:
                        yield Prediction(file, 0, 0, unreadable=unreadable)
                    else:
                        yield _prediction(file, output["instances"].to("cpu"))


def run_config(
    run: str | PathLike[str], weights: str | PathLike[str] | None = None
) -> TransferConfig:
    """The config of a run of ``cwrgp-train-net`` with the weights to use.

    Args:
        run: folder of the run; one of its checkpoints; its ``config.yaml``, another file or the
            name of a packaged config.
        weights: of the whole detector. If the run that wrote them has stored its class names, these
            are used. None: the last checkpoint beside the config, otherwise the config's own.

    Raises:
        FileNotFoundError: no such run or config.
        ValueError: the config has an unknown key or a wrong value.
    """
    path = Path(os.path.expanduser(run))
    is_checkpoint = path.suffix in _CHECKPOINTS and path.is_file()
    if is_checkpoint:
        weights = path if weights is None else weights
    folder = path.parent if is_checkpoint else path
    is_run = folder.is_dir()
    if is_run:
        path = folder / "config.yaml"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is not the folder of a run: it has no config.yaml")
    cfg = get_cfg()
    try:
        merge_file(cfg, path if path.is_file() else find_config(run))
    except ValueError as error:
        if is_run:
            raise ValueError(f"{error}; the run must be one of cwrgp-train-net") from error
        raise
    if weights is not None:
        cfg.MODEL.WEIGHTS = str(weights)
        cfg.DATASETS.CLASSES = stored_classes(str(weights)) or cfg.DATASETS.CLASSES
    elif last := read_last_checkpoint(path.parent) if path.is_file() else None:
        cfg.MODEL.WEIGHTS = str(last)
    elif is_run:
        warnings.warn(
            f"{folder} holds no checkpoint yet; MODEL.WEIGHTS of its config is used", stacklevel=2
        )
    return cfg


def load_detector(cfg: CfgNode, *, threshold: float | None = None) -> Detector:
    """Builds the detector of a config and fills it with ``MODEL.WEIGHTS``, completely.

    Args:
        cfg: of `run_config`; frozen here. The names of the classes are ``DATASETS.CLASSES``, those
            of the run that wrote the weights, or those that Detectron2 knows for
            ``DATASETS.TRAIN``.
        threshold: lowest score of a detection; None: the config's ``SCORE_THRESH_TEST``.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: the weights do not fill the detector, or the classes have no names.
    """
    weights = cfg.MODEL.WEIGHTS
    if not weights:
        raise ValueError("MODEL.WEIGHTS is empty: give weights='FILE' of a trained detector")
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        raise ValueError("MODEL.META_ARCHITECTURE ProposalNetwork finds proposals, not objects")
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold:g} is not in 0 to 1")
        for head in (cfg.MODEL.ROI_HEADS, cfg.MODEL.RETINANET):
            head.SCORE_THRESH_TEST = threshold
    choose_device(cfg)
    check_model(cfg)
    classes = cfg.DATASETS.CLASSES or stored_classes(weights) or _catalog_classes(cfg)
    if not classes:
        raise ValueError(
            f"the classes of {weights} have no names: set DATASETS.CLASSES \"['NAME', ...]\""
        )
    cfg.DATASETS.CLASSES = list(classes)
    set_num_classes(cfg, classes, "DATASETS.CLASSES")
    check_weights_for(cfg, weights, complete=True)
    cfg.freeze()
    model = Trainer.build_model(cfg)
    TransferCheckpointer(model).load(weights)
    return Detector(cfg, model.eval(), tuple(classes))


def _catalog_classes(cfg: CfgNode) -> list[str]:
    """The classes that Detectron2 knows for the training data."""
    for name in cfg.DATASETS.TRAIN:
        subset = parse_subset(name, cfg.DATASETS.SUBSET_SEED)
        name = subset.base if subset else name
        if name in MetadataCatalog.list():
            return list(MetadataCatalog.get(name).get("thing_classes", ()))
    return []


def _prediction(file: Path, instances: Instances) -> Prediction:
    height, width = instances.image_size
    masks = None
    if instances.has("pred_masks"):
        masks = [entry["segmentation"] for entry in instances_to_coco_json(instances, 0)]
    return Prediction(
        file,
        width,
        height,
        boxes=instances.pred_boxes.tensor.numpy(),
        scores=instances.scores.numpy(),
        classes=instances.pred_classes.numpy(),
        masks=masks,
    )
