"""Which file an annotated image is, where its name almost fits."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from annotated_sets import boxes_of, coco_set, picture, save_plainly, truth, voc_set

from d2_transfer.data.findings import MENDED, SKIPPED
from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import CocoSpec


def named(*names: str) -> Any:
    """Gives the images of a COCO file these names."""

    def change(content: dict[str, Any]) -> None:
        for image, name in zip(content["images"], names, strict=False):
            image["file_name"] = name

    return change


@pytest.mark.parametrize(
    "name",
    [
        "images/p0.png",
        "images/images/p0.png",
        "./train/p0.png",
        "C:\\photos\\day 1\\p0.png",
        "\\\\server\\share\\p0.png",
        "/mnt/data/p0.png",
        "P0.PNG",
        "p0.jpg",
        "p0.tar.gz/p0.jpeg",
        " p0.png ",
        "p0%2Epng",
        "https://host/photos/p0.png",
        "https://host/photos/p0.png?token=a/b&x=1#top",
        "/data/local-files/?d=photos/p0.png",
        "images/0a1b2c3d-p0.png",
    ],
)
def test_a_name_that_one_file_fits(tmp_path: Path, name: str) -> None:
    loaded = load_annotated(coco_set(tmp_path, named(name)))
    assert boxes_of(loaded) == truth()
    assert loaded.findings.as_dict() == {MENDED: {"file name that almost fits": 1}}
    assert f"{name} -> p0.png" in loaded.findings.as_text()


def test_escapes_of_urls(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, named("my%20photo%20%C3%BC.png", "100%.png"))
    for number, name in enumerate((unicodedata.normalize("NFD", "my photo ü.png"), "100%.png")):
        (tmp_path / "images" / f"p{number}.png").rename(tmp_path / "images" / name)
    assert [boxes[0][0] for boxes in boxes_of(load_annotated(spec)).values()] == ["cat", "dog"] * 2


def test_a_prefix_that_distinguishes_two_images_is_none(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, named("0a1b2c3d-p0.png", "11111111-p0.png"))
    with pytest.raises(ValueError, match=r"'0a1b2c3d-p0.png' and '11111111-p0.png' both fit"):
        load_annotated(spec)


@pytest.mark.parametrize("key", ["filename", "path", "coco_url"])
def test_keys_of_the_name(tmp_path: Path, key: str) -> None:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image[key] = f"http://host/val/{image.pop('file_name')}"

    assert boxes_of(load_annotated(coco_set(tmp_path, change))) == truth()


@pytest.mark.parametrize("name", ["p0", "./p0.png", "../images/p0.png"])
def test_a_name_that_needs_no_mend(tmp_path: Path, name: str) -> None:
    loaded = load_annotated(coco_set(tmp_path, named(name)))
    assert boxes_of(loaded) == truth()
    assert loaded.findings.counts == {}


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_unicodes_normal_forms(tmp_path: Path, listed: str, stored: str) -> None:
    spec = coco_set(tmp_path, named(unicodedata.normalize(listed, "für.png")))  # type: ignore[arg-type]
    file = spec.json_file.parent / "images" / unicodedata.normalize(stored, "für.png")  # type: ignore[arg-type]
    (tmp_path / "images" / "p0.png").rename(file)
    loaded = load_annotated(spec)
    assert loaded.data.images[0].file == file


def test_folders_decide_between_files_of_one_name(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, named("x/a/p.png", "b\\p.png"))
    for folder, number in (("a", 0), ("b", 1)):
        (tmp_path / "images" / folder).mkdir()
        (tmp_path / "images" / f"p{number}.png").rename(tmp_path / "images" / folder / "p.png")
    loaded = load_annotated(spec)
    files = [image.file for image in loaded.data.images[:2]]
    assert files == [tmp_path / "images" / folder / "p.png" for folder in ("a", "b")]


def test_a_name_that_several_files_fit_is_refused(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, named("p.png"))
    for folder in ("a", "b"):
        (tmp_path / "images" / folder).mkdir()
        save_plainly(picture(0), tmp_path / "images" / folder / "p.png", 0)
    with pytest.raises(ValueError, match=r"'p.png' fits 2 files in .*, a/p.png and b/p.png; give"):
        load_annotated(spec)


@pytest.mark.parametrize("names", [("a/p0.png", "b/p0.png"), ("p0.jpg", "p0.bmp")])
def test_two_names_that_may_be_two_images_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match=f"{names[0]!r} and {names[1]!r} both fit .*p0.png only"):
        load_annotated(coco_set(tmp_path, named(*names)))


@pytest.mark.parametrize("other", ["p0.jpg", "old/p0.jpg"])
def test_a_file_belongs_to_the_name_that_fits_better(tmp_path: Path, other: str) -> None:
    """The second image is missing, it is no other name of the first."""
    loaded = load_annotated(coco_set(tmp_path, named("p0.png", other)))
    expected = truth()
    del expected["p1.png"]
    assert boxes_of(loaded) == expected
    assert loaded.findings.as_dict() == {SKIPPED: {"image that cannot be read": 1}}


def test_two_names_of_one_file_are_one_image(tmp_path: Path) -> None:
    loaded = load_annotated(coco_set(tmp_path, named("p0.png", "images/p0.png")))
    image = loaded.data.images[0]
    assert [thing.label for thing in image.things] == ["cat", "dog"]
    assert image.other_ids == [2]
    assert len(loaded.data.images) == 3


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    spec = coco_set(tmp_path, named("x/p0.png"))
    for name in ("._p0.png", ".cache/p0.png", "__MACOSX/p0.png"):
        file = tmp_path / "images" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    assert boxes_of(load_annotated(spec)) == truth()


def test_the_file_name_of_an_annotation_decides_where_the_list_does_not(tmp_path: Path) -> None:
    spec = voc_set(tmp_path, filename="p0.png", lines=b"p0\n")
    (tmp_path / "JPEGImages" / "p0.jpg").write_bytes(b"x")
    assert load_annotated(spec).data.images[0].file == tmp_path / "JPEGImages" / "p0.png"


def test_a_missing_folder_of_images_is_named(tmp_path: Path) -> None:
    spec = coco_set(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"ann.json: the folder of its images, .*nowhere, d"
    ):
        load_annotated(CocoSpec(spec.json_file, tmp_path / "nowhere"))
