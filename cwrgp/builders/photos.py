"""The images of a run before its first step: what cannot be used is said, listed or refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from fvcore.common.config import CfgNode

from cwrgp.builders.data import root_of
from cwrgp.comm import gather_objects, get_rank, wait_for_all
from cwrgp.data.base import LabelledImages
from cwrgp.data.folders import describe_suffixes
from cwrgp.data.image_findings import (
    MAX_COMPARED,
    TWELVE_BITS,
    ImageFindings,
    count_repeated,
    image_folder_of,
    inspect_files,
)
from cwrgp.data.reader import ImageReader
from cwrgp.file_io.atomic import write_bytes
from cwrgp.images import reason_of

logger = logging.getLogger("cwrgp")

UNREADABLE_FILE = "unreadable.txt"
_MANY_REPEATED = 0.01  # of the images


def check_photos(cfg: CfgNode, reader: ImageReader, folder: Path) -> None:
    """Checks the training images of a run; every process takes part.

    Unreadable files are marked in ``reader`` and listed in ``unreadable.txt``. Suffixes that are
    skipped and many repeated images are logged.

    Args:
        cfg: validated.
        reader: of the training images.
        folder: of the run.

    Raises:
        ValueError: more images are unreadable than tolerated, or the range of their values is not
            known.
    """
    images, main = reader.images, get_rank() == 0
    whole = image_folder_of(images)
    if whole is None:
        return
    if main and whole[0].skipped:
        logger.warning(
            "DATA.ROOT %s: %d files are no images by their suffix and are skipped: %s",
            cfg.DATA.ROOT,
            whole[0].skipped.total(),
            describe_suffixes(whole[0].skipped),
        )
    findings = inspect_files(images)
    reader.mark_reasons({i: reason_of(text) for i, text in findings.problems.items()})
    if main:
        write_unreadable(folder, images, findings.problems)
    check_range(cfg, images, findings, "pretrain")
    reader.check()
    if main:
        if findings.problems:
            logger.warning(
                "%d of %d images cannot be read and are replaced; %s lists them",
                len(findings.problems),
                len(images),
                folder / UNREADABLE_FILE,
            )
        _report_repeated(images)
    wait_for_all()


def check_range(cfg: CfgNode, images: LabelledImages, findings: ImageFindings, split: str) -> None:
    """Refuses images that would be black or white because the range of their values is not known.

    Args:
        cfg: validated.
        images: of a split.
        findings: about them.
        split: as for `cwrgp.builders.data.build_images`.

    Raises:
        ValueError: names DATA.PIXEL_RANGE.
    """
    if cfg.DATA.PIXEL_RANGE:
        return
    where = " ".join(root_of(cfg, split))
    if findings.floating:
        raise ValueError(
            f"{where}: {len(findings.floating)} of {len(images)} images have floating-point or "
            "32-bit values, whose range is not known; set DATA.PIXEL_RANGE to the values [low, "
            f"high] that become black and white; the first is {images.name(findings.floating[0])}"
        )
    if findings.is_twelve_bit:
        high = (1 << findings.largest.bit_length()) - 1 or 1
        raise ValueError(
            f"{where}: the values of all {findings.sixteen} 16-bit images are below {TWELVE_BITS} "
            f"(the largest is {findings.largest}), so they would be nearly black; set "
            f"DATA.PIXEL_RANGE to the values that become black and white, such as [0, {high}]"
        )


def list_unreadable(reader: ImageReader, folder: Path) -> int:
    """Adds what all processes found in the course of a run to ``unreadable.txt``.

    Returns:
        The number of unreadable images.
    """
    problems: dict[int, str] = {}
    for part in gather_objects(reader.reasons()):
        problems |= part
    if get_rank() == 0 and problems:
        known = _read_unreadable(folder)
        names = {index: reader.images.name(index) for index in problems}
        details = {i: known.get(names[i], text) for i, text in problems.items()}
        write_unreadable(folder, reader.images, details)
    return len(problems)


def write_unreadable(folder: Path, images: LabelledImages, problems: Mapping[int, str]) -> None:
    """Writes ``unreadable.txt``: name and problem, separated by a tab. Without problems, none."""
    path = folder / UNREADABLE_FILE
    if not problems:
        path.unlink(missing_ok=True)
        return
    lines = [f"{images.name(index)}\t{problems[index]}\n" for index in sorted(problems)]
    # File names need not be UTF-8.
    write_bytes(path, "".join(lines).encode(errors="surrogateescape"))


def _read_unreadable(folder: Path) -> dict[str, str]:
    path = folder / UNREADABLE_FILE
    if not path.is_file():
        return {}
    lines = path.read_bytes().decode(errors="surrogateescape").splitlines()
    return {name: problem for name, _, problem in (line.rpartition("\t") for line in lines)}


def _report_repeated(images: LabelledImages) -> None:
    compared, equal, similar = count_repeated(images)
    if not equal + similar:
        return
    part = f"the first {MAX_COMPARED}" if len(images) > MAX_COMPARED else "the"
    message = (
        f"of {part} images, {equal} are equal to an earlier one and {similar} look nearly the same"
    )
    if equal + similar > _MANY_REPEATED * compared:
        logger.warning(
            "%s; equal images in a sub-batch make its covariance nearly singular: remove them, or "
            "set METHOD.CWRGP.EPS",
            message,
        )
    else:
        logger.info(message)
