"""setup.py's metadata, pins, imports of cwrgp and the linter's bans; test_wheel.py installs."""

from __future__ import annotations

import ast
import importlib
import json
import runpy
import subprocess
import sys

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repository import REPOSITORY

import cwrgp
from cwrgp.detectron2_wheel import REQUIREMENTS

PYTHONS = ("3.10", "3.11", "3.12", "3.13")  # constraints.txt has pins for < 3.11 and for >= 3.11

BARE_SETUP = """
import runpy, sys

class Forbid:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise AssertionError(f"setup.py imports {name}")

forbidden = set(sys.argv[1:])
sys.meta_path.insert(0, Forbid)
sys.argv = ["setup.py", "--version"]
runpy.run_path("setup.py", run_name="__main__")
"""

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys

import cwrgp

def fail(name):
    raise ImportError(name)

names = [m.name for m in pkgutil.walk_packages(cwrgp.__path__, "cwrgp.", onerror=fail)]
for name in names:
    importlib.import_module(name)
print(json.dumps([names, sorted(sys.modules)]))
"""


@pytest.fixture
def metadata(monkeypatch):
    """What setup.py gives to setuptools."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    runpy.run_path(str(REPOSITORY / "setup.py"), run_name="__main__")
    return given


def python_files(package):
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    return files


def imported_names(path):
    """Full names of what a file imports, anywhere in it: ``from a.b import c`` is ``a.b.c``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is relative"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def roots(names):
    return {name.partition(".")[0] for name in names}


def test_the_version_without_importing_anything_heavy(run_tool):
    forbidden = ("torch", "torchvision", "numpy", "fvcore", "detectron2", "cwrgp", "d2_transfer")
    result = run_tool("-c", BARE_SETUP, *forbidden)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [cwrgp.__version__]


def test_what_is_installed(metadata):
    assert metadata["version"] == cwrgp.__version__
    for package in ("cwrgp", "d2_transfer"):
        folders = {p.parent.relative_to(REPOSITORY) for p in python_files(package)}
        assert {".".join(folder.parts) for folder in folders} <= set(metadata["packages"])
    assert roots(metadata["packages"]) == {"cwrgp", "d2_transfer"}
    assert metadata["license_files"] == ["LICENSE"]
    assert metadata["long_description"] == (REPOSITORY / "README.md").read_text()


def test_each_console_command_is_a_function_that_a_script_starts_too(metadata):
    scripts = {path.read_text() for path in python_files("tools")}
    commands = metadata["entry_points"]["console_scripts"]
    assert len(commands) >= 6
    for command in commands:
        name, _, target = command.partition(" = ")
        module, _, function = target.partition(":")
        assert name.startswith("cwrgp-") and function == "main"
        assert callable(importlib.import_module(module).main)
        started = [text for text in scripts if f"from {module} import main\n" in text]
        assert len(started) == (module != "d2_transfer.train_net")  # which is a script itself
        assert all(f"`{name}`" in text for text in started)


def read_pins(python):
    """``constraints.txt`` for one version of Python: name -> requirement."""
    pins = {}
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        pin = Requirement(text)
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            name = canonicalize_name(pin.name)
            assert name not in pins, f"{name} is pinned twice for Python {python}"
            pins[name] = pin
    return pins


def requirements(metadata):
    """Everything that setup.py, its extras and Detectron2 ask for."""
    extras = [text for texts in metadata["extras_require"].values() for text in texts]
    given = [*metadata["install_requires"], *extras, *REQUIREMENTS]
    return [Requirement(text) for text in given]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_to_a_version_that_fits(metadata, python):
    pins = read_pins(python)
    wanted = requirements(metadata)
    assert len(wanted) > 25
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not pinned for Python {python}"
        (pin,) = pins[name].specifier
        assert pin.operator == "==", pins[name]
        assert "*" not in pin.version, pins[name]
        assert requirement.specifier.contains(pin.version), f"{requirement}, pinned: {pin}"
    assert pins.keys() == {canonicalize_name(requirement.name) for requirement in wanted}


def test_cwrgp_imports_neither_detectron2_nor_d2_transfer(run_tool):
    result = run_tool("-c", IMPORT_EVERYTHING)
    assert result.returncode == 0, result.stderr
    names, loaded = json.loads(result.stdout)
    files = {p.relative_to(REPOSITORY).with_suffix("") for p in python_files("cwrgp")}
    expected = {".".join(file.parts).removesuffix(".__init__") for file in files}
    assert {"cwrgp", *names} == expected
    assert expected <= set(loaded)
    assert not roots(loaded) & {"detectron2", "d2_transfer"}


def test_no_function_of_cwrgp_imports_them_either():
    for path in python_files("cwrgp"):
        assert not roots(imported_names(path)) & {"detectron2", "d2_transfer"}, path


def test_nothing_imports_tools():
    # As tools.x, or by their own names as the scripts do with each other.
    scripts = {path.stem for path in python_files("tools")} - {"__main__"}
    assert "install_detectron2" in scripts
    for path in [*python_files("cwrgp"), *python_files("d2_transfer")]:
        assert not roots(imported_names(path)) & {"tools", "demo", *scripts}, path


def ruff(path, code):
    """The linter's answer for a file of this repository with that content."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise"]
    return subprocess.run(
        [*command, "--stdin-filename", path, "-"],
        input=code,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "code",
    [
        "import detectron2\n\nprint(detectron2)\n",
        "import detectron2.engine\n\nprint(detectron2)\n",
        "from detectron2.config import get_cfg\n\nprint(get_cfg)\n",
        "def f() -> None:\n    import d2_transfer.conversion\n\n    print(d2_transfer)\n",
    ],
)
def test_the_linter_bans_the_way_back(code):
    for path in ("cwrgp/x.py", "cwrgp/engine/x.py"):
        result = ruff(path, code)
        assert result.returncode == 1, result.stderr
        assert "TID251" in result.stdout
        assert len([line for line in result.stdout.splitlines() if path in line]) == 1
    for path in ("d2_transfer/x.py", "tools/x.py", "tests/engine/x.py"):
        result = ruff(path, code)
        assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_the_linter_bans_relative_imports():
    result = ruff("cwrgp/x.py", "from .cli import run\n\nprint(run)\n")
    assert result.returncode == 1
    assert "TID252" in result.stdout
