"""A step of fine-tuning: against Detectron2's own in fp32 and contiguous memory."""

from __future__ import annotations

import itertools

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from benchmark_rows.timing import Pair, Row
from cwrgp.config_files import find_config
from cwrgp.launch import local_device
from cwrgp.number_format import NumberFormat
from d2_transfer.config import get_cfg
from d2_transfer.mixed_precision import use_number_format
from d2_transfer.trainer import Trainer

_IMAGES, _SIDE, _OBJECTS = 8, 128, 3


def rows() -> list[Row]:
    """The slim Mask R-CNN of the demo."""
    return [
        Row(
            name="fine-tuning: slim Mask R-CNN R18, 128 px, batch 8",
            against="Detectron2's step in fp32, contiguous",
            prepare=_step,
            amount=_IMAGES,
            unit="images",
            target=2,
        )
    ]


def _step() -> Pair:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("quick/demo_mask_rcnn_r18.yaml")))
    cfg.MODEL.DEVICE = str(local_device())
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    batches = itertools.repeat([_image(cfg, seed) for seed in range(_IMAGES)])

    def make(number_format: NumberFormat | None) -> SimpleTrainer:
        torch.manual_seed(0)
        model = build_model(cfg)
        if number_format:
            use_number_format(model, number_format)
        build = Trainer.build_optimizer if number_format else build_optimizer
        optimizer = build(cfg, model)
        return SimpleTrainer(model, batches, optimizer)

    def run(trainer: SimpleTrainer) -> None:
        with EventStorage() as trainer.storage:
            trainer.iter = 0
            trainer.run_step()

    ours, theirs = make(NumberFormat("bf16", "channels_last")), make(None)
    return lambda: run(ours), lambda: run(theirs)


def _image(cfg: CfgNode, seed: int) -> dict[str, object]:
    """A random image with a few objects, as Detectron2's mapper gives it."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, _SIDE // 2, (_OBJECTS, 2), generator=generator)
    sizes = torch.randint(24, _SIDE // 2, (_OBJECTS, 2), generator=generator)
    boxes = torch.cat([corners, corners + sizes], 1)
    masks = torch.zeros(_OBJECTS, _SIDE, _SIDE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    classes = torch.randint(cfg.MODEL.ROI_HEADS.NUM_CLASSES, (_OBJECTS,), generator=generator)
    instances = Instances((_SIDE, _SIDE))
    instances.gt_boxes = Boxes(boxes.float())
    instances.gt_classes = classes
    instances.gt_masks = BitMasks(masks)
    pixels = torch.randint(0, 256, (3, _SIDE, _SIDE), dtype=torch.uint8, generator=generator)
    return {"image": pixels, "instances": instances, "height": _SIDE, "width": _SIDE}
