"""Images that a command line names: files, folders and patterns."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from cwrgp.image_files import common_folder, name_below, named_images, write_unreadable

FILES = (
    "a/same.jpg",
    "b/same.JPG",
    "b/~old.png",
    "b/[1] n\u00e4me.tif",
    "b/movie.gif",
    "b/notes.txt",
    "b/._same.JPG",
    "b/.ipynb_checkpoints/same.jpg",
    "__MACOSX/b/same.jpg",
)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_images_and_counts_what_it_skips(photos: Path) -> None:
    with pytest.warns(UserWarning, match=r": 2 files are no images .*: .gif \(1\), .txt \(1\)$"):
        found = named_images([photos])
    expected = ["a/same.jpg", "b/[1] n\u00e4me.tif", "b/same.JPG", "b/~old.png"]
    assert [name_below(file, photos) for file in found] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert named_images(["a"]) == [Path("a/same.jpg")]


def test_each_image_is_taken_once_in_the_order_of_the_names(photos: Path) -> None:
    names = ["b/*", "a/../b/same.JPG", photos / "a" / "same.jpg", "**/*.jpg"]
    found = [name_below(file, photos) for file in named_images(names)]
    assert found == ["b/[1] n\u00e4me.tif", "b/same.JPG", "b/~old.png", "a/same.jpg"]
    assert common_folder(named_images(["a/same.jpg", "b/same.JPG"])) == photos
    assert common_folder([Path("b/same.JPG")]) == photos / "b"


def test_names_that_mean_something_elsewhere(photos: Path) -> None:
    os.chdir("b")
    assert named_images(["~old.png"]) == [Path("~old.png")]  # no user is called old.png
    assert named_images(["[1] n\u00e4me.tif"]) == [Path("[1] n\u00e4me.tif")]  # no pattern
    assert named_images(["movie.gif"]) == [Path("movie.gif")]  # named, so it is tried


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder, and no pattern of images"),
        (["b/*.txt"], "no pattern of images"),
        (["__MACOSX/b", "a"], None),
        (["b/.ipynb_checkpoints"], None),
        ([], "no image is named"),
    ],
)
def test_what_names_no_image(photos: Path, names: list[str], message: str | None) -> None:
    (photos / "empty").mkdir()
    if message is None:  # a hidden folder that is named is read
        assert named_images(names)
        return
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        named_images(names)
    with pytest.raises(ValueError, match=r"empty: the folder holds no image \(.bmp, .jpeg"):
        named_images(["a", "empty"])


def test_a_list_of_problems_keeps_names_that_are_not_utf8(tmp_path: Path) -> None:
    path, name = tmp_path / "unreadable.txt", os.fsdecode(b"a\xff.jpg")
    write_unreadable(path, {name: "damaged (cut off)"})
    assert path.read_bytes() == b"a\xff.jpg\tdamaged (cut off)\n"
    write_unreadable(path, {})
    assert not path.exists()
