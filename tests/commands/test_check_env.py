"""tools/check_env.py: what it finds wrong with an environment, and what it makes pip forget."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types

import pytest
import torchvision
from repository import REPOSITORY

TOOL = "tools/check_env.py"


def load_tool():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_env", REPOSITORY / TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()


def install(site, name, version="1.0"):
    """A distribution as pip leaves it: module, compiled module, command, metadata. Returns it."""
    package, info = site / name, site / f"{name}-{version}.dist-info"
    command = site.parent.parent / "bin" / name
    for folder in (package, info, command.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("x = 1\n")
    (package / "a,b.txt").write_text("ab\n")
    command.write_text("#!/bin/sh\n")
    (info / "METADATA").write_text(f"Name: {name}\n")
    (info / "INSTALLER").write_text("pip\n")
    rows = [
        f"../../bin/{name},sha256=x,10",
        f"{name}/__init__.py,sha256=x,6",
        f"{name}/__pycache__/__init__.cpython-311.pyc,,",
        f'"{name}/a,b.txt",sha256=x,3',
        f"{info.name}/INSTALLER,sha256=x,4",
        f"{info.name}/METADATA,sha256=x,{(info / 'METADATA').stat().st_size}",
        f"{info.name}/RECORD,,",
    ]
    (info / "RECORD").write_text("".join(f"{row}\n" for row in rows))
    return info


@pytest.fixture
def site(tmp_path):
    """``site-packages`` with ``pip`` and ``other``, both whole."""
    folder = tmp_path / "lib" / "site-packages"
    install(folder, "pip", "26.0")
    install(folder, "other")
    return folder


def test_whole_is_whole(site, capsys):
    assert tool.damage(site / "other-1.0.dist-info") is None
    before = sorted(site.rglob("*"))
    assert tool.repair(site) == 0
    assert sorted(site.rglob("*")) == before
    assert capsys.readouterr().out == ""


def remove(path):
    return lambda site: (site / path).unlink()


def write(path, text):
    return lambda site: (site / path).write_text(text)


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (remove("other-1.0.dist-info/RECORD"), "no RECORD"),
        (remove("other-1.0.dist-info/INSTALLER"), "no INSTALLER"),
        (remove("other-1.0.dist-info/METADATA"), "no METADATA"),
        (remove("other/__init__.py"), "other/__init__.py is missing"),
        (remove("other/a,b.txt"), "other/a,b.txt is missing"),
        (remove("../../bin/other"), "../../bin/other is missing"),
        (write("other/__init__.py", ""), "other/__init__.py has 0 bytes instead of 6"),
        (write("other/__init__.py", "x = 10\n"), "other/__init__.py has 7 bytes instead of 6"),
    ],
)
def test_damage_is_said_and_forgotten(site, capsys, do, reason):
    do(site)
    assert tool.damage(site / "other-1.0.dist-info") == reason
    assert tool.repair(site) == 0
    assert capsys.readouterr().out == f"incomplete: other-1.0 ({reason})\n"
    assert not (site / "other-1.0.dist-info").exists()
    assert (site / "other").is_dir()  # pip writes over it
    assert (site / "pip-26.0.dist-info" / "RECORD").is_file()
    assert tool.repair(site) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kept", [0, 40, 120, -4, -35])
def test_a_record_that_was_cut_short_is_damage(site, kept):
    record = site / "other-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text()[:kept])
    assert tool.damage(record.parent) == "RECORD is not complete"
    assert tool.repair(site) == 0
    assert not record.exists()


def test_a_record_of_zeros_is_damage(site):
    record = site / "other-1.0.dist-info" / "RECORD"
    record.write_bytes(b"\0" * record.stat().st_size)
    assert tool.damage(record.parent) == "RECORD is not complete"


def test_compiled_modules_may_be_missing_or_there(site):
    cache = site / "other" / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_text("anything")
    assert tool.damage(site / "other-1.0.dist-info") is None


def test_left_overs_of_an_uninstallation_go(site):
    (site / "~ther").mkdir()
    (site / "~ther" / "__init__.py").touch()
    install(site, "~ther")
    assert tool.repair(site) == 0
    assert not list(site.glob("~*"))
    assert {path.name for path in site.iterdir()} == {
        "pip",
        "pip-26.0.dist-info",
        "other",
        "other-1.0.dist-info",
    }


def test_without_a_whole_pip_the_exit_code_says_so(site, capsys):
    (site / "pip" / "__init__.py").unlink()
    assert tool.repair(site) == 1
    assert "incomplete: pip-26.0 (pip/__init__.py is missing)" in capsys.readouterr().out
    assert tool.repair(site) == 1


def test_this_environment_is_ready(run_tool):
    result = run_tool(TOOL, "ready")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_what_the_exit_code_of_the_script_is(run_tool, tmp_path):
    """A module that does not import comes first on the path."""
    (tmp_path / "torchvision.py").write_text("raise ImportError('half\\n  installed')\n")
    result = run_tool(TOOL, "torch", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stdout == "not ready: ImportError: half installed\n"
    (tmp_path / "torchvision.py").write_text("raise OSError('libcudart.so: not found')\n")
    result = run_tool(TOOL, "torch", PYTHONPATH=str(tmp_path))
    assert result.returncode == 3
    assert "(libcudart.so: not found)" in result.stdout


def test_builds_that_do_not_fit(monkeypatch, capsys):
    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist\nmore of it")

    assert tool.torch_misfit() is None
    assert tool.check(everything=False) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(torchvision.ops, "nms", nms)
    assert tool.check(everything=True) == 3
    message = capsys.readouterr().out
    assert message.count("\n") == 1
    assert message.startswith("not ready: torch ")
    vision = importlib.metadata.version("torchvision")
    assert f" and torchvision {vision} do not fit together (operator torchvision::nms" in message
    assert "does not exist);" in message
    assert "more of it" not in message
    assert "-m pip install --force-reinstall --no-deps -c constraints.txt torch" in message
    assert f"`{sys.executable} " in message


def test_a_missing_torchvision_is_not_a_misfit(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert tool.check(everything=False) == 1
    assert "not ready: ModuleNotFoundError: " in capsys.readouterr().out


@pytest.fixture
def quick(monkeypatch):
    """Without the seconds that importing Detectron2 takes."""
    stub = types.ModuleType("detectron2")
    stub.engine = types.ModuleType("detectron2.engine")
    monkeypatch.setitem(sys.modules, "detectron2", stub)
    monkeypatch.setitem(sys.modules, "detectron2.engine", stub.engine)


def test_what_else_must_be_there(monkeypatch, capsys, quick):
    assert tool.check(everything=True) == 0
    monkeypatch.setattr(tool, "EXTRAS", ("no_such_module",))
    assert tool.check(everything=True) == 1
    line = capsys.readouterr().out
    assert line == "not ready: ImportError: No module named 'no_such_module'\n"


def test_what_was_installed_of_detectron2_must_be_whole(monkeypatch, capsys, site, quick):
    monkeypatch.setattr(tool.sysconfig, "get_path", lambda name: str(site))
    info = install(site, "detectron2", "0.6")
    (site / "detectron2" / "a,b.txt").write_text("")
    assert tool.check(everything=True) == 0  # somebody else's build
    (info / "REPACKAGED.md").touch()
    assert tool.check(everything=False) == 0
    assert tool.check(everything=True) == 1
    line = capsys.readouterr().out
    reason = "detectron2 is incomplete: detectron2/a,b.txt has 0 bytes instead of 3"
    assert line == f"not ready: ImportError: {reason}\n"
    (site / "detectron2" / "a,b.txt").write_text("ab\n")
    assert tool.check(everything=True) == 0


def test_without_detectron2_it_is_not_ready(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.setitem(sys.modules, "detectron2.engine", None)
    assert tool.check(everything=False) == 0
    assert tool.check(everything=True) == 1
    assert "detectron2" in capsys.readouterr().out


def test_an_installation_of_another_checkout_does_not_count(monkeypatch, capsys, tmp_path, quick):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    assert tool.check(everything=True) == 1
    line = capsys.readouterr().out
    assert f"cwrgp is not installed from {tmp_path}, but from {REPOSITORY / 'cwrgp'}" in line
