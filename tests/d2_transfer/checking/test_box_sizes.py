"""Sizes of objects against anchors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotated_sets import coco_set

from d2_transfer.checking.box_sizes import box_sizes, resize_factor
from d2_transfer.data.load import load_annotated


def sides(*boxes: tuple[int, int]) -> Any:
    """Gives the objects of a COCO file these widths and heights; a fourth is a crowd."""

    def change(content: dict[str, Any]) -> None:
        for annotation, (width, height) in zip(content["annotations"], boxes, strict=False):
            annotation.update(bbox=[2, 2, width, height], area=width * height, segmentation=[])
        content["annotations"][3]["iscrowd"] = 1

    return change


def test_objects_are_counted_by_size_and_by_the_best_anchor(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, sides((8, 8), (60, 10), (16, 32))))
    sizes = box_sizes(loaded.data, (16, 32), short_side=60, long_side=1000)
    assert sizes.edges == (0, 8, 16, 32, 64, float("inf"))
    assert sizes.counts == (0, 1, 2, 0, 0) and sizes.total == 3
    # 8 x 8 in 16 x 16 has an IoU of 1/4; 60 x 10 is too long; 16 x 32 is close to an anchor.
    assert sizes.unmatched == 2
    twice = box_sizes(loaded.data, (16, 32), short_side=120, long_side=1000)
    assert twice.counts == (0, 0, 1, 2, 0) and twice.unmatched == 1


def test_the_long_side_limits_the_scale() -> None:
    assert resize_factor(400, 200, 800, 1333) == 1333 / 400
    assert resize_factor(400, 300, 800, 1333) == 800 / 300


@pytest.mark.parametrize("anchors", [(), (32, 0), (-1,)])
def test_anchors_are_positive(tmp_path: Path, anchors: Any) -> None:
    with pytest.raises(ValueError, match="sizes must be positive"):
        box_sizes(load_annotated(coco_set(tmp_path)).data, anchors)
