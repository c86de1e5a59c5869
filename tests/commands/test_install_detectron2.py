"""cwrgp-install-detectron2: what it installs, what it leaves alone, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2_source import INFO, write_source
from repository import REPOSITORY

import cwrgp.install_detectron2 as installer

COMMAND = ("-m", "cwrgp.install_detectron2")


def assert_one_line_error(result, start):
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {start}")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, run_tool):
    result = run_tool(*COMMAND, "--no-install")
    assert_one_line_error(result, "--no-install needs --wheel-dir")
    assert result.stdout == ""
    archive, _ = write_source(tmp_path)
    options = ("--no-install", "--wheel-dir", tmp_path / "out", "--source")
    result = run_tool(*COMMAND, *options, archive)
    assert_one_line_error(result, f"{archive.name} has sha256 ")
    assert not (tmp_path / "out").exists()
    result = run_tool(*COMMAND, *options, tmp_path / "nowhere.whl")
    assert_one_line_error(result, "[Errno 2] No such file")
    assert "nowhere.whl" in result.stderr


def test_it_starts_with_the_standard_library_alone(run_tool):
    result = run_tool("-S", *COMMAND, "--help", PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: cwrgp-install-detectron2 [-h]")
    assert run_tool("-S", "-c", "import yaml").returncode == 1  # nothing else is there


def test_the_traceback_is_shown_where_asked(run_tool):
    result = run_tool(*COMMAND, "--no-install", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def make_site(folder, *, installer=True, note=True, compiled=False):
    """A ``site-packages`` folder with a Detectron2 installation."""
    package, info = folder / "detectron2", folder / INFO
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").touch()
    for there, path in (
        (installer, info / "INSTALLER"),
        (note, info / "REPACKAGED.md"),
        (compiled, package / "_C.cpython-311-x86_64-linux-gnu.so"),
    ):
        if there:
            path.touch()
    return package


def test_whose_installation_it_is(tmp_path):
    def ask(name, **how):
        return installer.own_installation(make_site(tmp_path / name, **how), tmp_path / name)

    assert ask("whole") == "whole"
    assert ask("interrupted", installer=False) == "partial"
    assert ask("interrupted-early", installer=False, note=False) == "partial"
    assert ask("no-note", note=False) == "not own"
    assert ask("source-build", note=False, compiled=True) == "not own"
    assert ask("source-build-without-metadata", installer=False, compiled=True) == "not own"
    checkout = make_site(tmp_path / "checkout")
    assert installer.own_installation(checkout, tmp_path / "whole") == "not own"


def test_a_link_to_site_packages_is_the_same_folder(tmp_path):
    package = make_site(tmp_path / "lib")
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    assert installer.own_installation(package, tmp_path / "lib64") == "whole"


def run_main(monkeypatch, before, own, **options):
    """``main`` with a probe that says ``before``; returns the wheels built and installed."""
    package = Path("/somewhere/detectron2") if before[0] != "missing" else None
    probes = iter([(*before, package), ("works", "0.6", Path("/somewhere/detectron2"))])
    done = []
    monkeypatch.setattr(installer, "probe", lambda: next(probes))
    monkeypatch.setattr(installer, "own_installation", lambda package, site: own)
    monkeypatch.setattr(
        installer,
        "build_wheel",
        lambda source, out: done.append(f"built {source}") or out / "w.whl",
    )
    monkeypatch.setattr(installer, "install", lambda wheel: done.append(f"installed {wheel.name}"))
    defaults = {"source": Path("s.whl"), "wheel_dir": None, "no_install": False}
    installer.find_or_install(**{**defaults, **options})
    return done


BOTH = ["built s.whl", "installed w.whl"]


@pytest.mark.parametrize(
    ("before", "own", "done"),
    [
        (("missing", ""), "not own", BOTH),
        (("works", "0.6"), "whole", []),
        (("works", "0.6"), "not own", []),
        (("works", "0.6"), "partial", BOTH),
        (("broken", "ImportError"), "partial", BOTH),
        (("broken", "ImportError"), "whole", BOTH),
    ],
)
def test_it_installs_what_is_missing_or_its_own_and_not_whole(monkeypatch, before, own, done):
    assert run_main(monkeypatch, before, own) == done


def test_a_broken_build_of_somebody_else_is_not_touched(monkeypatch):
    message = r"detectron2 at /somewhere/detectron2 does not import \(ImportError: _C\); repair it"
    with pytest.raises(ValueError, match=message):
        run_main(monkeypatch, ("broken", "ImportError: _C"), "not own")


def test_the_wheel_is_kept_without_installing(monkeypatch, tmp_path, capsys):
    works = ("works", "0.6")
    assert run_main(monkeypatch, works, "whole", wheel_dir=tmp_path) == ["built s.whl"]
    assert f"wrote {tmp_path / 'w.whl'}" in capsys.readouterr().out
    missing = ("missing", "")
    done = run_main(monkeypatch, missing, "not own", wheel_dir=tmp_path, no_install=True)
    assert done == ["built s.whl"]
    assert run_main(monkeypatch, missing, "not own", wheel_dir=tmp_path) == BOTH


def test_a_failing_pip_is_an_error():
    with pytest.raises(ValueError, match=r"pip .* no-such-command failed \(exit code 1\)"):
        installer.run_pip("no-such-command")


def test_what_imports_is_left_alone(run_tool):
    import detectron2

    package = Path(detectron2.__file__).parent
    before = {p: p.stat().st_mtime_ns for p in package.parent.iterdir()}
    result = run_tool(*COMMAND)
    assert result.returncode == 0, result.stderr
    version = detectron2.__version__
    assert result.stdout == f"detectron2 {version} at {package}: nothing to install\n"
    assert {p: p.stat().st_mtime_ns for p in package.parent.iterdir()} == before
