"""The wheel of Detectron2's Python code, made from another wheel that carries it.

Standard library only: see `cwrgp.install_detectron2`.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.metadata
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.6"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
NOTE_NAME = "REPACKAGED.md"
SOURCE = "labgym==3.1.2"
SOURCE_FOLDER = "LabGym/detectron2/"

# What Detectron2's setup.py asks for, except: no "future" and "pydot" (only for its Caffe2 export,
# which current PyTorch no longer has), any "black" instead of one of 2021, and iopath 0.1.10, which
# it excludes and this project is tested with.
REQUIREMENTS = (
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.11",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "black",
    "packaging",
)


@dataclass(frozen=True)
class Patch:
    """One exact replacement: ``old`` occurs exactly once in the file ``path`` of the package."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Recipe:
    """What the source wheel must be, and what happens to it; any difference is an error.

    Attributes:
        sha256: hex digest of the source wheel.
        num_files: number of files in its Detectron2 folder.
        num_renames: how often the name ``LabGym.detectron2`` occurs in that folder.
        patches: changes other than the name.
    """

    sha256: str
    num_files: int
    num_renames: int
    patches: tuple[Patch, ...]


RECIPE = Recipe(
    sha256="a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b",
    num_files=306,
    num_renames=427,
    patches=(
        # random.sample no longer takes a set (Python >= 3.11). Before, it turned the set into a
        # tuple itself, so the same seed still draws the same index.
        Patch(
            path="detectron2/data/common.py",
            old="self._rng.sample(self._fallback_candidates, k=1)[0]\n",
            new="self._rng.sample(tuple(self._fallback_candidates), k=1)[0]"
            "  # changed: was a set, see REPACKAGED.md\n",
        ),
    ),
)

NOTE = f"""\
# Where this distribution comes from

This is the Python code of Detectron2 {VERSION} (copyright Facebook, Inc. and its affiliates;
Apache License 2.0, see `licenses/LICENSE`), as the wheel `{SOURCE}` carries it in its folder
`{SOURCE_FOLDER}`; nothing else of that wheel is here. It is not an official release of
Detectron2. The tree calls itself {VERSION} and also holds parts that upstream added later.

Changed from the tree in that wheel:
- every `LabGym.detectron2` is `detectron2` again, Detectron2's own import name;
- `data/common.py`: `random.sample` gets a tuple instead of a set (needed on Python >= 3.11).

Not here: the compiled operators `detectron2._C` (rotated boxes, deformable convolution, the fast
COCO evaluation). `detectron2.model_zoo` needs `pkg_resources`, which setuptools 82 removed.
"""


def read_source(archive: Path, recipe: Recipe) -> dict[str, bytes]:
    """Reads the Detectron2 folder of the source wheel after checking the wheel's digest.

    Returns:
        File name inside the package (``detectron2/...``) -> content.

    Raises:
        ValueError: another digest, or another number of files, than ``recipe`` says.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != recipe.sha256:
        raise ValueError(
            f"{archive.name} has sha256 {digest}, expected {recipe.sha256}: "
            f"not the file this was made for; fetch {SOURCE} again"
        )
    with zipfile.ZipFile(archive) as source:
        names = [n for n in source.namelist() if n.startswith(SOURCE_FOLDER) and n[-1] != "/"]
        tree = {"detectron2/" + n.removeprefix(SOURCE_FOLDER): source.read(n) for n in names}
    if len(tree) != recipe.num_files:
        raise ValueError(
            f"{archive.name} has {len(tree)} files in {SOURCE_FOLDER}, expected {recipe.num_files}"
        )
    return tree


def rewrite(tree: dict[str, bytes], recipe: Recipe) -> dict[str, bytes]:
    """Gives the modules their own import name back and applies the patches.

    Raises:
        ValueError: a count that is not the expected one, a ``LabGym`` that is left, a patch whose
            target is not there exactly once, or a Python file that no longer parses.
    """
    result = {}
    renames = 0
    for name, content in tree.items():
        text, count = re.subn(r"\bLabGym\.detectron2\b", "detectron2", content.decode())
        renames += count
        if "labgym" in text.lower():
            line = next(line for line in text.splitlines() if "labgym" in line.lower())
            raise ValueError(f"{name}: 'LabGym' is left after the renaming: {line.strip()!r}")
        result[name] = text
    if renames != recipe.num_renames:
        raise ValueError(
            f"renamed 'LabGym.detectron2' {renames} times, expected {recipe.num_renames}"
        )
    for patch in recipe.patches:
        found = result.get(patch.path, "").count(patch.old)
        if found != 1:
            raise ValueError(
                f"{patch.path}: patch target found {found} times, expected 1: {patch.old!r}"
            )
        result[patch.path] = result[patch.path].replace(patch.old, patch.new)
    for name, text in result.items():
        if name.endswith(".py"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in upstream's doc strings
                try:
                    ast.parse(text)
                except SyntaxError as error:
                    raise ValueError(f"{name} does not parse after rewriting: {error}") from error
    return {name: text.encode() for name, text in result.items()}


def metadata_files(licence: Path) -> dict[str, bytes]:
    """The ``.dist-info`` folder without RECORD.

    Args:
        licence: file with the text of the Apache License 2.0.

    Raises:
        FileNotFoundError: no licence file.
        ValueError: it is not the Apache License 2.0.
    """
    if not licence.is_file():
        raise FileNotFoundError(f"{licence}: no such file; the wheel must carry the licence text")
    text = licence.read_text()
    if "Apache License" not in text or "Version 2.0, January 2004" not in text:
        raise ValueError(f"{licence} is not the Apache License 2.0, which the wheel must carry")
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2 without its compiled operators, repackaged; see the description",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License: Apache-2.0",
        "License-File: LICENSE",
        "Requires-Python: >=3.8",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
        "Description-Content-Type: text/markdown",
    ]
    wheel = [
        "Wheel-Version: 1.0",
        "Generator: install_detectron2",
        "Root-Is-Purelib: true",
        "Tag: py3-none-any",
    ]
    files = {
        "METADATA": "\n".join([*metadata, "", NOTE]),
        "WHEEL": "\n".join([*wheel, ""]),
        "top_level.txt": "detectron2\n",
        NOTE_NAME: NOTE,
        "licenses/LICENSE": text,
    }
    return {f"{DIST_INFO}/{name}": content.encode() for name, content in files.items()}


def write_wheel(files: dict[str, bytes], out_dir: Path) -> Path:
    """Writes a wheel with RECORD; the same files give the same bytes."""
    out_dir.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}\n")
    record = f"{DIST_INFO}/RECORD"
    members = {**files, record: "".join([*sorted(rows), f"{record},,\n"]).encode()}
    path = out_dir / WHEEL_NAME
    unfinished = path.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as wheel:
        # Metadata last: an interrupted pip then leaves nothing that looks installed.
        for name in sorted(members, key=lambda n: (n.startswith(DIST_INFO), n == record, n)):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, so that the mode below counts and no platform shows
            info.external_attr = 0o100644 << 16
            wheel.writestr(info, members[name])
    unfinished.replace(path)
    return path


def own_licence() -> Path:
    """This project's licence file, installed or in a checkout; Detectron2 has the same licence."""
    try:
        installed = importlib.metadata.files("cwrgp") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if file.name == "LICENSE":
            return Path(str(file.locate()))
    return Path(__file__).parent.parent / "LICENSE"


def build_wheel(
    archive: Path, out_dir: Path, recipe: Recipe = RECIPE, licence: Path | None = None
) -> Path:
    """Turns the source wheel into the ``detectron2`` wheel and returns its path.

    Args:
        archive: the source wheel.
        out_dir: made if missing.
        recipe: what the source wheel must be, and what happens to it.
        licence: the Apache License 2.0; None: `own_licence`.
    """
    tree = rewrite(read_source(archive, recipe), recipe)
    return write_wheel({**tree, **metadata_files(licence or own_licence())}, out_dir)
