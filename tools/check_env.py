"""Looks after an environment: what `make setup` asks before it trusts one.

    python tools/check_env.py torch     # exit code 0 if torch and torchvision fit together
    python tools/check_env.py ready     # ... and everything else that the project needs imports
    python tools/check_env.py repair    # makes pip forget what is not completely there

Standard library only: it runs before anything else is installed.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import shutil
import sys
import sysconfig
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_READY = 1  # something is missing: install or repair
MISFIT = 3  # torch and torchvision do not fit: a new environment would not help
REQUIRED: tuple[str, ...] = ("pip", "fvcore", "iopath", "pycocotools", "safetensors")
REQUIRED += ("tabulate", "tensorboard", "tqdm", "yaml", "jinja2", "matplotlib")
EXTRAS: tuple[str, ...] = (
    "gdown",
    "webdataset",
    "fsspec",
    "cv2",
    "wandb",
    "sklearn",
    "ruff",
    "mypy",
)
EXTRAS += ("pytest", "pytest_timeout", "xdist")
PACKAGES = ("cwrgp", "d2_transfer")  # this checkout's own


def torch_misfit() -> str | None:
    """Says why torch and torchvision do not work together, or gives None if they do.

    torchvision's compiled operators belong to one build of torch. Beside another build (a CPU-only
    torch is the usual one) the import fails, or only the first call of an operator does.

    Raises:
        ImportError: one of them is not there.
    """
    import torch

    try:
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (RuntimeError, OSError, AttributeError) as error:
        vision = importlib.metadata.version("torchvision")
        reason = str(error).strip().splitlines()[0]
        return (
            f"torch {torch.__version__} and torchvision {vision} do not fit together ({reason}); "
            f"fix: `{sys.executable} -m pip install --force-reinstall --no-deps -c constraints.txt "
            "torch torchvision`, with both from the same place (PyPI's also work without a GPU)"
        )
    return None


def import_all() -> None:
    """Imports what the project needs, or finds it where importing would only take time.

    Raises:
        ImportError: something is not there, or this project is installed from another folder.
    """
    import detectron2.engine  # noqa: F401

    # It does not import all of Detectron2; the rest is compared with what was installed.
    for note in Path(sysconfig.get_path("purelib")).glob("detectron2-*.dist-info/REPACKAGED.md"):
        reason = damage(note.parent)
        if reason is not None:
            raise ImportError(f"detectron2 is incomplete: {reason}")
    for module in REQUIRED + EXTRAS:
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"No module named {module!r}")
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin is None or origin.resolve().parent != ROOT / package:
            raise ImportError(f"{package} is not installed from {ROOT}, but from {origin}")


def check(everything: bool) -> int:
    """Prints one line if the environment is not ready, and returns the exit code."""
    warnings.simplefilter("ignore")
    try:
        misfit = torch_misfit()
        if misfit:
            print(f"not ready: {misfit}")
            return MISFIT
        if everything:
            import_all()
    except Exception as error:  # whatever a half installed package raises
        print(f"not ready: {type(error).__name__}: {' '.join(str(error).split())}")
        return NOT_READY
    return 0


def damage(info: Path) -> str | None:
    """Says what is missing of an installed distribution, or gives None if it is whole.

    Args:
        info: its ``.dist-info`` folder.
    """
    # pip writes INSTALLER near the very end, RECORD with every file and its size last.
    for name in ("METADATA", "RECORD", "INSTALLER"):
        if not (info / name).is_file():
            return f"no {name}"
    try:
        with (info / "RECORD").open(newline="") as record:
            sizes = {name: int(size or -1) for name, _, size in csv.reader(record)}
    except (ValueError, csv.Error):  # what a power failure leaves
        sizes = {}
    if f"{info.name}/RECORD" not in sizes:  # it lists itself
        return "RECORD is not complete"
    for name, size in sizes.items():
        path = info.parent / name
        if name.endswith(".pyc"):  # written again when missing
            continue
        if not path.is_file():
            return f"{name} is missing"
        if size >= 0 and path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def repair(site: Path) -> int:
    """Removes the metadata of damaged distributions, so that pip installs them again.

    Args:
        site: the ``site-packages`` folder.

    Returns:
        The exit code; ``NOT_READY`` if pip itself is not there or damaged.
    """
    for left_over in site.glob("~*"):  # what an interrupted uninstallation leaves
        shutil.rmtree(left_over, ignore_errors=True)
    for info in sorted(site.glob("*.dist-info")):
        reason = damage(info)
        if reason is None:
            continue
        print(f"incomplete: {info.name.removesuffix('.dist-info')} ({reason})")
        shutil.rmtree(info)
    return 0 if any(site.glob("pip-*.dist-info")) else NOT_READY


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Looks after an environment.")
    parser.add_argument("command", choices=("torch", "ready", "repair"))
    command = parser.parse_args().command
    if command == "repair":
        sys.exit(repair(Path(sysconfig.get_path("purelib"))))
    sys.exit(check(everything=command == "ready"))
