"""Lists of image files: those below a folder or named on a command line, and unreadable ones."""

from __future__ import annotations

import glob
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cwrgp.file_io.atomic import write_bytes
from cwrgp.images import IMAGE_SUFFIXES, is_hidden


def is_image(path: str) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def image_files(root: Path) -> Iterator[str]:
    """The images below a folder. Links are followed, but not to a folder that they are in."""
    return filter(is_image, files_below(root))


def files_below(root: Path) -> Iterator[str]:
    """The files below a folder, without hidden ones, as `image_files` follows links."""
    places: dict[str, frozenset[tuple[int, int]]] = {}  # of a folder and those above it
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        above = places.get(os.path.dirname(folder), frozenset())
        status = os.stat(folder)
        place = (status.st_dev, status.st_ino)
        if place in above:
            subfolders.clear()
            continue
        places[folder] = above | {place}
        yield from (os.path.join(folder, file) for file in files if not is_hidden(file))


def describe_suffixes(counts: Counter[str]) -> str:
    """Suffixes and how often each occurs, the most frequent ones first."""
    parts = [f"{suffix or 'no suffix'} ({count})" for suffix, count in counts.most_common(10)]
    return ", ".join(parts) + (" and others" if len(counts) > 10 else "")


def named_images(names: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The images that files, folders and patterns name, each once.

    Args:
        names: of files, which are taken whatever their suffix is; of folders, whose images are
            taken in the order of their names; and patterns such as ``photos/*.jpg`` or
            ``photos/**/*.png``, for shells that do not expand them.

    Other files in a folder are skipped with a warning that counts their suffixes.

    Raises:
        FileNotFoundError: no such file or folder, or a pattern that fits none.
        ValueError: a folder without images, or no name at all.
    """
    found: dict[str, Path] = {}
    for name in names:
        for path in _paths(Path(os.path.expanduser(name))):
            found.setdefault(os.path.abspath(path), path)
    if not found:
        raise ValueError("no image is named; name files, folders or patterns")
    return list(found.values())


def common_folder(files: Iterable[Path]) -> Path:
    """The innermost folder that all files are in, absolute."""
    return Path(os.path.commonpath([os.path.abspath(file.parent) for file in files]))


def name_below(file: Path, root: Path) -> str:
    """A file's name relative to a folder that it is in, with slashes."""
    return Path(os.path.relpath(os.path.abspath(file), root)).as_posix()


def write_unreadable(path: Path, problems: Mapping[str, str]) -> None:
    """Writes names of images and their problems, separated by a tab, one image per line.

    Without problems there is no such file: one of an earlier run is removed.
    """
    if not problems:
        path.unlink(missing_ok=True)
        return
    lines = [f"{name}\t{problem}\n" for name, problem in problems.items()]
    # File names need not be UTF-8.
    write_bytes(path, "".join(lines).encode(errors="surrogateescape"))


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(files_below(path))
        images = [Path(file) for file in files if is_image(file)]
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{path}: the folder holds no image ({suffixes})")
        others = Counter(os.path.splitext(file)[1].lower() for file in files if not is_image(file))
        if others:
            warnings.warn(
                f"{path}: {others.total()} files are no images by their suffix and are skipped:"
                f" {describe_suffixes(others)}",
                stacklevel=3,
            )
        return images
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []
    images = [Path(match) for match in matches if is_image(match) and os.path.isfile(match)]
    # A wildcard takes no hidden names: glob knows those with a leading dot only.
    images = [i for i in images if not any(map(is_hidden, {*i.parts} - {*path.parts}))]
    if not images:
        raise FileNotFoundError(f"{path}: no such file or folder, and no pattern of images")
    return images
