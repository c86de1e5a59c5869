"""`check_data`: what is in a data set and what is wrong with it, before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image
from tabulate import tabulate

from cwrgp.file_io.atomic import replacing
from cwrgp.image_check import inspect_images
from cwrgp.report.page import render, write_page
from d2_transfer.checking.box_sizes import (
    ANCHOR_SIZES,
    LONG_SIDE,
    MATCHED_IOU,
    SHORT_SIDE,
    BoxSizes,
    box_sizes,
)
from d2_transfer.checking.clean_coco import ignored_orientations
from d2_transfer.checking.drawing import choose_samples, draw, sheet
from d2_transfer.checking.duplicates import Duplicate, find_duplicates, find_repeats
from d2_transfer.data.findings import MAX_LISTED
from d2_transfer.data.image_index import FileIndex
from d2_transfer.data.load import LoadedData, count_classes, load_annotated
from d2_transfer.data.spec import parse_spec

SAMPLES = 16
_TEMPLATE = Path(__file__).with_name("check_data.html.j2")


@dataclass(frozen=True)
class DataCheck:
    """What was found about a data set.

    Attributes:
        name: of the data set.
        loaded: the data as they are used.
        sizes: its objects against the anchors.
        duplicates: a heading -> the pictures that occur twice.
    """

    name: str
    loaded: LoadedData
    sizes: BoxSizes
    duplicates: dict[str, list[Duplicate]]


def check_data(
    data: str,
    *,
    masks: bool = False,
    against: str | None = None,
    pretraining: str | PathLike[str] | None = None,
    anchors: Sequence[float] = ANCHOR_SIZES,
    short_side: float = SHORT_SIDE,
    long_side: float = LONG_SIDE,
    **options: Any,
) -> DataCheck:
    """Reads a data set as training does, and looks for what a glance does not show.

    Args:
        data: ``coco:ANN.json[:IMAGES]``, ``voc:ROOT:SPLIT``, ``yolo:DATA.yaml:SPLIT`` or a name.
        masks: whether masks are used.
        against: another data set, such as the one for validation; its images are looked for here.
        pretraining: folder of images without annotations, likewise.
        anchors: sizes of the anchors in pixels of the resized image.
        short_side: to which the detector resizes images.
        long_side: which they do not exceed.
        options: of `d2_transfer.data.load.load_annotated`.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: the data cannot be used as they are.
    """
    loaded = load_annotated(parse_spec(data), name=data, masks=masks, **options)
    files = [image.file for image in loaded.data.images if image.file is not None]
    duplicates = {f"twice in {data}": find_repeats(files)}
    if against is not None:
        other = load_annotated(parse_spec(against), name=against, **options)
        theirs = [image.file for image in other.data.images if image.file is not None]
        duplicates[f"in both {data} and {against}"] = find_duplicates(files, theirs)
    if pretraining is not None:
        theirs = pretraining_images(Path(pretraining).expanduser())
        duplicates[f"in both {data} and {pretraining}"] = find_duplicates(files, theirs)
    return DataCheck(
        name=data,
        loaded=loaded,
        sizes=box_sizes(loaded.data, anchors, short_side=short_side, long_side=long_side),
        duplicates=duplicates,
    )


def pretraining_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"pretraining: the folder {folder} does not exist")
    files = [folder / file for file in FileIndex(folder).files]
    if not files:
        raise ValueError(f"pretraining: the folder {folder} has no images")
    known = inspect_images(files)
    return [file for file in files if not known[file].problem]


def as_text(check: DataCheck) -> str:
    """What was found, as tables."""
    parts = [_summary(check)]
    for caption, head, rows in tables(check):
        parts.append(f"{caption}\n{tabulate(rows, headers=head, disable_numparse=True)}")
    skipped = check.loaded.findings.skipped_as_text()
    parts += [skipped] if skipped else []
    for heading, found in check.duplicates.items():
        parts.append(_duplicates_as_text(heading, found))
    ignored = ignored_orientations(check.loaded)
    if ignored:
        names = ", ".join(map(str, ignored[:MAX_LISTED]))
        parts.append(
            f"{len(ignored)} images have an EXIF orientation that their boxes ignore, and that"
            f" other tools may apply: {names}{_more(len(ignored))}"
        )
    return "\n\n".join(parts)


def tables(check: DataCheck) -> list[tuple[str, list[str], list[list[str]]]]:
    """Captions, headings and rows: findings, classes, and sizes of objects."""
    findings = check.loaded.findings
    found = [
        [kind, action, str(count), (findings.places[action, kind] or [""])[0]]
        for (action, kind), count in findings.counts.items()
    ]
    counts = count_classes(check.loaded.data)
    total = max(1, sum(counts.values()))
    classes = [[name, str(count), _percent(count, total)] for name, count in counts.items()]
    sizes = check.sizes
    ranges = zip(pairwise(sizes.edges), sizes.counts, strict=True)
    most = max(1, *sizes.counts)
    rows = [
        [
            f"{low:g} to {high:g}",
            str(count),
            _percent(count, max(1, sizes.total)),
            "#" * round(30 * count / most),
        ]
        for (low, high), count in ranges
    ]
    missed = _percent(sizes.unmatched, max(1, sizes.total))
    caption = (
        f"Size of objects (square root of the area, px of the resized image); {missed} have no"
        f" anchor with an IoU of {MATCHED_IOU:g} or more"
    )
    return [
        ("What was met", ["what", "", "count", "first"], found or [["nothing", "", "", ""]]),
        ("Objects by class", ["class", "objects", "share"], classes),
        (caption, ["size", "objects", "share", ""], rows),
    ]


def write_report(
    check: DataCheck,
    folder: Path,
    *,
    samples: int = SAMPLES,
    pixel_range: Sequence[float] | None = None,
) -> None:
    """Writes ``samples.png``, drawn annotations, and ``report.html`` with the tables as well.

    Args:
        check: what `check_data` returns.
        folder: made if need be.
        samples: how many images are drawn.
        pixel_range: lowest and highest value of images with more than 8 bits.
    """
    data = check.loaded.data
    chosen = choose_samples(data, samples)
    pictures = [draw(image, data.classes, pixel_range) for image in chosen]
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "samples.png") as temporary:
        sheet(pictures).save(temporary, "PNG")
    write_page(folder / "report.html", _page(check, pictures, [str(i.file) for i in chosen]))


def _page(check: DataCheck, pictures: Sequence[Image.Image], names: Sequence[str]) -> str:
    return render(
        _TEMPLATE,
        name=check.name,
        summary=_summary(check),
        tables=tables(check),
        duplicates={
            heading: _duplicates_as_text(heading, found).splitlines()
            for heading, found in check.duplicates.items()
        },
        pictures=list(zip(pictures, names, strict=True)),
    )


def _summary(check: DataCheck) -> str:
    data = check.loaded.data
    masks = f", masks as {check.loaded.mask_format}" if check.loaded.mask_format else ""
    return (
        f"{check.name}: {len(data.images)} images, {data.count_as_text()} of"
        f" {len(data.classes)} classes{masks}"
    )


def _duplicates_as_text(heading: str, found: Sequence[Duplicate]) -> str:
    equal = sum(pair.equal for pair in found)
    lines = [f"Images {heading}: {equal} equal, {len(found) - equal} nearly equal"]
    for pair in found[:MAX_LISTED]:
        lines.append(f"  {pair.file} {'=' if pair.equal else '~'} {pair.other}")
    if more := _more(len(found)):
        lines.append(f"  {more.removeprefix(', ')}")
    return "\n".join(lines)


def _more(count: int) -> str:
    return f", and {count - MAX_LISTED} more" if count > MAX_LISTED else ""


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
