"""A data set's own objects as predictions score 100, whatever its files look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import coco_set, save_turned, voc_set, yolo_polygon, yolo_set
from PIL import Image

import d2_transfer
from d2_transfer.commands import score as command
from d2_transfer.data.load import LoadedData, load_annotated
from d2_transfer.data.spec import parse_spec

BACKENDS = ("hotcoco", "pycocotools")


def as_predictions(loaded: LoadedData) -> list[dict[str, Any]]:
    """The objects as a detector would give them: boxes inside the image, named by its ids."""
    ids = dict(zip(loaded.data.classes, loaded.data.category_ids, strict=True))
    found = []
    for image in loaded.data.images:
        for thing in image.things:
            x0, y0, x1, y1 = thing.box
            entry = {"image_id": image.id, "category_id": ids[thing.label], "score": 0.9}
            entry["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            entry["segmentation"] = thing.mask or [[x0, y0, x1, y0, x1, y1, x0, y1]]
            if not thing.crowd:
                found.append(entry)
    return found


def each(section: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for entry in content[section]:
            for key, value in values.items():
                entry[key] = value(entry[key]) if callable(value) else value

    return change


def beyond(content: dict[str, Any]) -> None:
    content["annotations"][1]["bbox"] = [30, 20, 300, 24]


def listed_twice(content: dict[str, Any]) -> None:
    for image, annotation in zip(content["images"][:2], content["annotations"][:2], strict=True):
        content["images"].append({**image, "id": image["id"] + 10})
        again = {**annotation, "id": annotation["id"] + 10, "image_id": image["id"] + 10}
        content["annotations"].append(again)


def text_category(content: dict[str, Any]) -> None:
    content["categories"].append({"id": 7, "name": "Cat"})
    content["annotations"][2]["category_id"] = 7


def without_masks(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = []
    content["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]


def without_size(content: dict[str, Any]) -> None:
    each("images", width=0, height=None)(content)
    each("annotations", area=None)(content)


COCO_CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "ids from 0": each("annotations", id=lambda i: i - 1),
    "image ids from 0": lambda content: (
        each("images", id=lambda i: i - 1)(content),
        each("annotations", image_id=lambda i: i - 1)(content),
    )[0],
    "image ids of 20 digits": lambda content: (
        each("images", id=lambda i: i + 10**20)(content),
        each("annotations", image_id=lambda i: str(i + 10**20))(content),
    )[0],
    "equal ids": each("annotations", id=3),
    "category ids as names": lambda content: (
        each("categories", id=lambda i: ("cat", "dog")[i - 1])(content),
        each("annotations", category_id=lambda i: ("cat", "dog")[i - 1])(content),
    )[0],
    "category ids below 0": lambda content: (
        each("categories", id=lambda i: -i)(content),
        each("annotations", category_id=lambda i: -i)(content),
    )[0],
    "numbers as text": each("annotations", bbox=lambda b: [str(v) for v in b], image_id=str),
    "box beyond its image": beyond,
    "images listed twice": listed_twice,
    "two categories of one name": text_category,
    "no masks": without_masks,
    "no sizes": without_size,
    "names of another machine": each("images", file_name=lambda name: f"C:\\set\\{name}"),
    "no area": each("annotations", area=None, iscrowd=None),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", COCO_CHANGES.values(), ids=COCO_CHANGES.keys())
def test_coco(tmp_path: Path, change: Callable[[dict[str, Any]], None], backend: str) -> None:
    coco_set(tmp_path, change)
    data = f"coco:{tmp_path / 'ann.json'}:{tmp_path / 'images'}"
    found = as_predictions(load_annotated(parse_spec(data), masks=True))
    scores = d2_transfer.score(data, found, ("bbox", "segm"), backend=backend)
    assert [scores[kind]["AP"] for kind in ("bbox", "segm")] == pytest.approx([100, 100])
    (tmp_path / "results.json").write_text(json.dumps(found))
    again = d2_transfer.score(data, tmp_path / "results.json", ("bbox", "segm"), backend=backend)
    assert again == scores


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif(tmp_path: Path, orientation: int) -> None:
    coco_set(tmp_path, save=save_turned(orientation))
    data = f"coco:{tmp_path / 'ann.json'}:{tmp_path / 'images'}"
    found = as_predictions(load_annotated(parse_spec(data)))
    assert d2_transfer.score(data, found)["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("fields", ["", "<difficult>False</difficult>"])
def test_voc(tmp_path: Path, fields: str) -> None:
    spec = voc_set(tmp_path, fields=fields, size=None)
    (tmp_path / "Annotations" / "p0.xml").write_text(
        (tmp_path / "Annotations" / "p0.xml").read_text().replace("<xmin>11", "<xmin>-30.5")
    )
    found = as_predictions(load_annotated(spec))
    scores = d2_transfer.score(f"voc:{tmp_path}:train", found)
    for protocol in ("coco", "voc07", "voc10"):
        assert scores[protocol]["AP"] == pytest.approx(100)


def test_yolo(tmp_path: Path) -> None:
    yolo_set(tmp_path, row=yolo_polygon)
    data = f"yolo:{tmp_path / 'data.yaml'}:train"
    found = as_predictions(load_annotated(parse_spec(data), masks=True))
    scores = d2_transfer.score(data, found, ("bbox", "segm"))
    assert scores["protocol"] == "coco"
    assert [scores[kind]["AP"] for kind in ("bbox", "segm")] == pytest.approx([100, 100])


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_under_either_id_of_an_image_count_once(tmp_path: Path, backend: str) -> None:
    """As another framework writes them, which has not united the entries."""
    coco_set(tmp_path, listed_twice)
    data = f"coco:{tmp_path / 'ann.json'}"
    content = json.loads((tmp_path / "ann.json").read_text())
    found = [{**annotation, "score": 0.9} for annotation in content["annotations"]]
    assert d2_transfer.score(data, found, backend=backend)["bbox"]["AP"] == pytest.approx(100)
    other = [entry for entry in found if entry["image_id"] not in (1, 2)]
    assert d2_transfer.score(data, other, backend=backend)["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_of_a_merged_category_count(tmp_path: Path, backend: str) -> None:
    coco_set(tmp_path, text_category)
    content = json.loads((tmp_path / "ann.json").read_text())
    found = [{**annotation, "score": 0.9} for annotation in content["annotations"]]
    scores = d2_transfer.score(f"coco:{tmp_path / 'ann.json'}", found, backend=backend)["bbox"]
    assert scores["AP"] == pytest.approx(100) and scores["per_class"].keys() == {"cat", "dog"}


def test_ids_as_text_are_those_of_numbers(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, each("images", id=str))
    found = as_predictions(load_annotated(spec))
    for entry in found:
        entry |= {"image_id": str(entry["image_id"]), "category_id": float(entry["category_id"])}
    scores = d2_transfer.score(f"coco:{spec.json_file}", found)
    assert scores["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_on_unreadable_images_are_dropped_and_counted(
    tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    def save(image: Image.Image, path: Path, number: int) -> None:
        image.save(path)
        if number == 3:
            path.write_bytes(path.read_bytes()[:-60])

    spec = coco_set(tmp_path, save=save)
    found = as_predictions(load_annotated(spec, need_images=False))
    data = f"coco:{spec.json_file}:{spec.images}"
    results = tmp_path / "results.json"
    results.write_text(json.dumps([*found, found[3]]))
    for given in ([*found, found[3]], results):
        caplog.clear()
        assert d2_transfer.score(data, given, backend=backend)["bbox"]["AP"] == pytest.approx(100)
        assert "2 entries are on images that cannot be read, and are dropped" in caplog.text
    assert d2_transfer.score(f"coco:{spec.json_file}", found)["bbox"]["per_class"]["dog"] == 100


def test_the_size_range_of_a_clipped_object_is_that_of_its_clipped_box(tmp_path: Path) -> None:
    """Its area in the file is that of a large object."""

    def far_beyond(content: dict[str, Any]) -> None:
        content["annotations"][3].update(bbox=[44, 4, 400, 300], area=120000, segmentation=[])

    spec = coco_set(tmp_path, far_beyond)
    found = as_predictions(load_annotated(spec))
    scores = d2_transfer.score(f"coco:{spec.json_file}", found)["bbox"]
    assert scores["APm"] == pytest.approx(100) and scores["APl"] is None


def test_the_command_shows_what_was_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    spec = coco_set(tmp_path, beyond)
    results = tmp_path / "results.json"
    results.write_text(json.dumps(as_predictions(load_annotated(spec))))
    assert command.main([f"coco:{spec.json_file}", str(results), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bbox"]["AP"] == pytest.approx(100)
    assert "box beyond its image, clipped" in caplog.text
