"""The wheel in a fresh environment, far from the checkout: every command from images to AP."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from images import write_images
from repository import REPOSITORY

SOURCES = ("configs", "cwrgp", "d2_transfer", "LICENSE", "README.md", "pyproject.toml", "setup.py")

# Not to be seen in the new environment: this project, Detectron2, and what makes either importable.
OWN = re.compile(r"cwrgp|d2_transfer|detectron2|__editable__|.*\.(pth|egg-link)$|__pycache__$")

# Fails every process of the new environment that opens a file of the checkout.
GUARD = """
import os, sys

def refuse(event, args):
    if event == "open" and isinstance(args[0], str):
        path = os.path.abspath(args[0])
        if path.startswith({checkout!r}) and not path.startswith({environment!r}):
            raise RuntimeError(f"{{path}} is a file of the checkout")

sys.addaudithook(refuse)
"""

# A page from the installed templates.
PAGE = '{% extends "base.html.j2" %}{% block title %}A page{% endblock %}'
RENDER = """
from pathlib import Path
from cwrgp.report.page import render
print(render(Path("page.html.j2")))
"""


class Environment:
    """A virtual environment with the wheel and the third-party packages of the outer one.

    Those are seen through a folder of links, which pip takes for another environment's: it uses
    what is there, and removes nothing.
    """

    def __init__(self, root: Path, wheel: Path) -> None:
        self.root, self.folder = root / "venv", root / "work"
        self.folder.mkdir(parents=True)
        others = root / "others"
        others.mkdir()
        for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for item in Path(site).iterdir():
                if not OWN.match(item.name):
                    (others / item.name).symlink_to(item)
        venv.create(self.root, with_pip=False, symlinks=True)
        (self.site / "others.pth").write_text(f"{others}\n")
        guard = GUARD.format(checkout=f"{REPOSITORY}{os.sep}", environment=sys.prefix)
        (self.site / "_guard.py").write_text(guard)
        (self.site / "guard.pth").write_text("import _guard\n")
        self.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)

    @property
    def site(self) -> Path:
        (site,) = self.root.glob("lib/python*/site-packages")
        return site

    def run(self, command: str, *arguments: object, code: int = 0) -> str:
        """Runs a command of the environment in its working folder; returns what it prints."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env |= {"PYTHONNOUSERSITE": "1", "PATH": f"{self.root / 'bin'}{os.pathsep}{env['PATH']}"}
        done = subprocess.run(
            [str(self.root / "bin" / command), *map(str, arguments)],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources: a build leaves files among them."""
    copy = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, copy / name)
    return copy


def build(kind: str, sources: Path, output: Path) -> Path:
    """Runs a hook of the build backend, ``build_<kind>``, and returns what it made."""
    code = f"import setuptools.build_meta as b, sys; b.build_{kind}(sys.argv[1])"
    output.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code, str(output)], cwd=sources, env=env, check=True)
    (made,) = output.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from an sdist, so that both hold what they must."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.unpack_archive(build("sdist", copy, folder / "sdist"), folder / "unpacked")
    (sources,) = (folder / "unpacked").iterdir()
    return build("wheel", sources, folder / "wheel")


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Environment:
    return Environment(tmp_path, wheel)


@pytest.mark.slow
def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(n for n in names if n.endswith("entry_points.txt")))
    assert {name.partition("/")[0] for name in names} == {
        "cwrgp",
        "d2_transfer",
        wheel.name.replace("-py3-none-any.whl", ".dist-info"),
    }
    for folder in ("cwrgp", "d2_transfer", "configs"):
        target = "cwrgp/configs" if folder == "configs" else folder
        files = [f for f in (REPOSITORY / folder).rglob("*") if f.is_file()]
        sources = {f"{target}/{f.relative_to(REPOSITORY / folder).as_posix()}" for f in files}
        assert {name for name in sources if "__pycache__" not in name} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert b"cwrgp-pretrain = cwrgp.commands.pretrain:main" in entry_points


def test_the_commands_start_without_detectron2(environment: Environment) -> None:
    where = "import cwrgp, d2_transfer; print(cwrgp.__file__, d2_transfer.__file__)"
    for file in environment.run("python", "-c", where).split():
        assert Path(file).is_relative_to(environment.site)
    assert "is a file of the checkout" in environment.run(
        *("python", "-c", f"open({str(REPOSITORY / 'setup.py')!r})"), code=1
    )
    configs = environment.run("cwrgp-pretrain", "--list-configs")
    assert "pretrain/cifar10_cwrgp4_r18.yaml" in configs
    protocol = ("--config-file", "detection/pascal_voc_R_50_C4_24k.yaml")
    error = "error: Detectron2 is needed and is not installed: run cwrgp-install-detectron2\n"
    assert environment.run("cwrgp-train-net", *protocol, code=2) == error
    assert environment.run("cwrgp-convert", "in.pth", "out.pkl", code=2) == error


def test_an_editable_installation_reads_the_configs_of_its_checkout(
    copy: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path, build("editable", copy, tmp_path / "editable"))
    assert str(copy) in environment.run("python", "-c", "import cwrgp; print(cwrgp.__file__)")
    new = copy / "configs" / "detection" / "new.yaml"
    new.write_text("# Made after the installation.\n_BASE_: coco_R_50_C4_2x.yaml\n")
    assert "detection/new.yaml" in environment.run("cwrgp-train-net", "--list-configs")
    new.unlink()


def write_coco(images: Path, file: Path) -> None:
    """Four of the images, an object in each."""
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))[:4]
    box = {"bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0, "category_id": 1}
    content = {
        "images": [
            {"id": i, "file_name": name, "height": 40, "width": 40} for i, name in enumerate(names)
        ],
        "annotations": [{"id": i + 1, "image_id": i, **box} for i in range(len(names))],
        "categories": [{"id": 1, "name": "thing"}],
    }
    file.write_text(json.dumps(content))


@pytest.mark.slow
def test_from_images_to_ap(environment: Environment) -> None:
    """Detectron2's own installer included, which downloads a wheel."""
    run: Callable[..., str] = environment.run
    images = environment.folder / "images"
    for seed, name in enumerate(("cat", "dog")):
        write_images(images / name, 64, seed=seed)
    write_coco(images, environment.folder / "coco.json")
    assert "installed detectron2 0.6 at" in run("cwrgp-install-detectron2")
    quick = ("--config-file", "quick/pretrain_cwrgp_r18.yaml")
    options = ("DATA.ROOT", "images", "DATA.NUM_WORKERS", 0, "SOLVER.EPOCHS", 2)
    assert "knn_leave_one_out/top1" in run("cwrgp-pretrain", *quick, *options, "OUTPUT_DIR", "run")
    assert "proof float64" in run("cwrgp-convert", "run/model_final.pth", "encoder.pkl")
    custom = {"NAME": "drawn", "FORMAT": "coco", "JSON": "coco.json", "IMAGES": "images"}
    pairs = {
        "MODEL.WEIGHTS": "encoder.pkl",
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "DATASETS.CUSTOM": [custom],
        "DATASETS.TRAIN": ("drawn",),
        "DATASETS.TEST": ("drawn",),
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.STEPS": (),
        "TEST.PRECISE_BN.NUM_ITER": 2,
        "OUTPUT_DIR": "detector",
    }
    detection = ("--config-file", "quick/detection_faster_rcnn_r18_c4.yaml")
    given = [part for pair in pairs.items() for part in pair]
    assert "copypaste: AP,AP50,AP75" in run("cwrgp-train-net", *detection, *given)
    assert (environment.folder / "detector" / "model_final.pth").is_file()
    published = run("cwrgp-publish", "run/model_final.pth", "published", "--name", "tiny")
    assert "metric   knn_leave_one_out/top1" in published
    write_images(environment.folder / "many", 520, side=8)  # more than the network has channels
    analysis = ("--weights", "run/model_final.pth", "--data", "many", "--output", "analysis")
    assert "analysis/report.html" in run("cwrgp-analyze", *analysis)
    (environment.folder / "page.html.j2").write_text(PAGE)
    html = run("python", "-c", RENDER)
    assert html.startswith("<!doctype html>") and "<title>A page</title>" in html
