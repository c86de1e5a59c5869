"""Files at Google Drive, downloaded with gdown, which handles the confirmation pages."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from iopath.common.file_io import file_lock

from cwrgp.errors import MissingPackage
from cwrgp.file_io.atomic import move_into_place
from cwrgp.file_io.download import refuse_page

_OPTIONS: dict[str, Any] = {"resume": True, "use_cookies": False, "timeout": 60.0}


def download_drive(file_id: str, path: str | Path, *, retries: int = 3) -> Path:
    """Downloads a file from Google Drive; an interrupted download is resumed.

    Args:
        file_id: the part after ``/file/d/`` in its address.
        path: destination; an existing file is kept.
        retries: how often gdown may connect again, after a pause that grows.

    Returns:
        ``path``.

    Raises:
        MissingPackage: gdown is not installed.
        OSError: there is no connection, or Google Drive refuses.
        ValueError: the download is a web page; it is discarded.
    """
    path = Path(path)
    page = f"https://drive.google.com/file/d/{file_id}"
    try:
        gdown = importlib.import_module("gdown")
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{page} needs gdown, which is not installed: pip install gdown", name="gdown"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(path)):
        if path.is_file():
            return path
        arrived = path.with_name(f"{path.name}.drive")  # gdown keeps its part beside it
        options = {**_OPTIONS, "quiet": not sys.stderr.isatty(), "retries": retries}
        try:
            gdown.download(id=file_id, output=str(arrived), **options)
        except (gdown.exceptions.DownloadError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            if "NameResolutionError" in reason or "NewConnectionError" in reason:
                raise OSError(
                    f"{page}: no connection to Google Drive; is there a network? Without one, put"
                    " the file into CWRGP_ZOO_MIRROR (MODEL_ZOO.md says how)"
                ) from error
            raise OSError(
                f"{page}: Google Drive refuses the download ({reason}); try again later, or"
                " fetch it with a browser (MODEL_ZOO.md says how)"
            ) from error
        with arrived.open("rb") as file:
            start = file.read(1 << 16)
        try:
            refuse_page(start, page)
        except ValueError:
            arrived.unlink()
            raise
        move_into_place(arrived, path)
    return path
