"""The file that describes a data set in YOLO form: a data.yaml, or an obj.data of Darknet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from d2_transfer.data.image_index import name_parts
from d2_transfer.data.values import read_text


class _Loader(yaml.SafeLoader):
    """Without truth values: yes and no are names of classes."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as the base class has it)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def find_yaml(path: Path) -> Path:
    """The file itself, or the one that a folder has.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the folder has several.
    """
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return path
    found = [f for f in sorted(path.iterdir()) if f.suffix.lower() in (".yaml", ".yml", ".data")]
    if not found:
        raise FileNotFoundError(
            f"{path} has no data.yaml; write one, with train: FOLDER OF IMAGES and names: [...] in"
            " the order of the class numbers (labelImg and Label Studio list them in classes.txt)"
        )
    if len(found) > 1:
        raise ValueError(f"{path} has {found[0].name} and {found[1].name}; give the file")
    return found[0]


def read_yaml(file: Path) -> Mapping[str, Any]:
    """The content of the file, whose names may be in another one.

    Raises:
        ValueError: it is malformed.
    """
    text = read_text(file).lstrip("\ufeff")
    if file.suffix.lower() == ".data":
        content: Any = _read_darknet(file, text)
    else:
        try:
            content = yaml.load(text, Loader=_Loader)  # noqa: S506 (it is a safe one)
        except yaml.YAMLError as error:
            raise ValueError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not ({"names", "nc"} & content.keys()):
        raise ValueError(f"{file} is not a data.yaml of YOLO: it has no names")
    names = content.get("names")
    names_file = _find_beside(file, names) if isinstance(names, str) else None
    if names_file is not None:  # one name a line
        lines = (line.strip() for line in read_text(names_file).lstrip("\ufeff").splitlines())
        content = {**content, "names": [line for line in lines if line]}
    return content


def _read_darknet(file: Path, text: str) -> dict[str, Any]:
    """Lines such as ``train = data/train.txt``."""
    content: dict[str, Any] = {}
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and not key.startswith("#"):
            content["nc" if key == "classes" else key] = value
    for key in ("train", "valid", "test"):
        if (found := _find_beside(file, content.get(key, ""))) is not None:
            content[key] = str(found.absolute())
    return content


def _find_beside(file: Path, name: str) -> Path | None:
    """A file that another one names, from its own folder or from one above."""
    parts = name_parts(name)
    for start in range(len(parts)):
        found = file.parent.joinpath(*parts[start:])
        if found.is_file():
            return found
    return None
