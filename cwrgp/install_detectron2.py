"""Installs Detectron2 0.6 without a compiler, unless ``detectron2`` already imports.

Detectron2 is not on PyPI under its own name. The pure-Python wheel ``labgym==3.1.2`` carries its
whole Python tree (Apache-2.0, copyright Facebook, Inc. and its affiliates) under
``LabGym/detectron2``. This command takes that folder alone, restores the modules' own import name,
fixes one line, and wraps the result as the distribution ``detectron2`` 0.6 with Detectron2's own
requirements (see `cwrgp.detectron2_wheel`). It omits Detectron2's compiled operators
(``detectron2._C``: rotated boxes, deformable convolution), which nothing here needs. A source build
that imports is used as it is.

Standard library only: it must run where nothing of what it installs is there yet.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cwrgp.detectron2_wheel import NOTE_NAME, SOURCE, VERSION, build_wheel

# The tested versions; there in a checkout, not in a wheel.
CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"


def run_pip(*arguments: str) -> None:
    """Runs this interpreter's pip; its own messages go to the terminal."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    code = subprocess.run(command).returncode
    if code:
        raise ValueError(f"{' '.join(command)} failed (exit code {code}); pip says why above")


def download_source(out_dir: Path) -> Path:
    """Downloads the source wheel and returns its path."""
    # --python-version: the wheel says "< 3.11", which is true of LabGym and not of this folder.
    options = ("--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.10")
    run_pip("download", *options, "--dest", str(out_dir), SOURCE)
    return next(out_dir.glob("*.whl"))


def probe() -> tuple[str, str, Path | None]:
    """Looks for Detectron2 in a fresh interpreter.

    Returns:
        ``"works"``, ``"missing"`` or ``"broken"``; the version, or the last line of the error; and
        the folder of the package, if there is one.
    """
    # The engine imports all that training needs; a source build for another PyTorch fails there.
    # Not in the current folder: a folder detectron2 there would be imported.
    code = (
        "import importlib.util as u; s = u.find_spec('detectron2')\n"
        "if s is None or s.origin is None: raise SystemExit(10)\n"
        "print(s.origin); import detectron2, detectron2.engine; print(detectron2.__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=sys.prefix,
    )
    if done.returncode == 10:
        return "missing", "", None
    out, err = done.stdout.strip().splitlines(), done.stderr.strip().splitlines()
    package = Path(out[0]).parent if out else None
    if done.returncode == 0:
        return "works", out[-1], package
    return "broken", err[-1] if err else f"exit code {done.returncode}", package


def own_installation(package: Path, site: Path) -> str:
    """Whether a ``detectron2`` folder was installed by this command.

    Args:
        package: the folder.
        site: the ``site-packages`` folder that this command installs into.

    Returns:
        ``"whole"``, ``"partial"`` (an installation was interrupted), or ``"not own"``: somebody
        else's, which is not to be touched.
    """
    # A source build has its compiled operators in the folder.
    if package.resolve().parent != site.resolve() or any(package.glob("_C*")):
        return "not own"
    # pip writes INSTALLER last but for RECORD.
    infos = [i for i in site.glob("detectron2-*.dist-info") if (i / "INSTALLER").is_file()]
    if not infos:
        return "partial"
    return "whole" if all((info / NOTE_NAME).is_file() for info in infos) else "not own"


def install(wheel: Path) -> None:
    """Installs the wheel with its requirements into this interpreter."""
    # First the files alone, over whatever is there: an interrupted installation has no list of its
    # files, so that pip could neither trust nor remove it. Then what it requires.
    run_pip("install", "--quiet", "--no-deps", "--ignore-installed", str(wheel))
    extra = ["-c", str(CONSTRAINTS)] if CONSTRAINTS.is_file() else []
    run_pip("install", "--quiet", str(wheel), *extra)


def find_or_install(
    *, source: Path | None = None, wheel_dir: Path | None = None, no_install: bool = False
) -> None:
    """Finds, builds and installs Detectron2.

    Args:
        source: the downloaded source wheel; None downloads it.
        wheel_dir: folder for the built wheel; None keeps no wheel.
        no_install: only build the wheel.

    Raises:
        ValueError: arguments that do not fit, or anything that is not as expected.
        OSError: a file that is missing or cannot be written.
    """
    if no_install and wheel_dir is None:
        raise ValueError("no_install needs wheel_dir: without it there is nothing to do")
    state, detail, package = ("missing", "", None) if no_install else probe()
    own = own_installation(package, Path(sysconfig.get_path("purelib"))) if package else "not own"
    if state == "works" and own == "partial":
        state = "broken"  # it imports, but files may be missing
    if state == "works":
        print(f"detectron2 {detail} at {package}: nothing to install")
        if wheel_dir is None:
            return
    if state == "broken" and own == "not own":
        raise ValueError(
            f"detectron2 at {package} does not import ({detail}); "
            "repair it, or uninstall it and run this again"
        )
    with tempfile.TemporaryDirectory() as scratch:
        if source is None:
            print(f"fetching {SOURCE}, which carries Detectron2 {VERSION}'s Python code")
        archive = source or download_source(Path(scratch))
        wheel = build_wheel(archive, wheel_dir or Path(scratch))
        if wheel_dir is not None:
            print(f"wrote {wheel}")
        if no_install or state == "works":
            return
        install(wheel)
    state, detail, package = probe()
    if state != "works":
        raise ValueError(f"detectron2 was installed but does not import: {detail}")
    print(f"installed detectron2 {detail} at {package}")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(
        prog="cwrgp-install-detectron2",
        description="Installs Detectron2 0.6 without a compiler, unless it already imports.",
    )
    parser.add_argument(
        "--wheel-dir", type=Path, metavar="DIR", help="build the wheel in any case and keep it here"
    )
    parser.add_argument(
        "--no-install", action="store_true", help="with --wheel-dir: only build the wheel"
    )
    parser.add_argument(
        "--source", type=Path, metavar="WHEEL", help=f"a downloaded wheel of {SOURCE} (offline)"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-install-detectron2``; returns the exit code."""
    args = parse_args(argv)
    try:
        if args.no_install and args.wheel_dir is None:
            raise ValueError("--no-install needs --wheel-dir: without it there is nothing to do")
        find_or_install(source=args.source, wheel_dir=args.wheel_dir, no_install=args.no_install)
    except (ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
