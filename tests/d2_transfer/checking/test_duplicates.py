"""Images that occur twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2_transfer.checking.duplicates import Duplicate, find_duplicates, find_repeats


def scene(seed: int, side: int = 160) -> Image.Image:
    """A smooth random image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """Four images, and another set of which the first two show the same as 0 and 1."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        scene(number).save(tmp_path / "a" / f"{number}.png")
        scene(number + 10).save(tmp_path / "b" / f"{number}.png")
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "b" / "0.png")
    small = scene(1).resize((97, 97))
    small.save(tmp_path / "b" / "1.jpg", quality=60)
    (tmp_path / "b" / "1.png").unlink()
    return sorted((tmp_path / "a").iterdir()), sorted((tmp_path / "b").iterdir())


def test_equal_files_and_nearly_equal_pictures(sets: tuple[list[Path], list[Path]]) -> None:
    mine, theirs = sets
    assert find_duplicates(mine, theirs) == [
        Duplicate(mine[0], theirs[0], equal=True),
        Duplicate(mine[1], theirs[1], equal=False),
    ]
    assert find_repeats(mine + theirs) == [
        Duplicate(theirs[0], mine[0], equal=True),
        Duplicate(theirs[1], mine[1], equal=False),
    ]


def test_a_file_in_both_sets_is_a_duplicate_and_none_of_itself_in_one(
    sets: tuple[list[Path], list[Path]],
) -> None:
    mine, _ = sets
    assert find_duplicates(mine, mine[:2]) == [Duplicate(f, f, equal=True) for f in mine[:2]]
    assert find_repeats([*mine, *mine]) == []


def test_images_without_structure_are_only_compared_as_files(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        Image.new("RGB", (40, 40), (number, 9, 9)).save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "d.png")
    files = sorted(tmp_path.iterdir())
    assert find_repeats(files) == [Duplicate(files[3], files[0], equal=True)]


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    assert find_repeats(sorted(tmp_path.iterdir())) == []
