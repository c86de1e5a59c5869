"""Which way imports go: a module may use those above it, nothing imports in a circle."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from repository import REPOSITORY

# Of cwrgp, from the leaves up: a line may import itself and those above it.
LAYERS = [
    *("seeding", "preemption", "comm", "shared_memory", "launch", "images", "file_io", "config"),
    *("cli", "install_detectron2", "whitening", "spectrum", "trackers", "report", "losses"),
    *("models", "data", "checkpoints", "engine", "evaluation", "builders", "commands"),
]
# What d2_transfer may use of cwrgp.
SHARED = {
    *LAYERS[: LAYERS.index("whitening")],
    *("trackers", "report", "models.resnet", "checkpoints"),
}

LOSSES = """
import json, sys
import torch
before = set(sys.modules)
import cwrgp.losses
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def module_files(package: str) -> dict[str, Path]:
    """The modules of a package: full name -> file."""
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    names = (file.relative_to(REPOSITORY).with_suffix("").parts for file in files)
    return {".".join(n).removesuffix(".__init__"): f for n, f in zip(names, files, strict=True)}


def imported(file: Path, modules: set[str]) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
    return found


def graph(package: str) -> dict[str, set[str]]:
    """The import graph of a package: module -> modules."""
    files = module_files(package)
    return {name: imported(file, set(files)) & files.keys() for name, file in files.items()}


def layer(module: str) -> int:
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 else -1


@pytest.mark.parametrize("package", ["cwrgp", "d2_transfer"])
def test_nothing_imports_in_a_circle(package):
    left = graph(package)
    assert sum(map(len, left.values())) > 10
    while leaves := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"a circle through {sorted(left)}"


def test_imports_of_cwrgp_go_up_the_list_only():
    assert {name.split(".")[1] for name in module_files("cwrgp") if "." in name} <= set(LAYERS)
    for name, targets in graph("cwrgp").items():
        if name == "cwrgp":
            continue  # loads what it exports when it is asked for
        for target in targets:
            assert layer(target) <= layer(name), f"{name} imports {target}"


def test_d2_transfer_uses_what_both_packages_share():
    modules = set(module_files("cwrgp"))
    for name, file in module_files("d2_transfer").items():
        for target in imported(file, modules) & modules - {"cwrgp"}:
            parts = target.removeprefix("cwrgp.").split(".")
            assert {parts[0], ".".join(parts)} & SHARED, f"{name} imports {target}"


def test_modules_are_imported_by_their_full_names():
    for package in ("cwrgp", "d2_transfer", "tools", "tests"):
        for file in module_files(package).values():
            for node in ast.walk(ast.parse(file.read_text())):
                assert not isinstance(node, ast.ImportFrom) or node.module not in (
                    "cwrgp",
                    "d2_transfer",
                ), f"{file}:{node.lineno}"


def test_the_losses_need_torch_only(run_tool):
    loaded = json.loads(run_tool("-c", LOSSES, check=True).stdout)
    own = {name for name in loaded if name.partition(".")[0] == "cwrgp"}
    assert own - {"cwrgp", "cwrgp.comm", "cwrgp.whitening"} == {
        name for name in module_files("cwrgp") if f"{name}.".startswith("cwrgp.losses.")
    }
    rest = {name.partition(".")[0] for name in loaded} - {"cwrgp"}
    assert not rest & {"fvcore", "iopath", "numpy", "torchvision", "yaml", "PIL"}


def test_a_config_is_read_by_builders_and_commands_only():
    readers = ("builders", "commands", "config", "cli")
    for name, file in module_files("cwrgp").items():
        if name.split(".")[1:2] and name.split(".")[1] in readers:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            words = {
                ast.Name: lambda n: n.id,
                ast.arg: lambda n: n.arg,
                ast.alias: lambda n: n.name,
            }.get(type(node))
            assert words is None or words(node) not in ("cfg", "CfgNode", "Config"), (
                f"{file}:{node.lineno} reads a config"
            )
