"""The images of a run before its first step: what cannot be used is said, listed or refused."""

from __future__ import annotations

import logging
from pathlib import Path

from fvcore.common.config import CfgNode

from cwrgp.builders.data import root_of
from cwrgp.comm import gather_objects, get_rank, wait_for_all
from cwrgp.data.base import LabelledImages
from cwrgp.data.image_findings import (
    MAX_COMPARED,
    ImageFindings,
    count_repeated,
    image_folder_of,
    inspect_files,
)
from cwrgp.data.reader import ImageReader
from cwrgp.image_check import unknown_range
from cwrgp.image_files import describe_suffixes, write_unreadable
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
        problems = {images.name(i): text for i, text in sorted(findings.problems.items())}
        write_unreadable(folder / UNREADABLE_FILE, problems)
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
    problem = unknown_range(
        "DATA.PIXEL_RANGE",
        images=len(images),
        floating=[images.name(index) for index in findings.floating],
        sixteen=findings.sixteen,
        largest=findings.largest,
    )
    if problem:
        raise ValueError(f"{' '.join(root_of(cfg, split))}: {problem}")


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
        names = {reader.images.name(index): text for index, text in sorted(problems.items())}
        details = {name: known.get(name, text) for name, text in names.items()}
        write_unreadable(folder / UNREADABLE_FILE, details)
    return len(problems)


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
