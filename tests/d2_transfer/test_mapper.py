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
from annotated_sets import BOXES, coco_set, picture, save_turned
from detectron2.data import DatasetMapper, MapDataset
from detectron2.data import detection_utils as utils
from PIL import Image

from cwrgp.images import UnreadableImage
from d2_transfer.config import get_cfg
from d2_transfer.data.load import load_annotated
from d2_transfer.data.mapper import UNREADABLE, TransferMapper
from d2_transfer.data.read_image import read_image
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


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "YUV-BT.601"])
def test_images_are_read_as_by_detectron2(tmp_path: Path, mode: str, image_format: str) -> None:
    path = str(tmp_path / f"image.{'jpg' if mode == 'CMYK' else 'png'}")
    picture(1).convert(mode).save(path)
    ours = read_image(path, image_format)
    theirs = utils.read_image(path, image_format)
    assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_or_not(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"image.{suffix}"
    plain = tmp_path / f"plain.{suffix}"
    picture(0).save(plain)
    save_turned(orientation)(picture(0), path, 0)
    stored = read_image(str(plain), "RGB")
    assert np.array_equal(read_image(str(path), "RGB", turned=False), stored)
    seen = {  # EXIF 2.3, tag 0x0112: where the first row and column of the file are
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).transpose(1, 0, 2), 8: np.rot90(stored),
    }  # fmt: skip
    assert np.array_equal(read_image(str(path), "RGB"), seen[orientation])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_by_257(tmp_path: Path, suffix: str) -> None:
    pixels = np.array([[0, 128, 129, 257], [30000, 65278, 65406, 65535]], np.uint16)
    path = str(tmp_path / f"image.{suffix}")
    Image.fromarray(pixels).save(path)
    expected = np.array([[0, 0, 1, 1], [117, 254, 254, 255]])
    for image_format in ("RGB", "BGR"):
        found = read_image(path, image_format)
        assert found.dtype == np.uint8
        assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=2))


def test_a_range_of_pixels(tmp_path: Path) -> None:
    path = str(tmp_path / "image.png")
    Image.fromarray(np.array([[0, 100, 2100, 4100, 9000]], np.uint16)).save(path)
    found = read_image(path, "RGB", pixel_range=(100, 4100))
    assert found[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    path = str(tmp_path / "image.tif")
    Image.fromarray(np.array([[-1, 0, 0.2, 1, np.nan]], np.float32)).save(path)
    found = read_image(path, "RGB", pixel_range=(0, 1))
    assert found[0, :, 0].tolist() == [0, 0, 51, 255, 0]
    with pytest.raises(ValueError, match=r"image.tif has floating-point .* set INPUT.PIXEL_RANGE"):
        read_image(path, "RGB")


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
    logging.getLogger("d2_transfer").propagate = True
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


def test_an_unreadable_image_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>")
    with pytest.raises(UnreadableImage, match=r"page.jpg: cannot identify"):
        read_image(str(path), "RGB")
