"""Runs a script of the repository with a limit on the size of its files, as on a full disk."""

from __future__ import annotations

import runpy
import sys
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit

if __name__ == "__main__":
    limit, script, *arguments = sys.argv[1:]
    # Python ignores SIGXFSZ: a write beyond the limit fails with EFBIG.
    setrlimit(RLIMIT_FSIZE, (int(limit), RLIM_INFINITY))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
