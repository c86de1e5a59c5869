"""Data on a command line: ``coco:JSON[:IMAGES]``, ``voc:ROOT:SPLIT``, ``yolo:YAML:SPLIT``, a name.

Known names are Detectron2's own for COCO and VOC, whose files are in the folder that the
environment variable ``DETECTRON2_DATASETS`` names, and those that `remember` was told.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cwrgp.suggestions import suggest

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


@dataclass(frozen=True)
class CocoSpec:
    """Annotations in COCO form.

    Attributes:
        json_file: the annotation file.
        images: folder of the images; None: found from the place of the file, where needed.
    """

    json_file: Path
    images: Path | None = None


@dataclass(frozen=True)
class VocSpec:
    """A split of a data set in VOC form.

    Attributes:
        root: folder with ``Annotations`` and ``ImageSets``.
        split: name of a list in ``ImageSets/Main``, without ``.txt``, or of a folder of
            annotations; ``all``: all annotation files.
        year: 2007 (AP at 11 points of recall) or 2012 (area under the curve); None: 2012 for a
            folder VOC2012, otherwise 2007.
        classes: names in the order of the class numbers; None: those that occur, sorted.
    """

    root: Path
    split: str
    year: int | None = None
    classes: tuple[str, ...] | None = None

    @property
    def is_2007(self) -> bool:
        """Whether VOC's AP has 11 points of recall."""
        if self.year is None:
            return self.root.resolve().name != "VOC2012"
        return self.year == 2007


@dataclass(frozen=True)
class YoloSpec:
    """A split of a data set in YOLO form.

    Attributes:
        yaml: the ``data.yaml``, Darknet's ``obj.data``, or the folder that has one of them.
        split: its key: train, val or test.
    """

    yaml: Path
    split: str


Spec = CocoSpec | VocSpec | YoloSpec

_remembered: dict[str, Spec] = {}


def remember(name: str, spec: Spec) -> None:
    """Makes a data set known by name, in this process."""
    _remembered[name] = spec


def parse_spec(text: str) -> Spec:
    """What a spec names.

    Args:
        text: ``coco:ANN.json``, ``coco:ANN.json:IMAGES``, ``voc:ROOT:SPLIT``,
            ``yolo:DATA.yaml:SPLIT``, or a known name.

    Raises:
        FileNotFoundError: Detectron2's name of a data set whose annotations are not there.
        ValueError: an unknown kind or name, or a part is missing.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        return _named(text)
    parts = rest.split(":")
    if kind == "coco" and len(parts) <= 2 and all(parts):
        return CocoSpec(*(Path(part).expanduser() for part in parts))
    if kind == "voc" and len(parts) == 2 and all(parts):
        return VocSpec(Path(parts[0]).expanduser(), parts[1])
    if kind == "yolo" and len(parts) == 2 and all(parts):
        return YoloSpec(Path(parts[0]).expanduser(), parts[1])
    raise ValueError(
        f"{text!r} is not a data set; write coco:ANN.json[:IMAGES], voc:ROOT:SPLIT,"
        " yolo:DATA.yaml:SPLIT, or the name of a registered one"
    )


def as_file_name(name: str) -> str:
    """The name of a data set, which may be a spec with a path, as the name of a file or folder."""
    return re.sub(r"[^\w.-]+", "_", name)


def builtin_specs() -> dict[str, Spec]:
    """Detectron2's names for COCO and VOC; whether the files exist is not checked."""
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    specs: dict[str, Spec] = {}
    splits = {"2014": ("train", "val", "minival", "valminusminival"), "2017": ("train", "val")}
    files = {f"{year}_{split}": f"{split}{year}" for year in splits for split in splits[year]}
    files["2017_val_100"] = "val2017_100"
    for name, file in files.items():
        images = root / "coco" / f"{'train' if 'train' in name else 'val'}{name[:4]}"
        for prefix, kind in (("coco", "instances"), ("keypoints_coco", "person_keypoints")):
            json_file = root / "coco" / "annotations" / f"{kind}_{file}.json"
            specs[f"{prefix}_{name}"] = CocoSpec(json_file, images)
    for name in ("test", "test-dev"):
        json_file = root / "coco" / "annotations" / f"image_info_{name}2017.json"
        specs[f"coco_2017_{name}"] = CocoSpec(json_file, root / "coco" / "test2017")
    for year in (2007, 2012):
        for split in ("trainval", "train", "val", *(["test"] if year == 2007 else [])):
            spec = VocSpec(root / f"VOC{year}", split, year, VOC_CLASSES)
            specs[f"voc_{year}_{split}"] = spec
    return specs


def where_builtin() -> str:
    """Where Detectron2's own data sets are looked for, as the end of a message."""
    root = os.environ.get("DETECTRON2_DATASETS")
    return f" (DETECTRON2_DATASETS is {root})" if root else " (is DETECTRON2_DATASETS set?)"


def _named(name: str) -> Spec:
    builtin = builtin_specs()
    known = {**builtin, **_remembered}
    if name not in known:
        forms = (
            "write coco:ANN.json, voc:ROOT:SPLIT, yolo:DATA.yaml:SPLIT, or a name such as"
            " voc_2007_test"
        )
        raise ValueError(f"{name!r} is not a data set; {suggest(name, known, forms, cutoff=0.8)}")
    spec = known[name]
    if name in builtin:
        if isinstance(spec, CocoSpec):
            path = spec.json_file
        else:
            assert isinstance(spec, VocSpec)
            path = spec.root / "ImageSets" / "Main" / f"{spec.split}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} of {name!r} does not exist{where_builtin()}")
    return spec
