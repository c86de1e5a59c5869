"""What was found out about files, kept in the cache until a file changes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cwrgp.file_io.atomic import write_text
from cwrgp.file_io.cache import cache_dir

logger = logging.getLogger(__name__)

Facts = Sequence[Any]  # values that JSON can hold
_State = tuple[int, int]  # size in bytes, time of the last change in ns


def facts_of_files(
    files: Sequence[Path],
    find: Callable[[Path], Facts],
    *,
    name: str,
    version: int,
    keep: Callable[[Facts], bool],
    workers: int | None = None,
) -> dict[Path, Facts]:
    """``find`` of every file, from the cache where path, size and time of change are the same.

    The facts about the files of one folder share a file of the cache, which is written atomically.
    A damaged one is ignored.

    Args:
        files: the paths. Files that are not there are not kept in the cache.
        find: of one file; called in threads, must not raise.
        name: of the kind of facts, a subfolder of the cache.
        version: of ``find``; facts of another version are ignored.
        keep: whether facts are kept in the cache.
        workers: threads; None: four for each core, since most of the time is spent waiting.
    """
    by_folder: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files):
        by_folder.setdefault(os.path.abspath(file.parent), []).append(file)
    found: dict[Path, Facts] = {}
    with ThreadPoolExecutor(workers or 4 * (os.cpu_count() or 1)) as pool:
        for folder, members in by_folder.items():
            digest = hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()[:32]
            place = cache_dir() / name / f"{digest}.json"
            kept = _read(place, version)
            states = dict(zip(members, pool.map(_state, members), strict=True))
            unchanged = [
                file for file in members if file.name in kept and kept[file.name][0] == states[file]
            ]
            new = sorted(set(members).difference(unchanged))
            facts = dict(zip(new, pool.map(find, new), strict=True))
            found |= facts | {file: kept[file.name][1] for file in unchanged}
            known = {
                file.name: (states[file], facts[file])
                for file in new
                if states[file] and keep(facts[file])
            }
            if known:
                _write(place, version, kept | known)
    return found


def _state(file: Path) -> _State | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(place: Path, version: int) -> dict[str, tuple[_State, Facts]]:
    try:
        content = json.loads(place.read_bytes())
        if content["version"] != version:
            return {}
        return {
            name: ((int(size), int(time)), list(facts))
            for name, (size, time, facts) in content["files"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(place: Path, version: int, entries: dict[str, Any]) -> None:
    files = {name: [*state, list(facts)] for name, (state, facts) in entries.items()}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps({"version": version, "files": files}))
    except OSError as error:  # only the next start is slower
        logger.warning("what was found about the images is not kept: %s", error)
