"""Files of a folder by names that almost fit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

from cwrgp.image_files import files_below
from d2_transfer.data.values import folded


@cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of all formats that Pillow opens, in lower case, with the dot."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in Image.OPEN)


def is_image_name(name: str) -> bool:
    """Whether a file has a suffix of an image."""
    return os.path.splitext(name)[1].lower() in readable_suffixes()


def name_parts(name: str) -> tuple[str, ...]:
    """Folders and name of a path of any system, without drive letter, ``.`` and ``..``."""
    path = re.sub(r"^[A-Za-z]:", "", name.strip()).replace("\\", "/")
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))


def folded_parts(name: str) -> tuple[str, ...]:
    """`name_parts` without differences of case and of Unicode's normal forms."""
    return tuple(folded(part) for part in name_parts(name))


def _without_additions(name: str) -> list[str]:
    """The name without the escapes and the query of a URL, and without Label Studio's prefix."""
    plain = unquote(re.sub(r"[?#].*$", "", name) if "://" in name else name)
    parts = name_parts(plain)
    bare = re.sub(r"^[0-9a-f]{8}-", "", parts[-1]) if parts else ""
    others = [plain, "/".join([*parts[:-1], bare])]
    return [other for other in others if other != name]


@dataclass(frozen=True)
class Match:
    """A file that fits a name.

    Attributes:
        file: its path.
        exact: whether the name needed no change, except for a suffix that it lacks.
        weak: whether the suffix differs, something was left out of the name, or both have folders
            that the other has not. Such a match counts only where no other name fits the file.
    """

    file: Path
    exact: bool
    weak: bool = False


class FileIndex:
    """The files below a folder, found by names with other folders, case, suffix or normal form.

    Hidden files and folders are left out, and so is ``__MACOSX``.

    Args:
        root: the folder.
        accept: whether a file name counts; by default those with a suffix of an image.
    """

    def __init__(self, root: Path, accept: Callable[[str], bool] = is_image_name) -> None:
        self.root = root
        self._accept = accept

    def find(self, name: str) -> Match | None:
        """The one file that fits a name, or None.

        Raises:
            ValueError: several files fit equally well.
        """
        found = self._find(name)
        for other in () if found else _without_additions(name):
            other_match = self._find(other)
            if other_match is not None:
                return replace(other_match, exact=False, weak=True)
        return found

    def _find(self, name: str) -> Match | None:
        if not name.strip():
            return None
        if os.path.isfile(self.root / name):
            return Match(self.root / name, exact=True)
        parts = folded_parts(name)
        if not parts:
            return None
        stem, suffix = os.path.splitext(parts[-1])
        has_suffix = self._accept(parts[-1])
        for files, other_suffix in (
            (self._by_name.get(parts[-1]), False),
            (self._by_stem.get(parts[-1]), False),  # the name has no suffix
            (self._by_stem.get(stem) if has_suffix else None, True),
        ):
            if files:
                return self._closest(name, parts, files, other_suffix=other_suffix)
        return None

    @property
    def files(self) -> list[Path]:
        """All files, relative to the folder, sorted."""
        return sorted(Path(file) for files in self._by_name.values() for file in files)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in sorted(files_below(self.root)):
            name = os.path.basename(file)
            if self._accept(name):
                found.setdefault(folded(name), []).append(os.path.relpath(file, self.root))
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, files in self._by_name.items():
            found.setdefault(os.path.splitext(name)[0], []).extend(files)
        return found

    def _closest(
        self, name: str, parts: tuple[str, ...], files: list[str], *, other_suffix: bool
    ) -> Match:
        """The file with the most folders in common; of several, the one of the same spelling."""
        shared = {file: _shared_end(parts[:-1], folded_parts(file)[:-1]) for file in files}
        most = max(shared.values())
        best = [file for file in files if shared[file] == most]
        if len(best) > 1:
            # Without folders, a file directly in the folder is meant.
            least = min(len(name_parts(file)) for file in best)
            best = [file for file in best if len(name_parts(file)) == least]
        if len(best) > 1:
            spelt = name_parts(name)[-1]
            same = [file for file in best if spelt in (os.path.basename(file), _stem(file))]
            best = same if len(same) == 1 else best
        if len(best) > 1:
            raise ValueError(
                f"{name!r} fits {len(best)} files in {self.root}, {best[0]} and {best[1]}; give the"
                " name with its folder and suffix"
            )
        folders = name_parts(best[0])[:-1]
        plain = name == _stem(best[0])  # as a list of VOC has it
        contradicts = most < min(len(parts) - 1, len(folders))
        return Match(self.root / best[0], exact=plain, weak=other_suffix or contradicts)


def _stem(file: str) -> str:
    return os.path.splitext(file)[0]


def _shared_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """How many parts at the end are the same."""
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return count
