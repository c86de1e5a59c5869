"""Which source code a result comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The Git commit of a folder's files, with "+ changes" if tracked files differ from it.

    Args:
        folder: of the code.

    Returns:
        None: the folder is not tracked by Git, such as in an installed package, or there is no Git.
    """

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "."):
            return None
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} + changes" if changed else commit
