"""Entries of results: which values are read, and which are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from random_detections import as_rle, detections, without_masks, write_coco

import d2_transfer


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("mask", [None, [], [[1, 2]], {"size": [5, 5], "counts": [25]}])
def test_masks_of_results_are_not_scored_where_they_are_missing_or_wrong(
    tmp_path: Path, backend: str, mask: Any
) -> None:
    data = write_coco(tmp_path)
    found = detections(data)
    found[2] = found[2] | {"segmentation": mask}
    with pytest.raises(ValueError, match="results: entry 2: its mask must be an RLE"):
        d2_transfer.score(data, found, ("bbox", "segm"), backend=backend)
    assert d2_transfer.score(data, found, ("bbox",), backend=backend)["bbox"]["AP"] > 5


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize(
    "counts", [[0, 90000], [-1, 2], [10**12], "€", [5, 5], [], "", "cut", "zzzz~~~"]
)
def test_a_damaged_mask_of_a_result_is_named(tmp_path: Path, backend: str, counts: Any) -> None:
    """pycocotools would compute with some of them forever, or score them."""
    data = write_coco(tmp_path)
    gt = COCO(str(tmp_path / "truth.json"))
    found = [{**e, "segmentation": as_rle(gt, e)} for e in detections(data)]
    whole = found[3]["segmentation"]["counts"]
    last_run = whole[:-2] if ord(whole[-2]) - 48 & 32 else whole[:-1]
    damaged = last_run if counts == "cut" else counts
    found[3]["segmentation"] = {"size": [200, 200], "counts": damaged}
    with pytest.raises(ValueError, match="results: entry 3: its mask is a damaged RLE"):
        d2_transfer.score(data, found, ("segm",), backend=backend)


@pytest.mark.parametrize("far", [1e4, 1e9, 1e300])
def test_a_mask_far_beyond_its_image_is_named(tmp_path: Path, far: float) -> None:
    """Its outline would take more memory than there is."""
    data = write_coco(tmp_path)
    found = detections(data)
    found[2]["segmentation"] = [[far, 2, far + 5, 2, 30, 40]]
    with pytest.raises(ValueError, match="entry 2: its mask reaches far beyond its image"):
        d2_transfer.score(data, found, ("segm",))


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_numbers_of_other_types_are_read(tmp_path: Path, backend: str) -> None:
    data = write_coco(tmp_path)
    gt = COCO(str(tmp_path / "truth.json"))
    plain = [{**e, "segmentation": as_rle(gt, e)} for e in detections(data)]
    expected = d2_transfer.score(data, plain, ("bbox", "segm"), backend=backend)
    others = []
    for entry in plain:
        image, category = np.int64(entry["image_id"]), np.int32(entry["category_id"])
        mask = {**entry["segmentation"], "size": [200.0, 200.0]}
        score = np.float64(entry["score"])
        values = {"image_id": image, "category_id": category, "score": score, "segmentation": mask}
        others.append({**values, "bbox": np.array(entry["bbox"])})
    assert d2_transfer.score(data, others, ("bbox", "segm"), backend=backend) == expected
    sized = [{**e, "segmentation": m["segmentation"]} for e, m in zip(plain, others, strict=True)]
    assert d2_transfer.score(data, sized, ("bbox", "segm"), backend=backend) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": True}, "entry 2 has the unknown image_id True"),
        ({"category_id": True}, "entry 2 has the unknown category_id True"),
        ({"score": np.float32("nan")}, "entry 2 has the score .*nan.*, not a finite number"),
    ],
)
def test_values_that_only_look_like_numbers_are_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    data = write_coco(tmp_path)
    found = without_masks(detections(data))
    found[2] |= change
    with pytest.raises(ValueError, match=f"results: {message}"):
        d2_transfer.score(data, found)


def test_results_may_be_packed(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    found = detections(data)
    packed = tmp_path / "results.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(found).encode()))
    assert d2_transfer.score(data, packed) == d2_transfer.score(data, found)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ValueError, match="results.json.gz is a damaged gzip file"):
        d2_transfer.score(data, packed)


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_masks_as_pycocotools_encodes_them_and_other_keys_are_read(
    tmp_path: Path, backend: str
) -> None:
    data = write_coco(tmp_path)
    gt = COCO(str(tmp_path / "truth.json"))
    plain = [{**e, "segmentation": gt.annToRLE(e)} for e in detections(data)]
    texts = [{**e, "segmentation": as_rle(gt, e)} for e in detections(data)]
    assert isinstance(plain[0]["segmentation"]["counts"], bytes)
    kinds = ("bbox", "segm")
    expected = d2_transfer.score(data, texts, kinds, backend=backend)
    assert d2_transfer.score(data, plain, kinds, backend=backend) == expected
    more = {"caption": "a", "id": "a", "area": "a"}
    noted = [{**entry, **more} for entry in texts]
    assert d2_transfer.score(data, noted, kinds, backend=backend) == expected
    boxes = [{**entry, **more, "segmentation": "abc"} for entry in texts]
    assert d2_transfer.score(data, boxes, backend=backend)["bbox"] == expected["bbox"]
