"""Published checkpoints by name, as MODEL_ZOO.md shows them, and the originals in a local cache.

``cwrgp://NAME`` is accepted wherever a checkpoint is read. A new checkpoint is a row here and in
MODEL_ZOO.md.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iopath.common.file_io import PathHandler, file_lock

from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.reader import read_with_digest
from cwrgp.file_io.atomic import replacing
from cwrgp.file_io.cache import cache_dir
from cwrgp.file_io.digest import (
    check_digest,
    is_intact,
    record_digest,
    record_file,
    recorded_digest,
)
from cwrgp.file_io.download import download
from cwrgp.file_io.drive import download_drive
from cwrgp.suggestions import suggest

logger = logging.getLogger(__name__)


PREFIX = "cwrgp://"


@dataclass(frozen=True)
class Publisher:
    """Who offers checkpoints, and on what terms.

    Attributes:
        page: where the files and the numbers are published.
        licence: note for whoever uses or redistributes them.
    """

    page: str
    licence: str


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint. Its numbers are those of its publisher, not measured here.

    Attributes:
        name: the part after ``cwrgp://``.
        method: how it was pretrained, on ImageNet-1k.
        epochs: of pretraining.
        source: its format, a name in `cwrgp.checkpoints.formats.SOURCES`.
        publisher: who offers it.
        linear: top-1 accuracy on ImageNet, in per cent: of the linear probe, or of a supervised
            network itself.
        voc: VOC 07+12, Faster R-CNN R50-C4, 24k iterations: AP50 / AP / AP75; "" if unpublished.
        coco_box: COCO, Mask R-CNN R50-C4, boxes: AP50 / AP / AP75; "–" for an unpublished one.
        coco_mask: the same for masks.
        url: of the file; "" if it is at Google Drive.
        drive_id: of the file at Google Drive.
        digest: published, as `cwrgp.file_io.digest.fits` takes it; None if there is none.
        arch: torchvision's name of the network.
    """

    name: str
    method: str
    epochs: int
    source: str
    publisher: Publisher
    linear: str
    voc: str = ""
    coco_box: str = ""
    coco_mask: str = ""
    url: str = ""
    drive_id: str = ""
    digest: str | None = None
    arch: str = "resnet50"


_UNLICENSED = "none given: ask the authors before you redistribute"


_CWRGP = Publisher("https://github.com/winci-ai/CW-RGP", _UNLICENSED)


_INTL = Publisher("https://github.com/winci-ai/INTL", _UNLICENSED)


_MOCO = Publisher(
    "https://github.com/facebookresearch/moco",
    "see the repository's licence (CC-BY-NC 4.0 when they were published)",
)


_TORCHVISION = Publisher(
    "https://docs.pytorch.org/vision/stable/models.html",
    "none given for the weights (torchvision's code: BSD 3-Clause)",
)


_MOCO_FILES = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints"


def _cwrgp(epochs: int, linear: str, drive_id: str, **more: str) -> Checkpoint:
    name, method = f"cwrgp4_r50_in1k_{epochs}ep", "CW-RGP, 4 views"
    return Checkpoint(name, method, epochs, "cwrgp-ddp", _CWRGP, linear, drive_id=drive_id, **more)


def _intl(epochs: int, linear: str, drive_id: str, crops: bool = True, **more: str) -> Checkpoint:
    name = f"intl_{'mc_ema_' if crops else ''}r50_in1k_{epochs}ep"
    method = "INTL, multi-crop and EMA" if crops else "INTL, no multi-crop or EMA"
    return Checkpoint(name, method, epochs, "intl", _INTL, linear, drive_id=drive_id, **more)


def _moco(version: int, epochs: int, linear: str, md5: str, **more: str) -> Checkpoint:
    stem = f"moco_v{version}_{epochs}ep"
    more |= {"url": f"{_MOCO_FILES}/{stem}/{stem}_pretrain.pth.tar", "digest": f"md5:{md5}"}
    name, method = f"moco_v{version}_r50_in1k_{epochs}ep", f"MoCo v{version}"
    return Checkpoint(name, method, epochs, "moco", _MOCO, linear, **more)


ZOO: Mapping[str, Checkpoint] = {
    row.name: row
    for row in (
        _cwrgp(100, "69.7", "1p137aJGGtQIKc_UErx1F0IgUeEbhApS5"),
        _cwrgp(
            200,
            "71.0",
            "1xMWmEW-AykQ5hdlfir0Tjjn8-UOOMHyx",
            voc="82.2 ± .07 / 57.2 ± .10 / 63.8 ± .11",
            coco_box="60.5 ± .28 / 40.7 ± .14 / 44.1 ± .14",
            coco_mask="57.3 ± .16 / 35.5 ± .12 / 37.9 ± .14",
        ),
        _intl(100, "73.5", "1DZVKlqWaRJ7Xkq9g4rDoVOfClRtIa0Uk"),
        _intl(
            200,
            "75.2",
            "1H6i__9IYkX4VYcMILY-8JgHQY1m_aUlP",
            coco_box="61.2 ± .08 / 41.2 ± .12 / 44.7 ± .19",
            coco_mask="57.8 ± .04 / 35.7 ± .05 / 38.1 ± .12",
        ),
        _intl(400, "76.1", "1CsowRCBNL6zTvjXe2PKhVOiDIGP-2to1"),
        _intl(800, "76.6", "1zHZPpHjMKnzwHyOD93cuRO0o8QMbWnxV"),
        _intl(800, "73.1", "1wkc1q6Pb-ZOLrBA36TyYsrOQPz8zLKtm", crops=False),
        _moco(1, 200, "60.6", "b251726a", voc="81.5 / 55.9 / 62.6"),
        _moco(2, 200, "67.7", "59fd9945", voc="82.4 / 57.0 / 63.6"),
        _moco(2, 800, "71.1", "a04e12f8", voc="82.5 / 57.4 / 64.0"),
        Checkpoint(
            "supervised_r50_in1k_90ep",
            "supervised, torchvision's V1",
            90,
            "torchvision",
            _TORCHVISION,
            "76.1",
            url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
            digest="sha256:0676ba61",
        ),
    )
}


def get(name: str, table: Mapping[str, Checkpoint] = ZOO) -> Checkpoint:
    """The row of that name.

    Raises:
        ValueError: there is none; the message names those that are close.
    """
    if name in table:
        return table[name]
    hint = suggest(name, table, f"there are {', '.join(table)}")
    raise ValueError(f"no published checkpoint is called {name!r}; {hint}")


def fetch(name: str, table: Mapping[str, Checkpoint] = ZOO, force: bool = False) -> Path:
    """The original file of a published checkpoint, from the cache or from its publisher.

    Before it counts as cached, a file must have the published digest, if there is one, and hold
    the network of its row, completely and in the row's format. Its SHA-256 is then recorded beside
    it and compared at every use.

    Args:
        name: of a row.
        table: the rows.
        force: download it even if it is cached.

    Raises:
        ValueError: no such name; the file is refused, or another than at the first download.
        OSError: it cannot be downloaded.
    """
    row = get(name, table)
    path = cache_dir() / f"{name}.pth"
    with file_lock(str(path.with_suffix(""))):
        if not force and is_intact(path):
            return path
        if force or recorded_digest(path) is not None:
            if path.is_file() and not force:
                logger.warning(f"{path} has changed since it was downloaded: downloading it again")
            path.unlink(missing_ok=True)
        origin = _obtain(row, path)
        try:
            digest = _check(row, path, origin)
        except ValueError:
            path.unlink()
            raise
        record_digest(path, digest)
    return path


def _obtain(row: Checkpoint, path: Path) -> str:
    """Brings the file to ``path``, unless it is there, and returns where it comes from."""
    mirror = os.environ.get("CWRGP_ZOO_MIRROR")
    if not mirror and not row.url:
        download_drive(row.drive_id, path)
        return f"https://drive.google.com/file/d/{row.drive_id}"
    origin = f"{mirror.rstrip('/')}/{row.name}.pth" if mirror else row.url
    if origin.startswith(("http://", "https://")):
        download(origin, path, digest=row.digest)
    elif not path.is_file():
        file = Path(origin).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; CWRGP_ZOO_MIRROR is {mirror}")
        with replacing(path, file.stat().st_size) as temporary:
            shutil.copyfile(file, temporary)
    return origin


def _check(row: Checkpoint, path: Path, origin: str) -> str:
    """Whether a file is that of a row; returns its SHA-256."""
    check_digest(path, row.digest, origin)
    try:
        content, found = read_with_digest(path)
        arch = extract_encoder(content, row.source).arch
    except ValueError as error:
        raise ValueError(f"{origin} is not {row.name} ({error})") from error
    recorded = recorded_digest(path)
    if recorded is not None and found != recorded:
        raise ValueError(
            f"{origin} is another file than at the first download (SHA-256 {found}, then"
            f" {recorded}); if you trust it, remove {record_file(path)}"
        )
    if arch != row.arch:
        raise ValueError(f"{origin} is not {row.name}: it holds a {arch}, not a {row.arch}")
    return found


class ZooHandler(PathHandler):
    """Lets iopath read ``cwrgp://NAME``: the original file.

    Args:
        table: the rows.
    """

    def __init__(self, table: Mapping[str, Checkpoint] = ZOO) -> None:
        super().__init__()
        self.table = table

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(fetch(path.removeprefix(PREFIX), self.table, force))
