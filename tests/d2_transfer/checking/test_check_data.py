"""cwrgp-check-data and `d2_transfer.check_data`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import CLASSES, coco_set, save_turned, voc_set, yolo_set
from PIL import Image
from repository import REPOSITORY

import d2_transfer
from d2_transfer.commands import check_data as command


def spec_of(folder: Path) -> str:
    return f"coco:{folder / 'ann.json'}:{folder / 'images'}"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert command.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def one_beyond_one_empty(content: dict[str, Any]) -> None:
    content["annotations"][0]["bbox"][2] = 500
    content["annotations"][1]["bbox"][2] = 0


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_set(tmp_path, one_beyond_one_empty)
    text = run(capsys, spec_of(tmp_path), "--anchors", "32", "64", "--short-side", "60")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0].endswith("images: 4 images, 3 objects of 2 classes")
    assert "box beyond its image, clipped mended 1 ann.json: annotation 1" in lines
    assert "box of width or height 0 skipped 1 ann.json: annotation 2" in lines
    assert f"image without objects (background) noted 1 {tmp_path}/images/p1.png" in lines
    assert "cat 2 66.7 %" in lines and "dog 1 33.3 %" in lines
    assert any(line.startswith("0 to 16 0 0.0 %") for line in lines)
    assert any(line.startswith("16 to 32 1 33.3 % ####") for line in lines)
    assert "33.3 % have no anchor with an IoU of 0.5 or more" in text
    assert f"Images twice in {spec_of(tmp_path)}: 0 equal, 0 nearly equal" in lines


@pytest.mark.parametrize("form", ["voc", "yolo"])
def test_other_forms(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    (voc_set if form == "voc" else yolo_set)(tmp_path)
    path = tmp_path if form == "voc" else tmp_path / "data.yaml"
    assert "4 images, 4 objects of" in run(capsys, f"{form}:{path}:train")


def test_masks_are_not_looked_at_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken_masks(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = {"size": [60, 80], "counts": [4800]}
        content["annotations"][1]["segmentation"] = [[1, 2]]

    coco_set(tmp_path, broken_masks)
    out = tmp_path / "out"
    text = run(capsys, spec_of(tmp_path), "--output", out, "--write", out / "clean.json")
    assert "mended" not in text and "4 objects" in text
    text = run(capsys, spec_of(tmp_path), "--output", out, "--masks")
    assert text.count("its box used alone") == 2


def test_images_that_two_sets_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "val"):
        coco_set(tmp_path / name)
    photos = tmp_path / "photos"
    (photos / "day").mkdir(parents=True)
    shutil.copy(tmp_path / "val" / "images" / "p2.png", photos / "day" / "x.png")
    (photos / "broken.png").write_bytes(b"x")
    train, val = spec_of(tmp_path / "train"), spec_of(tmp_path / "val")
    text = run(capsys, train, "--against", val, "--pretraining", photos)
    assert f"Images in both {train} and {val}: 4 equal, 0 nearly equal" in text
    assert f"Images in both {train} and {photos}: 1 equal, 0 nearly equal" in text
    assert f"{tmp_path}/train/images/p2.png = {photos}/day/x.png" in text


def test_a_clean_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_set(tmp_path, one_beyond_one_empty)
    out = tmp_path / "clean.json"
    text = run(capsys, spec_of(tmp_path), "--write", out)
    assert f"Written: coco:{out}:{tmp_path / 'images'}" in text
    assert "without masks, which are written with --masks" in text
    assert "segmentation" not in out.read_text()
    text = run(capsys, spec_of(tmp_path), "--write", out, "--masks")
    assert "masks as polygon" in text and "without masks" not in text
    assert [len(a["segmentation"]) for a in json.loads(out.read_text())["annotations"]] == [1] * 3
    again = run(capsys, f"coco:{out}:{tmp_path / 'images'}", "--masks", "--strict")
    assert "3 objects of 2 classes" in again


def test_orientations_that_the_boxes_ignore_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_set(tmp_path, save=save_turned(6), suffix=".jpg")
    text = run(capsys, spec_of(tmp_path), "--write", tmp_path / "clean.json")
    assert "4 images have an EXIF orientation that their boxes ignore, and that other tools" in text
    assert "info lists the 4 images whose EXIF orientation is not to be applied" in text


class Images(HTMLParser):
    """The images and cells of a page, and whether it loads anything."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        source = values.get("src") or values.get("href") or ""
        if tag == "img":
            self.images.append(values.get("alt") or "")
        if source and not source.startswith("data:"):
            self.loaded.append(source)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_set(tmp_path, one_beyond_one_empty)
    out = tmp_path / "check"
    run(capsys, spec_of(tmp_path), "--masks", "--output", out, "--samples", "2")
    page = Images((out / "report.html").read_text())
    assert len(page.images) == 2 and page.loaded == []
    assert "box beyond its image, clipped" in page.text
    assert all(name in page.text for name in CLASSES)
    assert "nearly equal" in page.text
    with Image.open(out / "samples.png") as image:
        assert image.size == (2 * 328 + 8, 328 + 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--masks", "--strict"), "1 x box beyond its image, clipped would be mended"),
        (("--against", "coco:nowhere.json"), "nowhere.json: no such file"),
        (("--pretraining", "nowhere"), "pretraining: the folder nowhere does not exist"),
        (("--anchors", "0"), "sizes must be positive"),
    ],
)
def test_a_refusal_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    coco_set(tmp_path, one_beyond_one_empty)
    assert command.main([spec_of(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_pretraining_folder_without_images_is_refused(tmp_path: Path) -> None:
    coco_set(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no images"):
        d2_transfer.check_data(spec_of(tmp_path), pretraining=tmp_path / "empty")


def test_neither_torch_nor_detectron2_is_loaded(tmp_path: Path) -> None:
    coco_set(tmp_path)
    program = (
        "import sys; from d2_transfer.commands.check_data import main; "
        f"main([{spec_of(tmp_path)!r}, '--masks', '--output', {str(tmp_path / 'out')!r}]); "
        "print([m for m in ('torch', 'detectron2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")
