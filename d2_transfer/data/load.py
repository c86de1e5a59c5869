"""`load_annotated`: a data set with whatever can be read of it, and what was mended and skipped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwrgp.image_check import ImageFile, inspect_images, unknown_range_of
from cwrgp.images import is_missing
from d2_transfer.data.annotated import AnnotatedData, AnnotatedImage
from d2_transfer.data.box_forms import check_unit
from d2_transfer.data.boxes import mend_boxes
from d2_transfer.data.classes import use_classes
from d2_transfer.data.find_images import find_images
from d2_transfer.data.findings import SKIPPED, Findings
from d2_transfer.data.large_json import paused_garbage_collection
from d2_transfer.data.masks import mend_masks
from d2_transfer.data.readers.coco import read_coco_data
from d2_transfer.data.readers.voc import read_voc_data
from d2_transfer.data.readers.yolo import read_yolo_data
from d2_transfer.data.sizes import problem_of, settle_sizes
from d2_transfer.data.spec import CocoSpec, Spec, VocSpec

MASKLESS = ("box", "skip")
MAX_UNREADABLE_SHARE = 0.05


@dataclass(frozen=True)
class LoadedData:
    """A data set as it is used.

    Attributes:
        data: boxes inside their images, classes in the order of the model's.
        findings: what was mended, skipped and noted.
        unreadable: images that were skipped -> why.
        mask_format: "polygon" or "bitmask", what the masks need; None: masks were not asked for.
        files: what is known of the image files; empty if images were not asked for.
    """

    data: AnnotatedData
    findings: Findings
    unreadable: Mapping[int | str, str]
    mask_format: str | None
    files: Mapping[Path, ImageFile]


@paused_garbage_collection()
def load_annotated(
    spec: Spec,
    *,
    name: str = "",
    masks: bool = False,
    need_images: bool = True,
    classes: Sequence[str] | None = None,
    maskless: str = "box",
    max_unreadable_share: float = MAX_UNREADABLE_SHARE,
    pixel_range: Sequence[float] | None = None,
    strict: bool = False,
) -> LoadedData:
    """Reads a data set, mends what has one obvious mend, and leaves out what is worthless.

    Args:
        spec: which.
        name: of the data set, for messages; "": the file or folder.
        masks: whether masks are used. If not, objects have none.
        need_images: whether the images are looked for and their headers read. Without, sizes are
            those that the file states.
        classes: of the model, in order; the data's are mapped by name. None: the data's own.
        maskless: what becomes of an object without a usable mask, where masks are used: "box" keeps
            its box, "skip" drops it.
        max_unreadable_share: of the images, rounded up.
        pixel_range: lowest and highest value of images with more than 8 bits; None: not known.
        strict: refuse whatever would be mended or skipped.

    Raises:
        FileNotFoundError: the annotations or the folder of the images do not exist.
        ValueError: the data have more than one reading, or nothing is left of them.
    """
    if maskless not in MASKLESS:
        raise ValueError(f"maskless {maskless!r} is unknown; choose one of {', '.join(MASKLESS)}")
    if not 0 <= max_unreadable_share <= 1:
        raise ValueError(f"max_unreadable_share {max_unreadable_share} is not in 0 to 1")
    findings = Findings(name or _describe(spec))
    data = _read(spec, findings)
    if not data.images:
        raise ValueError(f"{data.source} lists no images")
    if data.num_things == 0:
        skipped = _skipped(findings)
        what = f": no object is left{skipped}" if skipped else " has no annotations"
        raise ValueError(f"{data.source}{what}")
    if not data.relative:
        check_unit(data, findings)
    unreadable: dict[int | str, str] = {}
    files: dict[Path, ImageFile] = {}
    if need_images or data.relative:
        find_images(data, findings)
        files = inspect_images([image.file for image in data.images if image.file is not None])
        unreadable = _drop_unreadable(data, files, max_unreadable_share, findings)
        if not pixel_range:
            _check_range(data, files, findings)
        settle_sizes(data, files, findings)
    _drop_equal(data)
    mend_boxes(data, findings, masks=masks)
    mask_format = None
    if masks:
        _check_objects(data, findings)
        mask_format = mend_masks(data, maskless, findings)
    else:
        for image in data.images:
            for thing in image.things:
                thing.mask = None  # not checked, so not to be used
    _drop_equal(data)  # once more: a box may have been equal but for what is outside of the image
    _check_objects(data, findings)
    if classes is not None:
        use_classes(data, classes, findings)
    _note_empty(data, findings)
    if strict:
        findings.check_strict()
    return LoadedData(data, findings, unreadable, mask_format, files)


def _describe(spec: Spec) -> str:
    if isinstance(spec, CocoSpec):
        return str(spec.json_file)
    return f"{spec.root if isinstance(spec, VocSpec) else spec.yaml} ({spec.split})"


def _read(spec: Spec, findings: Findings) -> AnnotatedData:
    if isinstance(spec, CocoSpec):
        return read_coco_data(spec, findings)
    if isinstance(spec, VocSpec):
        return read_voc_data(spec, findings)
    return read_yolo_data(spec, findings)


def _drop_unreadable(
    data: AnnotatedData, files: Mapping[Path, ImageFile], share: float, findings: Findings
) -> dict[int | str, str]:
    """Leaves out images that cannot be read, in place; returns which and why."""
    problems = {image.id: problem_of(files[image.file]) for image in data.images if image.file}
    good = [image for image in data.images if not problems[image.id]]
    bad = [image for image in data.images if problems[image.id]]
    allowed = math.ceil(round(share * len(data.images), 6))
    if bad and (len(bad) > allowed or not good):
        raise ValueError(
            f"{findings.name}: {len(bad)} of {len(data.images)} images cannot be read"
            f" (DATASETS.MAX_UNREADABLE_SHARE {share:g} allows {allowed}, and not all); the first"
            f" is {bad[0].file}: {problems[bad[0].id]}{_where(data, problems.values())}"
        )
    for image in bad:
        findings.skip("image that cannot be read", f"{image.file}: {problems[image.id]}")
    data.images = good
    return {number: problems[image.id] for image in bad for number in (image.id, *image.other_ids)}


def _where(data: AnnotatedData, problems: Iterable[str]) -> str:
    """Where images were looked for if none is there, as the end of a message."""
    if data.image_root is None or not all(map(is_missing, problems)):
        return ""
    advice = ", or give it, as in coco:ANN.json:IMAGES" if data.protocol == "coco" else ""
    return f"; none is below {data.image_root}: move them to that folder{advice}"


def _check_range(data: AnnotatedData, files: Mapping[Path, ImageFile], findings: Findings) -> None:
    """Refuses images that would be black or white because the range of values is not known."""
    used = {image.file: files[image.file] for image in data.images if image.file is not None}
    problem = unknown_range_of("INPUT.PIXEL_RANGE", used)
    if problem:
        raise ValueError(f"{findings.name}: {problem}")


def _drop_equal(data: AnnotatedData) -> None:
    for image in data.images:
        if image.listed_twice:
            image.drop_equal()


def _check_objects(data: AnnotatedData, findings: Findings) -> None:
    things = [thing for image in data.images for thing in image.things]
    if not things:
        raise ValueError(f"{data.source}: no object is left{_skipped(findings)}")
    if all(thing.crowd for thing in things):
        raise ValueError(
            f"{data.source} has crowds only (iscrowd 1), which are not trained on and not found;"
            " set iscrowd 0 where it is one object (CVAT and Datumaro write 1 for pixel masks)"
        )


def _skipped(findings: Findings) -> str:
    """What was skipped, as the end of a message."""
    skipped = [
        f"{count} x {kind}"
        for (action, kind), count in findings.counts.items()
        if action == SKIPPED
    ]
    return f" ({', '.join(skipped)})" if skipped else ""


def _note_empty(data: AnnotatedData, findings: Findings) -> None:
    """Notes crowds, images without objects, and classes."""
    for image in data.images:
        for thing in image.things:
            if thing.crowd:
                findings.note("crowd (iscrowd 1), not trained on and not scored", thing.place)
        if not image.things:
            findings.note("image without objects (background)", _place(image))
    counts = count_classes(data)
    for name, count in counts.items():
        if not count:
            findings.note("class without objects", name)


def count_classes(data: AnnotatedData) -> dict[str, int]:
    """The number of objects of each class, without crowds."""
    counts = Counter(t.label for image in data.images for t in image.things if not t.crowd)
    return {name: counts[name] for name in data.classes}


def _place(image: AnnotatedImage) -> str:
    return str(image.file or image.name)
