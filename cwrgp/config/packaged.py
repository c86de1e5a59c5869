"""The configs that are installed with the package.

They are the files of the repository's ``configs`` folder. A wheel holds them in ``cwrgp/configs``;
a checkout, and an editable installation of it, reads them where they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def packaged_configs(patterns: Iterable[str] = ("*",)) -> dict[str, Path]:
    """The configs that are installed with this package.

    Args:
        patterns: of their names, as `fnmatch.fnmatch` has them.

    Returns:
        Name -> file, sorted. A name is relative to the folder: ``pretrain/cifar10_bn_r18.yaml``.
    """
    installed = _PACKAGE / "configs"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "configs"
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.glob("*/*.yaml"))}
    assert files, f"{folder} holds no configs"
    return {name: f for name, f in files.items() if any(fnmatch(name, p) for p in patterns)}
