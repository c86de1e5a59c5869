"""AP without a model: hotcoco against pycocotools, VOC against Detectron2, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_sets import BOXES, voc_set, voc_xml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.coco_evaluation import _evaluate_predictions_on_coco
from detectron2.evaluation.pascal_voc_evaluation import voc_eval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_detections import (
    as_rle,
    detections,
    voc_detections,
    voc_objects,
    without_masks,
    write_coco,
)
from repository import REPOSITORY

import d2_transfer
from d2_transfer.commands import score as command
from d2_transfer.data.spec import VOC_CLASSES, CocoSpec, builtin_specs

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@pytest.mark.parametrize("seed", range(3))
def test_hotcoco_gives_what_pycocotools_gives(tmp_path: Path, seed: int) -> None:
    data = write_coco(tmp_path, seed=seed)
    found = detections(data, seed)
    (tmp_path / "results.json").write_text(json.dumps(found))
    kinds = ("bbox", "segm")
    expected = d2_transfer.score(data, found, kinds, backend="pycocotools")
    for results in (found, tmp_path / "results.json"):
        ours = d2_transfer.score(data, results, kinds)
        assert ours["protocol"] == "coco" and ours.keys() == expected.keys()
        for kind in kinds:
            assert 5 < ours[kind]["AP"] < 95
            assert [ours[kind][m] for m in METRICS] == pytest.approx(
                [expected[kind][m] for m in METRICS], abs=1e-9
            )
            assert ours[kind]["per_class"] == pytest.approx(expected[kind]["per_class"], abs=1e-9)
            assert ours[kind]["per_class"]["none"] is None


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("numbers", [{"first_id": 0}, {"text_ids": True}])
def test_ids_do_not_change_the_score(tmp_path: Path, backend: str, numbers: dict[str, Any]) -> None:
    for name in ("plain", "other"):
        (tmp_path / name).mkdir()
    plain, other = write_coco(tmp_path / "plain"), write_coco(tmp_path / "other", **numbers)
    expected = d2_transfer.score(plain, detections(plain), backend=backend)
    found = detections(other)
    (tmp_path / "results.json").write_text(json.dumps(found))
    for results in (found, str(tmp_path / "results.json")):
        assert d2_transfer.score(other, results, backend=backend) == expected


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_the_truth_itself_scores_100_and_nothing_scores_0(tmp_path: Path, backend: str) -> None:
    data = write_coco(tmp_path, first_id=0)
    content = json.loads((tmp_path / "truth.json").read_text())
    perfect = [{**a, "score": 0.9} for a in content["annotations"] if not a["iscrowd"]]
    found = d2_transfer.score(data, without_masks(perfect), backend=backend)["bbox"]
    assert [found[m] for m in METRICS[:3]] == pytest.approx([100] * 3)
    nothing = d2_transfer.score(data, [], backend=backend)["bbox"]
    assert [nothing[m] for m in METRICS[:3]] == [0, 0, 0]
    assert nothing["per_class"] == {"a": 0, "b": 0, "c": 0, "none": None}
    (tmp_path / "empty.json").write_text("[]")
    assert d2_transfer.score(data, tmp_path / "empty.json", backend=backend)["bbox"] == nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 2}, "entry 1 has the unknown image_id 2"),
        ({"category_id": 4}, "entry 1 has the unknown category_id 4"),
        ({"bbox": [0, 0, 5, float("nan")]}, "entry 1 has the bbox .*finite"),
        ({"bbox": None}, "entry 1 has the bbox None; it must be x, y, width, height"),
        ({"bbox": [0, 0, -5, 5]}, "entry 1 has the bbox .* not below 0"),
        ({"score": "high"}, "entry 1 has the score 'high', not a finite number"),
        ({"score": True}, "entry 1 has the score True"),
        ({"image_id": [1]}, r"entry 1 has the unknown image_id \[1\]"),
    ],
)
def test_a_wrong_result_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    data = write_coco(tmp_path)
    found = without_masks(detections(data))
    found[1] = found[1] | change
    (tmp_path / "results.json").write_text(json.dumps(found))
    for results in (found, tmp_path / "results.json"):
        with pytest.raises(ValueError, match=message):
            d2_transfer.score(data, results)
    del found[0]["score"]
    with pytest.raises(ValueError, match="results: entry 0 has the score None"):
        d2_transfer.score(data, found)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("voc:root", "'voc:root' is not a data set; write coco:ANN.json"),
        ("coco:", "is not a data set"),
        ("voc_2007_tets", "'voc_2007_tets' is not a data set; did you mean voc_2007_test"),
        ("birds", "'birds' is not a data set; write coco:ANN.json, voc:ROOT:SPLIT, yolo:DATA.yaml"),
        ("yolo:data.yaml", "'yolo:data.yaml' is not a data set; write coco:ANN.json"),
    ],
)
def test_a_wrong_spec_is_named(data: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        d2_transfer.score(data, [])


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("mask", [None, [], [[1, 2, 3, 4]], {"size": [200, 200], "counts": "!!"}])
def test_objects_without_a_mask_are_ignored_for_masks_and_count_for_boxes(
    tmp_path: Path, backend: str, mask: Any
) -> None:
    data = write_coco(tmp_path)
    content = json.loads((tmp_path / "truth.json").read_text())
    objects = [a for a in content["annotations"] if not a["iscrowd"]]
    perfect = [{**a, "score": 0.9} for a in objects]
    for annotation in objects[::3]:
        annotation["segmentation"] = mask
    (tmp_path / "truth.json").write_text(json.dumps(content))
    kinds = ("bbox", "segm")
    found = d2_transfer.score(data, perfect, kinds, backend=backend)
    assert [found[kind]["AP"] for kind in kinds] == pytest.approx([100, 100])
    # Nobody misses what has no mask, and everybody misses a box.
    some = [entry for n, entry in enumerate(perfect) if n % 3]
    found = d2_transfer.score(data, some, kinds, backend=backend)
    assert found["segm"]["AP"] == pytest.approx(100)
    assert found["bbox"]["AP"] < 80
    for annotation in objects:
        annotation["segmentation"] = mask
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no object has a usable mask; set MODEL.MASK_ON False"):
        d2_transfer.score(data, perfect, ("segm",), backend=backend)


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_the_size_of_a_mask_is_its_own_area_as_in_detectron2(tmp_path: Path, backend: str) -> None:
    data = write_coco(tmp_path)
    polygons = detections(data)
    gt = COCO(data.removeprefix("coco:"))
    runs = [{**entry, "segmentation": as_rle(gt, entry)} for entry in polygons]
    evaluation = _evaluate_predictions_on_coco(gt, runs, "segm", cocoeval_fn=COCOeval)
    expected = 100 * evaluation.stats[:5]  # there are no large objects
    for results in (polygons, runs):
        ours = d2_transfer.score(data, results, ("segm",), backend=backend)["segm"]
        assert [ours[m] for m in METRICS[:5]] == pytest.approx(expected.tolist(), abs=1e-9)
    # With boxes in the results, pycocotools takes the areas of these.
    evaluation = COCOeval(gt, gt.loadRes([dict(entry) for entry in runs]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert abs(100 * evaluation.stats[:5] - expected).max() > 0.1


def test_an_annotation_of_an_unknown_category_is_named(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    content = json.loads((tmp_path / "truth.json").read_text())
    content["annotations"][1]["category_id"] = 77
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotation 2 has the category_id 77, which no category"):
        d2_transfer.score(data, [])


def test_builtin_names_are_detectron2s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    specs = builtin_specs()
    prefixes = ("coco_2014", "coco_2017", "keypoints_coco", "voc_")
    theirs = {n for n in DatasetCatalog if n.startswith(prefixes) and "panoptic" not in n}
    assert specs.keys() == theirs
    for name, spec in specs.items():
        metadata = MetadataCatalog.get(name)
        if isinstance(spec, CocoSpec):
            assert (str(spec.json_file), str(spec.images)) == (
                metadata.json_file,
                metadata.image_root,
            )
        else:
            expected = (metadata.dirname, metadata.split, metadata.year, metadata.thing_classes)
            assert (str(spec.root), spec.split, spec.year, list(spec.classes or ())) == expected


def test_builtin_data_are_scored_by_name(
    own_scenes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"test.txt of 'voc_2007_test' does not exist \(DET"
    ):
        d2_transfer.score("voc_2007_test", [])
    for path in (own_scenes.root / "Annotations").iterdir():
        path.write_text(path.read_text().replace(">bar<", ">cat<").replace(">square<", ">bird<"))
    lists = own_scenes.root / "ImageSets" / "Main"
    for name in ("test", "val"):
        (lists / f"{name}.txt").write_text((lists / "all.txt").read_text())
    (tmp_path / "VOC2007").symlink_to(own_scenes.root)
    (tmp_path / "VOC2012").symlink_to(own_scenes.root)
    bird, cat = (VOC_CLASSES.index(name) for name in ("bird", "cat"))
    found = voc_detections(own_scenes.root, 0)
    for entry in found:
        entry["category_id"] = (bird, cat)[entry["category_id"] - 1] + 1
    for name, protocol in (("voc_2007_test", "voc07"), ("voc_2012_val", "voc10")):
        ours = d2_transfer.score(name, found)
        spec = f"voc:{tmp_path / name[:3].upper()}{name[4:8]}:{name[9:]}"
        assert ours["protocol"] == protocol and ours["bbox"] == ours[protocol]
        own_order = d2_transfer.score(spec, found, classes=VOC_CLASSES)
        assert {k: own_order[k] for k in ("coco", "voc07", "voc10")} == {
            k: ours[k] for k in ("coco", "voc07", "voc10")
        }
        assert 1 < ours["bbox"]["AP"] < 95
    annotations = tmp_path / "coco" / "annotations"
    annotations.mkdir(parents=True)
    data = write_coco(annotations)
    found = detections(data)
    (annotations / "instances_val2017.json").symlink_to(annotations / "truth.json")
    assert d2_transfer.score("coco_2017_val", found) == d2_transfer.score(data, found)


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere.json: no such file"):
        d2_transfer.score("coco:nowhere.json", [])
    with pytest.raises(ValueError, match="classes are for VOC data"):
        d2_transfer.score(data, [], classes=["a"])
    with pytest.raises(ValueError, match="iou_types 'bbox': give one or both of bbox, segm"):
        d2_transfer.score(data, [], "bbox")
    (tmp_path / "whole.json").write_text((tmp_path / "truth.json").read_text())
    with pytest.raises(ValueError, match="whole.json is not a list of results"):
        d2_transfer.score(data, tmp_path / "whole.json")


def test_annotations_without_area_and_iscrowd(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    content = json.loads((tmp_path / "truth.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if not a["iscrowd"]]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    found = detections(data)
    expected = d2_transfer.score(data, found)
    for annotation in content["annotations"]:
        annotation |= {"area": None, "iscrowd": None}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    assert d2_transfer.score(data, found) == expected


@pytest.mark.parametrize("metric_2007", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_voc_is_detectron2s(own_scenes: Any, tmp_path: Path, metric_2007: bool, seed: int) -> None:
    root = own_scenes.root
    for number in (1, 3):  # some objects are difficult
        path = root / "Annotations" / f"{number:06d}.xml"
        text = path.read_text()
        path.write_text(text.replace("<difficult>0", "<difficult>1", 1))
    found = voc_detections(root, seed)
    ours = d2_transfer.score(f"voc:{root}:all", found, classes=["square", "bar"])
    name = "voc07" if metric_2007 else "voc10"
    aps = []
    for label, class_name in enumerate(("square", "bar"), start=1):
        lines = []
        for entry in found:
            if entry["category_id"] == label:
                x, y, w, h = entry["bbox"]
                corners = f"{x + 1:.1f} {y + 1:.1f} {x + w:.1f} {y + h:.1f}"
                lines.append(f"{entry['image_id']} {entry['score']:.3f} {corners}")
        (tmp_path / f"{class_name}.txt").write_text("\n".join(lines))
        aps.append(
            [
                voc_eval(
                    str(tmp_path / "{}.txt"),
                    str(root / "Annotations" / "{}.xml"),
                    str(root / "ImageSets" / "Main" / "all.txt"),
                    class_name,
                    threshold / 100,
                    metric_2007,
                )[2]
                for threshold in range(50, 100, 5)
            ]
        )
    expected = 100 * np.array(aps)
    assert ours[name]["AP"] == pytest.approx(expected.mean(), abs=1e-9)
    assert ours[name]["AP50"] == pytest.approx(expected[:, 0].mean(), abs=1e-9)
    assert ours[name]["AP75"] == pytest.approx(expected[:, 5].mean(), abs=1e-9)
    assert ours["protocol"] == "voc07" and ours["bbox"] == ours["voc07"]
    assert ours["coco"].keys() == ours["voc07"].keys()


def test_the_truth_of_voc_data_scores_100_by_each_protocol(scenes: Any) -> None:
    objects = voc_objects(scenes.root)
    classes = ["bar", "square"]  # the sorted names, where none are given
    perfect = [
        {
            "image_id": name,
            "category_id": classes.index(thing.name) + 1,
            "bbox": [thing.box[0] - 1, thing.box[1] - 1]
            + [thing.box[2] - thing.box[0] + 1, thing.box[3] - thing.box[1] + 1],
            "score": 1.0,
        }
        for name, things in objects.items()
        for thing in things
    ]
    found = d2_transfer.score(f"voc:{scenes.root}:all", perfect)
    for protocol in ("coco", "voc07", "voc10"):
        assert found[protocol]["AP"] == pytest.approx(100)
    nothing = d2_transfer.score(f"voc:{scenes.root}:all", [])
    assert [nothing[p]["AP"] for p in ("coco", "voc07", "voc10")] == [0, 0, 0]
    with pytest.raises(ValueError, match="has boxes only; omit segm"):
        d2_transfer.score(f"voc:{scenes.root}:all", [], ("segm",))


def test_neither_torch_nor_detectron2_is_loaded() -> None:
    program = (
        "import sys, d2_transfer, d2_transfer.commands.score; d2_transfer.score; "
        "print([m for m in ('torch', 'detectron2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_coco(tmp_path)
    results = tmp_path / "results.json"
    results.write_text(json.dumps(detections(data)))
    assert command.main([data, str(results), "--masks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == d2_transfer.score(data, results, ("bbox", "segm"))
    assert command.main([data, str(results)]) == 0
    text = capsys.readouterr().out
    assert "| bbox (coco) |" in text and "| none    | -" in text
    assert command.main([data, str(tmp_path / "no.json")]) == 2
    assert capsys.readouterr().err.endswith("no.json: no such file of results\n")


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_images_in_subfolders_are_looked_at(tmp_path: Path, backend: str) -> None:
    """The box beyond the image, whose size the file does not state, is clipped as in training."""
    voc_set(tmp_path / "train", lines=None, size=None)
    (tmp_path / "train" / "p0.xml").write_text(voc_xml(0, corners=(11, 9, 200, 38), size=None))
    found = [
        {"image_id": f"p{n}", "category_id": 1 + n % 2, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for n, (x0, y0, x1, y1) in enumerate([(10, 8, 80, 38), *BOXES[1:]])
    ]
    scores = d2_transfer.score(
        f"voc:{tmp_path}:train",
        [{**entry, "score": 0.9} for entry in found],
        classes=("cat", "dog"),
        backend=backend,
    )
    for protocol in ("coco", "voc07", "voc10"):
        assert scores[protocol]["AP"] == pytest.approx(100)
