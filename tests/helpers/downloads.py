"""The file that the tests of downloads serve, and what is found beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

CONTENT = bytes(range(256)) * 1200  # 300 kB, some blocks
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
ETAG = {"ETag": '"one"'}


def names(target: Path) -> list[str]:
    """What stands in its folder, apart from locks."""
    return sorted(p.name for p in target.parent.iterdir() if p.suffix != ".lock")
