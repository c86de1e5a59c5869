"""Which way imports go: a module may use those above it, nothing imports in a circle."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from encoders import make_encoder
from repository import REPOSITORY

from cwrgp.config.defaults import KEYS

# Of cwrgp, from the leaves up: a line may import itself and those above it.
LAYERS = [
    *(
        "version",
        "provenance",
        "errors",
        "suggestions",
        "seeding",
        "preemption",
        "comm",
        "shared_memory",
        "launch",
        "images",
        "file_io",
        "image_files",
        "profiling",
        "number_format",
        "convolution",
        "image_check",
        "image_prints",
    ),
    *(
        "config",
        "config_files",
        "cli",
        "jobs",
        "cells",
        "statistics",
        "detectron2_wheel",
        "install_detectron2",
        "inverse_root",
        "whitening",
    ),
    *("spectrum", "similarity", "indicators", "volatility"),
    *("trackers", "report", "losses", "models", "data", "checkpoints", "engine"),
    *("evaluation", "analysis", "builders", "commands"),
]
# What d2_transfer may use of cwrgp.
SHARED = {
    *LAYERS[: LAYERS.index("inverse_root")],
    *("trackers", "report", "models.resnet", "checkpoints"),
}

FORBID_DETECTRON2 = """
import importlib, sys, types

class Forbid:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "detectron2":
            raise ModuleNotFoundError(f"{name} is forbidden here", name=name)

sys.meta_path.insert(0, Forbid)
package = types.ModuleType("d2_transfer")  # the modules alone, without __init__
package.__path__ = ["d2_transfer"]
sys.modules["d2_transfer"] = package
for name in sys.argv[1].split(","):
    module = importlib.import_module(name)
    print(name)
"""

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
    shared = {
        f"cwrgp.{name}" for name in ("comm", "version", "inverse_root", "volatility", "whitening")
    }
    assert own - {"cwrgp"} - shared == {
        name for name in module_files("cwrgp") if f"{name}.".startswith("cwrgp.losses.")
    }
    rest = {name.partition(".")[0] for name in loaded} - {"cwrgp"}
    assert not rest & {"fvcore", "iopath", "numpy", "torchvision", "yaml", "PIL"}


def below_the_config() -> list[Path]:
    """The modules of cwrgp that know no config: they take arguments."""
    readers = ("builders", "commands", "config", "config_files", "cli")
    return [
        f
        for n, f in module_files("cwrgp").items()
        if n.split(".")[1:2] and n.split(".")[1] not in readers
    ]


def test_a_config_is_read_by_builders_and_commands_only():
    for file in below_the_config():
        for node in ast.walk(ast.parse(file.read_text())):
            words = {
                ast.Name: lambda n: n.id,
                ast.arg: lambda n: n.arg,
                ast.alias: lambda n: n.name,
            }.get(type(node))
            assert words is None or words(node) not in ("cfg", "CfgNode", "Config"), (
                f"{file}:{node.lineno} reads a config"
            )


def test_keys_of_a_config_are_named_by_builders_and_commands_only():
    # Longer names first, so that the message has the whole one.
    # MODEL.WEIGHTS is a key of Detectron2's configuration, too.
    own = KEYS.keys() - {"MODEL.WEIGHTS"}
    names = sorted(map(re.escape, own), key=len, reverse=True)
    named = re.compile(rf"(?<![\w.])(?:{'|'.join(names)})(?!\w)")
    assert named.search("set MODEL.STEM small") and named.search("SEED was 0")
    assert not named.search("RANDOM_SEED of DATA")
    for file in below_the_config():
        for node in ast.walk(ast.parse(file.read_text())):
            text = node.value if isinstance(node, ast.Constant) else None
            found = named.search(text) if isinstance(text, str) else None
            assert found is None, f"{file}:{node.lineno} names the config key {found[0]}"


def imported_at_once(file: Path) -> set[str]:
    """What a file imports as soon as it is imported itself."""
    body = ast.parse(file.read_text()).body
    plain = (node for node in body if isinstance(node, ast.Import))
    names = {alias.name for node in plain for alias in node.names}
    return names | {str(node.module) for node in body if isinstance(node, ast.ImportFrom)}


def test_what_does_not_need_detectron2_works_without_it(run_tool):
    files = module_files("d2_transfer")
    needs = {name: imported_at_once(file) for name, file in files.items()}
    with_it = {n for n, found in needs.items() if any(f.startswith("detectron2") for f in found)}
    while more := {n for n, found in needs.items() if found & with_it} - with_it:
        with_it |= more
    without = sorted(files.keys() - with_it - {"d2_transfer"})
    for expected in (
        "conversion",
        "proof",
        "data.load",
        "data.records",
        "data.spec",
        "checking.check",
        "scoring.score",
    ):
        assert f"d2_transfer.{expected}" in without
    result = run_tool("-c", FORBID_DETECTRON2, ",".join(without))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == without


def test_a_conversion_without_proof_needs_no_detectron2(run_tool, tmp_path):
    torch.save(make_encoder(18), tmp_path / "in.pth")
    code = FORBID_DETECTRON2 + (
        "from d2_transfer.conversion_report import as_table\n"
        "conversion = module.convert_file(*sys.argv[2:], check=False)\n"
        "print(as_table(conversion))\n"
        "module.convert_file(*sys.argv[2:])\n"
    )
    files = (tmp_path / "in.pth", tmp_path / "out.pkl")
    result = run_tool("-c", code, "d2_transfer.conversion", *files)
    assert "100, each once" in result.stdout
    assert result.stderr.endswith("ModuleNotFoundError: detectron2 is forbidden here\n")
