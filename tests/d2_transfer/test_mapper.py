"""From a record to tensors: as Detectron2 does it, and what it does not do."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
import torch
from annotated_sets import BOXES, coco_set, save_turned
from detectron2.data import DatasetMapper, MapDataset

from d2_transfer.config import get_cfg
from d2_transfer.data.load import load_annotated
from d2_transfer.data.mapper import UNREADABLE, TransferMapper
from d2_transfer.data.records import TURNED, as_records


def config(**options: Any) -> Any:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (40, 56, 72)
    cfg.INPUT.MIN_SIZE_TEST = 48
    cfg.merge_from_list([part for pair in options.items() for part in pair])
    return cfg


def records(folder: Path, **options: Any) -> list[dict[str, Any]]:
    loaded = load_annotated(coco_set(folder, **options), masks=True)
    return as_records(loaded.data, masks=True)


def with_runs(content: dict[str, Any]) -> None:
    """Masks in RLE: Detectron2 crops polygons only with a package that is not needed otherwise."""
    for annotation in content["annotations"]:
        mask = np.zeros((60, 80), np.uint8, order="F")
        x, y, width, height = annotation["bbox"]
        mask[y : y + height, x : x + width] = 1
        found = pycocotools.mask.encode(mask)
        annotation["segmentation"] = {"size": [60, 80], "counts": found["counts"].decode()}


def same(ours: Any, theirs: Any) -> None:
    """Asserts that two mapped records are equal, dtypes included."""
    assert ours.keys() == theirs.keys()
    assert ours["image"].dtype == theirs["image"].dtype
    assert torch.equal(ours["image"], theirs["image"])
    if "instances" not in theirs:
        return
    a, b = ours["instances"].get_fields(), theirs["instances"].get_fields()
    assert a.keys() == b.keys()
    assert torch.equal(a["gt_boxes"].tensor, b["gt_boxes"].tensor)
    assert torch.equal(a["gt_classes"], b["gt_classes"])
    if "gt_masks" not in b:
        return
    if hasattr(b["gt_masks"], "tensor"):
        assert torch.equal(a["gt_masks"].tensor, b["gt_masks"].tensor)
    else:
        for x, y in zip(a["gt_masks"].polygons, b["gt_masks"].polygons, strict=True):
            assert all(np.array_equal(p, q) for p, q in zip(x, y, strict=True))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"INPUT.FORMAT": "RGB"},
        {"INPUT.FORMAT": "BGR", "INPUT.MASK_FORMAT": "bitmask"},
        {"INPUT.FORMAT": "L", "MODEL.MASK_ON": False},
        {"INPUT.CROP.ENABLED": True, "INPUT.CROP.SIZE": [0.8, 0.8], "INPUT.MASK_FORMAT": "bitmask"},
    ],
)
def test_results_and_random_numbers_are_detectron2s(
    tmp_path: Path, train: bool, options: dict[str, Any]
) -> None:
    cfg = config(**options)
    change = with_runs if "INPUT.CROP.ENABLED" in options else None
    found = records(tmp_path, change=change)
    found += records(tmp_path / "turned", change=change, suffix=".jpg", save=save_turned(3))
    states = []
    results = []
    for mapper in (TransferMapper(cfg, train), DatasetMapper(cfg, train)):
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        results.append([mapper(record) for record in found * 3])
        states.append((np.random.random(), random.random(), torch.rand(1).item()))
    for ours, theirs in zip(*results, strict=True):
        same(ours, theirs)
    assert states[0] == states[1]


def test_an_orientation_that_the_boxes_ignore(tmp_path: Path) -> None:
    found = records(tmp_path, suffix=".jpg", save=save_turned(6))
    assert all(record[TURNED] is False for record in found)
    mapped = TransferMapper(config(), True)(found[0])
    assert mapped is not None
    instances = mapped["instances"]
    height, width = instances.image_size
    assert width > height  # as stored
    scale = height / 60
    x0, _, x1, _ = instances.gt_boxes.tensor[0].tolist()
    expected = {(BOXES[0][0] * scale, BOXES[0][2] * scale)}
    expected.add((width - BOXES[0][2] * scale, width - BOXES[0][0] * scale))  # flipped
    assert any((x0, x1) == pytest.approx(pair, abs=1) for pair in expected)


@pytest.mark.parametrize(
    ("mask_format", "crop"), [("polygon", False), ("bitmask", False), ("bitmask", True)]
)
def test_objects_without_a_mask_are_marked(tmp_path: Path, mask_format: str, crop: bool) -> None:
    def change(content: dict[str, Any]) -> None:
        if crop:
            with_runs(content)
        content["annotations"][1]["image_id"] = 1
        content["annotations"][2]["image_id"] = 1
        del content["annotations"][1]["segmentation"]

    options = {"INPUT.MASK_FORMAT": mask_format, "INPUT.CROP.ENABLED": crop}
    mapper = TransferMapper(config(**options, **{"INPUT.CROP.SIZE": [1.0, 1.0]}), True)
    by_image = {r["image_id"]: r for r in records(tmp_path, change=change)}
    some = mapper(by_image[1])
    every = mapper(by_image[4])
    assert some is not None and every is not None
    assert some["instances"].gt_has_mask.tolist() == [True, False, True]
    assert len(some["instances"].gt_masks) == 3
    assert not every["instances"].has("gt_has_mask")
    sides = some["instances"].gt_boxes.tensor
    scale = some["instances"].image_size[0] / 60
    assert (sides[:, 2] - sides[:, 0]).tolist() == pytest.approx(
        [(BOXES[n][2] - BOXES[n][0]) * scale for n in range(3)], abs=1.5
    )


def test_an_image_that_fails_in_training_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = records(tmp_path)
    file = Path(found[1]["file_name"])
    file.write_bytes(file.read_bytes()[:200])
    mapper = TransferMapper(config(), True)
    with caplog.at_level(logging.WARNING, "d2_transfer"):
        taken = [MapDataset(found, mapper)[1] for _ in range(3)]
    assert all(record["image_id"] != 2 for record in taken)
    lines = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("Image 1 that cannot be read, another takes its place")
    assert str(file) in lines[0]


def test_an_image_that_fails_in_an_evaluation_is_black(tmp_path: Path) -> None:
    found = records(tmp_path)
    Path(found[1]["file_name"]).write_bytes(b"")
    mapper = TransferMapper(config(), False)
    black, fine = mapper(found[1]), mapper(found[0])
    assert black is not None and fine is not None
    assert black["image"].shape == fine["image"].shape and not black["image"].any()
    assert "p1.png" in black[UNREADABLE] and UNREADABLE not in fine


def test_a_lost_drive_ends_the_run(tmp_path: Path) -> None:
    mapper = TransferMapper(config(), True)
    with pytest.raises(OSError, match="more than 100 images cannot be read, the last: .*100.png"):
        for number in range(101):
            mapper({"file_name": str(tmp_path / f"{number}.png"), "height": 8, "width": 8})
