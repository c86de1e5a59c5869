"""Which annotation files a split of a data set in VOC form has, and where its images are."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from d2_transfer.data.findings import Findings
from d2_transfer.data.image_index import FileIndex, is_image_name
from d2_transfer.data.other_formats import advice_for_folder
from d2_transfer.data.spec import VocSpec
from d2_transfer.data.values import read_text

ALL = "all"  # the split of a folder without lists

_LISTS = ("ImageSets/Main", "ImageSets", ".")
_ANNOTATIONS = ("Annotations",)
_IMAGES = ("JPEGImages", "images")
# Folders that some tools make in each folder of a split.
_ANNOTATION_PARTS = ("annotations", "xmls", "labels")
_SAME_SPLIT = {"val": "valid", "valid": "val"}
_FLAG = re.compile(r"\s+[-+]?\d+$")


@dataclass(frozen=True)
class VocFile:
    """An annotation file.

    Attributes:
        name: of the image, by which results name it.
        file: None: the list has an image without annotations.
        image: name by which the image is looked for.
    """

    name: str
    file: Path | None
    image: str


def voc_image_folder(root: Path) -> Path:
    """The folder of the images of a data set in VOC form."""
    return _first_folder(root, _IMAGES)


def voc_files(spec: VocSpec, findings: Findings) -> list[VocFile]:
    """The annotation files of a split, each once.

    A split is a list, or a folder as Roboflow writes it (``train``, ``valid``, ``test``), or all
    files.

    Args:
        spec: the folder and the split.
        findings: gets images that are listed twice.

    Raises:
        FileNotFoundError: the folder or the list does not exist.
        ValueError: the list is empty, or the folder has no annotations.
    """
    if not spec.root.is_dir():
        raise FileNotFoundError(f"{spec.root}: no such folder")
    index = FileIndex(
        _first_folder(spec.root, _ANNOTATIONS), lambda name: name.lower().endswith(".xml")
    )
    lists = _find_lists(spec)
    if not lists:
        return _files_in_folders(spec, index)
    found: dict[str, VocFile] = {}
    for number, file in enumerate(lists):
        if len(lists) > 1:
            findings.note("list of a class, whose images are used", str(file))
        for line in _lines(file):
            entry = _find_in_list(line, index)
            if entry.name not in found:
                found[entry.name] = entry
            elif number == 0:  # lists of classes have the same images
                findings.mend("image listed twice, used once", entry.name)
    if not found:
        raise ValueError(f"{lists[0]} lists no images")
    return list(found.values())


def _first_folder(root: Path, names: Sequence[str]) -> Path:
    """The first of the subfolders that exists, in whatever case; otherwise the folder itself."""
    subfolders = sorted(f.name for f in root.iterdir() if f.is_dir()) if root.is_dir() else []
    for name in names:
        found = [sub for sub in subfolders if sub.lower() == name.lower()]
        if found:
            return root / (name if name in found else found[0])
    return root


def _find_lists(spec: VocSpec) -> list[Path]:
    """The list of a split, or those of the single classes; [] if there are none."""
    split = spec.split.removesuffix(".txt")
    usual = [spec.root / name for name in _LISTS if (spec.root / name).is_dir()]
    for folder in usual:
        names = sorted(file.name for file in folder.glob("*.[tT][xX][tT]"))
        for name in (f"{split}.txt", *names):
            if name in names and name.lower() == f"{split}.txt".lower():
                return [folder / name]
    for folder in usual:
        if folder != spec.root and (single := sorted(folder.glob(f"*_{split}.txt"))):
            return single
    # Elsewhere, such as annotations/train.txt, or below VOC2007.
    below = [] if spec.split == ALL else sorted(spec.root.rglob(f"{split}.txt"))
    return below if len(below) == 1 else []


def _lines(file: Path) -> list[str]:
    lines = (line.strip(" \t,;\0") for line in read_text(file).lstrip("\ufeff").splitlines())
    return [line for line in lines if line]


def _find_in_list(line: str, index: FileIndex) -> VocFile:
    """The image of a line such as "name", "name -1", "name.jpg" or "images/name.jpg"."""
    names = [line]
    while shorter := _FLAG.sub("", names[-1]):
        if shorter == names[-1]:
            break
        names.append(shorter)
    words = line.split()
    if words[-1].lower().endswith(".xml") and len(words) == 2 and is_image_name(words[0]):
        names = [words[1]]  # the image and its annotations
    for name in names:
        if (index.root / f"{name}.xml").is_file():
            return _voc_file(name, index)
    for name in names:
        if (file := _find_name(name, index)) is not None:
            return file
    last = _without_suffix(names[-1]).name
    return VocFile(last, None, last)


def _voc_file(name: str, index: FileIndex) -> VocFile:
    return VocFile(name, index.root / f"{name}.xml", _image_name(PurePosixPath(name), index.root))


def _find_name(name: str, index: FileIndex) -> VocFile | None:
    path = _without_suffix(name)
    for spelling in (str(path), path.name):
        if (index.root / f"{spelling}.xml").is_file():
            return _voc_file(spelling, index)
    match = index.find(f"{path}.xml")
    if match is None or match.weak:
        return None
    found = PurePosixPath(match.file.relative_to(index.root).with_suffix(""))
    # As the list has it, in the spelling of the file.
    name = "/".join(found.parts[-len(path.parts) :])
    return VocFile(name, match.file, _image_name(found, index.root))


def _without_suffix(name: str) -> PurePosixPath:
    """A path without the suffix of an image or of annotations."""
    path = PurePosixPath(name.replace("\\", "/"))
    known = path.suffix.lower() == ".xml" or is_image_name(path.name)
    return path.with_suffix("") if known else path


def _files_in_folders(spec: VocSpec, index: FileIndex) -> list[VocFile]:
    """All annotation files, or those in the folders of the split's name."""
    files = index.files
    if not files:
        advice = advice_for_folder(spec.root)
        raise ValueError(advice or f"{index.root} has no annotation files (*.xml)")
    if spec.split != ALL:
        for split in (spec.split, _SAME_SPLIT.get(spec.split, spec.split)):
            if found := [f for f in files if split.lower() in str(f.parent).lower().split("/")]:
                files = found
                break
        else:
            raise FileNotFoundError(
                f"{spec.root / _LISTS[0]}/{spec.split}.txt does not exist; the split {ALL!r} has"
                f" all annotation files, and there is no folder {spec.split!r} of them"
            )
    common = Path(os.path.commonpath([file.parent for file in files]))
    names = [file.with_suffix("") for file in files]
    return [
        VocFile(str(name.relative_to(common)), index.root / file, _image_name(name, index.root))
        for name, file in zip(names, files, strict=True)
    ]


def _image_name(name: PurePath, root: Path) -> str:
    """Where the image may be: in the folder of images beside that of the annotations."""
    parts = list(name.parts)
    for number, part in enumerate(parts[:-1]):
        if part.lower() in _ANNOTATION_PARTS:
            beside = voc_image_folder(root.joinpath(*parts[:number]))
            if beside != root.joinpath(*parts[:number]):
                parts[number] = beside.name
    return "/".join(parts)
