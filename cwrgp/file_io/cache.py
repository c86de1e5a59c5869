"""Where this package keeps what it has downloaded or computed."""

from __future__ import annotations

import os
from pathlib import Path

from iopath.common.file_io import get_cache_dir


def cache_dir() -> Path:
    """``$CWRGP_CACHE``, or a folder in iopath's cache."""
    chosen = os.environ.get("CWRGP_CACHE")
    return Path(chosen).expanduser() if chosen else Path(get_cache_dir(), "cwrgp")
