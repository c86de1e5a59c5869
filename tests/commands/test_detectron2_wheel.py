"""The wheel that cwrgp-install-detectron2 builds: what it holds, and which sources are refused."""

from __future__ import annotations

import base64
import csv
import email
import hashlib
import io
import subprocess
import sys
import warnings
import zipfile

import pytest
from detectron2_source import INFO, write_source
from repository import REPOSITORY

import cwrgp.install_detectron2 as installer
from cwrgp.detectron2_wheel import RECIPE, REQUIREMENTS, Patch, Recipe, build_wheel

COMMAND = ("-m", "cwrgp.install_detectron2")
EXPECTED = {
    "detectron2/__init__.py": "from detectron2.data import common\n",
    "detectron2/data/__init__.py": "",
    "detectron2/data/common.py": "import detectron2 as d2\nindex = sample(tuple(names))\n",
    "detectron2/data/notes.txt": "See detectron2.data, naïve as it is.\r\n",
    "detectron2/engine.py": "name = 'detectron2.engine'  # detectron2\n",
}


def write_args(folder):
    """Arguments of ``build_wheel`` that are fine."""
    archive, recipe = write_source(folder)
    return archive, folder / "out", recipe


def with_recipe(recipe, **changes):
    return Recipe(**{**vars(recipe), **changes})


def members(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def assert_record_is_right(files):
    """Every file is in RECORD, once, with its SHA-256 and its size; RECORD itself without."""
    rows = list(csv.reader(io.StringIO(files[f"{INFO}/RECORD"].decode())))
    assert sorted(name for name, _, _ in rows) == sorted(files)
    for name, digest, size in rows:
        if name == f"{INFO}/RECORD":
            assert (digest, size) == ("", "")
            continue
        algorithm, _, value = digest.partition("=")
        assert algorithm == "sha256"
        assert "=" not in value
        decoded = base64.urlsafe_b64decode(value + "=")  # 32 bytes: 43 characters and one "="
        assert decoded.hex() == hashlib.sha256(files[name]).hexdigest()
        assert int(size) == len(files[name])


def test_only_that_folder_under_its_own_name_and_patched(tmp_path):
    archive, recipe = write_source(tmp_path)
    wheel = build_wheel(archive, tmp_path / "new" / "out", recipe)
    assert wheel == tmp_path / "new" / "out" / "detectron2-0.6-py3-none-any.whl"
    assert list(wheel.parent.iterdir()) == [wheel]
    files = members(wheel)
    code = {name: content for name, content in files.items() if not name.startswith(INFO)}
    assert code == {name: text.encode() for name, text in EXPECTED.items()}
    assert {name.removeprefix(f"{INFO}/") for name in files.keys() - code.keys()} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "REPACKAGED.md",
        "top_level.txt",
        "licenses/LICENSE",
    }


def test_the_record_is_right_and_last(tmp_path):
    wheel = build_wheel(*write_args(tmp_path))
    files = members(wheel)
    assert_record_is_right(files)
    names = list(files)
    assert names[-1] == f"{INFO}/RECORD"
    assert all(name.startswith(INFO) for name in names[len(EXPECTED) :])


def test_metadata_licence_and_note(tmp_path):
    files = members(build_wheel(*write_args(tmp_path)))
    metadata = email.message_from_bytes(files[f"{INFO}/METADATA"])
    assert metadata["Name"] == "detectron2"
    assert metadata["Version"] == "0.6"
    assert metadata["License"] == "Apache-2.0"
    required = metadata.get_all("Requires-Dist")
    assert tuple(required) == REQUIREMENTS
    assert {"fvcore>=0.1.5,<0.1.6", "pycocotools>=2.0.2", "omegaconf>=2.1,<2.4"} <= set(required)
    note = files[f"{INFO}/REPACKAGED.md"].decode()
    assert metadata.get_payload(decode=True).decode() == note
    for fact in ("labgym==3.1.2", "Apache License 2.0", "not an official release", "random.sample"):
        assert fact in note
    assert files[f"{INFO}/licenses/LICENSE"] == (REPOSITORY / "LICENSE").read_bytes()
    wheel = email.message_from_bytes(files[f"{INFO}/WHEEL"])
    assert (wheel["Root-Is-Purelib"], wheel["Tag"]) == ("true", "py3-none-any")
    assert files[f"{INFO}/top_level.txt"] == b"detectron2\n"


def test_the_same_input_gives_the_same_bytes(tmp_path):
    archive, recipe = write_source(tmp_path)
    first = build_wheel(archive, tmp_path / "first", recipe)
    second = build_wheel(archive, tmp_path / "second", recipe)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as wheel:
        assert {info.date_time for info in wheel.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in wheel.infolist()} == {0o100644}


def test_pip_installs_it(tmp_path):
    wheel = build_wheel(*write_args(tmp_path))
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile"]
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", *options, "--target", target, wheel]
    subprocess.run(command, check=True)
    installed = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert EXPECTED.keys() <= installed
    assert installer.own_installation(target / "detectron2", target) == "whole"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, r"has sha256 [0-9a-f]{64}, expected 0{64}: .*fetch labgym==3.1.2"),
        ({"num_files": 6}, r"has 5 files in LabGym/detectron2/, expected 6"),
        ({"num_renames": 4}, r"renamed 'LabGym.detectron2' 5 times, expected 4"),
        (
            {"patches": (Patch("detectron2/engine.py", "nowhere", "x"),)},
            r"detectron2/engine.py: patch target found 0 times, expected 1: 'nowhere'",
        ),
        (
            {"patches": (Patch("detectron2/no_file.py", "nowhere", "x"),)},
            r"detectron2/no_file.py: patch target found 0 times",
        ),
        (
            {"patches": (Patch("detectron2/engine.py", "engine'", "engine"),)},
            r"detectron2/engine.py does not parse after rewriting: unterminated string",
        ),
    ],
    ids=["digest", "files", "renames", "patch target", "patched file", "syntax"],
)
def test_what_differs_from_the_recipe_is_refused(tmp_path, changes, message):
    archive, recipe = write_source(tmp_path)
    with pytest.raises(ValueError, match=message):
        build_wheel(archive, tmp_path / "out", with_recipe(recipe, **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "data/__init__.py",
            "import os\nimport LabGym.tools\n",
            r"detectron2/data/__init__.py: 'LabGym' is left .*: 'import LabGym.tools'",
        ),
        ("data/notes.txt", "pip install labgym\n", r"notes.txt: 'LabGym' is left"),
        ("data/__init__.py", "import LabGym.detectron2x\n", r"'LabGym' is left"),
        (
            "data/common.py",
            "import LabGym.detectron2\n" + "index = sample(names)\n" * 2,
            r"data/common.py: patch target found 2 times, expected 1",
        ),
        ("data/__init__.py", "def broken(:\n", r"data/__init__.py does not parse"),
        ("data/notes.txt", b"\xff LabGym.detectron2", r"can't decode byte 0xff"),
        ("extra.py", "", r"has 6 files"),
    ],
    ids=["other module", "lower case", "longer name", "twice", "syntax", "encoding", "extra file"],
)
def test_another_content_is_refused(tmp_path, name, content, message):
    archive, recipe = write_source(tmp_path, {f"LabGym/detectron2/{name}": content})
    with pytest.raises(ValueError, match=message):
        build_wheel(archive, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_the_licence_must_be_there_and_the_right_one(tmp_path):
    arguments = write_args(tmp_path)
    licence = tmp_path / "LICENSE"
    with pytest.raises(FileNotFoundError, match=r"LICENSE: no such file; the wheel must carry"):
        build_wheel(*arguments, licence=licence)
    for text in ("MIT License\n", "Apache License\nVersion 1.1\n", "Version 2.0, January 2004\n"):
        licence.write_text(text)
        with pytest.raises(ValueError, match=r"LICENSE is not the Apache License 2.0"):
            build_wheel(*arguments, licence=licence)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_wheel(tmp_path, run_tool):
    result = run_tool(*COMMAND, "--wheel-dir", tmp_path, "--no-install")
    assert result.returncode == 0, result.stderr
    wheel = tmp_path / "detectron2-0.6-py3-none-any.whl"
    assert f"wrote {wheel}" in result.stdout
    files = members(wheel)
    assert_record_is_right(files)
    code = {name: content for name, content in files.items() if not name.startswith(INFO)}
    assert len(code) == RECIPE.num_files
    assert all(name.startswith("detectron2/") for name in code)
    assert not any(b"labgym" in content.lower() for content in code.values())
    assert b"sample(tuple(self._fallback_candidates), k=1)" in code["detectron2/data/common.py"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in upstream's doc strings
        for name, content in code.items():
            if name.endswith(".py"):
                compile(content, name, "exec")
    options = ("--dry-run", "--no-deps", "--no-index", "--ignore-installed")
    result = run_tool("-m", "pip", "install", *options, wheel)
    assert result.returncode == 0, result.stderr
    assert "Would install detectron2-0.6" in result.stdout
