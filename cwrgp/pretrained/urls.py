"""Checkpoints at ``https://...``: downloaded once, completely or not at all."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from iopath.common.file_io import PathHandler

from cwrgp.pretrained.download import download
from cwrgp.pretrained.zoo import cache_dir


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
