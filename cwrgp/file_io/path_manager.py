"""Local paths of files that are named by a path or a URL.

A URL is downloaded once, completely or not at all. Other packages register their own prefixes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from iopath.common.file_io import PathHandler, PathManager

from cwrgp.file_io.cache import cache_dir
from cwrgp.file_io.download import download
from cwrgp.file_io.hugging_face_hub import HubHandler


class URLHandler(PathHandler):
    """Lets iopath read a URL through `download`.

    iopath's own handler keeps a file under its path alone, so that another server's file of the
    same path is taken for it, and keeps a login page as if it were the file.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        name = PurePosixPath(unquote(urlsplit(path).path)).name or "file"
        folder = cache_dir() / "urls" / hashlib.sha256(path.encode()).hexdigest()[:32]
        if force:
            (folder / name).unlink(missing_ok=True)
        return str(download(path, folder / name))


PATH_MANAGER = PathManager()
PATH_MANAGER.register_handler(URLHandler())
PATH_MANAGER.register_handler(HubHandler())


def local_file(path: str | Path) -> Path:
    """The local path of a file; a URL is downloaded into the cache first.

    Raises:
        FileNotFoundError: there is no such file.
    """
    local = Path(PATH_MANAGER.get_local_path(str(path)))
    try:
        local = local.expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{path}: {error}") from error
    if local.is_dir():
        raise FileNotFoundError(f"{path} is a folder, not a checkpoint file")
    if not local.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return local
