"""From a record to what the model gets."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from cwrgp.images import UnreadableImage
from cwrgp.shared_memory import exit_on_queue_errors
from d2_transfer.data.read_image import read_image
from d2_transfer.data.records import TURNED

logger = logging.getLogger(__name__)

# Of what the mapper returns in an evaluation: why the image could not be read.
UNREADABLE = "unreadable"
# A drive that is gone, rather than damaged files.
_MOST_UNREADABLE = 100


class TransferMapper(DatasetMapper):
    """Detectron2's mapper, with `read_image`, for objects without a mask and unreadable images.

    - For images that Detectron2 reads as well, results and random numbers are those of its own.
    - In training, None stands for an image that cannot be read: Detectron2's loader takes another.
      In evaluation the image is black, and the result has `UNREADABLE`.
    - Where masks are used and an object has none, the instances have ``gt_has_mask``, which
      `d2_transfer.mask_loss` reads.
    - A worker ends where it cannot send what it has mapped.
    """

    @configurable
    def __init__(self, is_train: bool, *, pixel_range: list[float], **options: Any) -> None:
        super().__init__(is_train, **options)
        self.pixel_range = pixel_range
        self._unreadable: set[str] = set()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        options = super().from_config(cfg, is_train)
        return {**options, "pixel_range": list(cfg.INPUT.PIXEL_RANGE)}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        exit_on_queue_errors()
        if "sem_seg_file_name" in dataset_dict:
            return super().__call__(dataset_dict)
        record = copy.deepcopy(dataset_dict)  # it is changed below
        turned = record.pop(TURNED, True)
        try:
            image = read_image(
                record["file_name"], self.image_format, turned=turned, pixel_range=self.pixel_range
            )
        except UnreadableImage as error:
            self._note(record["file_name"], error)
            if self.is_train:
                return None
            record[UNREADABLE] = str(error)
            channels = 1 if self.image_format == "L" else 3
            image = np.zeros((record["height"], record["width"], channels), np.uint8)
        utils.check_image_size(record, image)
        given = T.AugInput(image)
        transforms = self.augmentations(given)
        image = given.image
        shape = image.shape[:2]
        record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if self.proposal_topk is not None:
            utils.transform_proposals(record, shape, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, shape)
        return record

    def _note(self, file: str, error: UnreadableImage) -> None:
        if file in self._unreadable:
            return
        self._unreadable.add(file)
        instead = "another takes its place" if self.is_train else "its results do not count"
        logger.warning(
            f"Image {len(self._unreadable)} that cannot be read, {instead} (counted in each"
            f" process): {error}"
        )
        if len(self._unreadable) > _MOST_UNREADABLE:
            raise OSError(f"more than {_MOST_UNREADABLE} images cannot be read, the last: {error}")

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: T.TransformList, image_shape: Any
    ) -> None:
        things = [a for a in dataset_dict["annotations"] if not a.get("iscrowd", 0)]
        has_mask = torch.tensor(["segmentation" in thing for thing in things], dtype=torch.bool)
        if not self.use_instance_mask or has_mask.all():
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        del dataset_dict["annotations"]
        for thing in things:
            if not self.use_keypoint:
                thing.pop("keypoints", None)
        mapped = [
            utils.transform_instance_annotations(
                thing, transforms, image_shape, keypoint_hflip_indices=self.keypoint_hflip_indices
            )
            for thing in things
        ]
        for thing in mapped:
            if "segmentation" not in thing:
                # Each row of the masks needs one; it is not used.
                x0, y0, x1, y1 = thing["bbox"]
                thing["segmentation"] = [np.array([x0, y0, x1, y0, x1, y1, x0, y1])]
        instances = utils.annotations_to_instances(mapped, image_shape, self.instance_mask_format)
        instances.gt_has_mask = has_mask
        if self.recompute_boxes:
            tight = instances.gt_masks.get_bounding_boxes().tensor
            instances.gt_boxes.tensor[has_mask] = tight[has_mask].to(instances.gt_boxes.tensor)
        keep = instances.gt_boxes.nonempty(threshold=1e-5)  # as `filter_empty_instances`
        keep &= instances.gt_masks.nonempty() | ~has_mask
        dataset_dict["instances"] = instances[keep]
