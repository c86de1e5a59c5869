"""Finds the ResNets in a checkpoint: nested dictionaries, prefixes, three naming schemes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor

from cwrgp.checkpoints import transformers_names

# Of the 16 to 150 convolutions in a ResNet's blocks; fewer are something else, or too few to name.
_MIN_CONVOLUTIONS = 8
_MAX_DEPTH = 6

_BLOCK = r"\d+\.conv[1-3]\.weight"
_NAMED = re.compile(rf"(|.*\.)layer[1-4]\.{_BLOCK}")
_NUMBERED = re.compile(rf"(|.*\.)[4-7]\.{_BLOCK}")

# torch.nn.Sequential(*resnet.children()): relu and maxpool, without tensors, are 2 and 3.
_NUMBERS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_MODULES = {module: number for number, module in _NUMBERS.items()}


class Naming(Enum):
    """How the tensors of a ResNet are named, after their prefix."""

    TORCHVISION = _NAMED
    NUMBERED = _NUMBERED  # by the indices of a ``Sequential``
    TRANSFORMERS = re.compile(rf"(|.*\.){transformers_names.CONVOLUTION}")  # Hugging Face's


@dataclass(frozen=True)
class Place:
    """The place of a ResNet in a file.

    Attributes:
        container: path to the dictionary that holds it, with dots; ``""`` is the file itself.
        prefix: before its names.
        naming: of the tensors after the prefix.
    """

    container: str
    prefix: str
    naming: Naming

    def name(self, key: str) -> str:
        """torchvision's name of a key under the prefix."""
        name = key.removeprefix(self.prefix)
        if self.naming == Naming.TORCHVISION:
            return name
        if self.naming == Naming.TRANSFORMERS:
            return transformers_names.to_torchvision(name)
        module, dot, rest = name.partition(".")
        named = f"[{module}]" if module in _MODULES else module  # which has no place here
        return f"{_NUMBERS.get(module, named)}{dot}{rest}"

    def key(self, name: str) -> str:
        """The key of torchvision's name."""
        if self.naming == Naming.TORCHVISION:
            return f"{self.prefix}{name}"
        if self.naming == Naming.TRANSFORMERS:
            return f"{self.prefix}{transformers_names.from_torchvision(name)}"
        module, dot, rest = name.partition(".")
        return f"{self.prefix}{_MODULES.get(module, module)}{dot}{rest}"

    def __str__(self) -> str:
        where = f" in {self.container!r}" if self.container else ""
        return f"{self.prefix!r}{where}"


def find_resnets(checkpoint: Mapping[str, Any]) -> list[Place]:
    """All ResNets in a file, recognised by the names of the convolutions in their blocks."""
    places = []
    for container, tensors in _containers(checkpoint):
        counts = Counter(
            (match[1], naming)
            for key in tensors
            for naming in Naming
            if (match := naming.value.fullmatch(key))
        )
        places += [
            Place(container, prefix, naming)
            for (prefix, naming), count in counts.items()
            if count >= _MIN_CONVOLUTIONS
        ]
    return places


def open_container(checkpoint: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The dictionary at a path; an empty one where there is none."""
    content: Any = checkpoint
    for part in path.split(".") if path else ():
        content = content.get(part) if isinstance(content, Mapping) else None
    return content if _has_text_keys(content) else {}


def seen_prefixes(checkpoint: Mapping[str, Any], limit: int = 8) -> list[str]:
    """What the names of tensors begin with, container by container: ``limit`` examples."""
    found: dict[str, None] = {}
    for container, tensors in _containers(checkpoint):
        for key in (key for key, value in tensors.items() if isinstance(value, Tensor)):
            parts = re.match(r"(.*?)(?:(?:conv1|bn1|layer\d+|stem|res\d)\.|\Z)", key, re.DOTALL)
            assert parts is not None
            prefix = parts[1] if parts[1] != key or "." not in key else f"{key.rpartition('.')[0]}."
            found[f"{container}: {prefix}" if container else prefix] = None
    shown = [repr(prefix) for prefix in found][:limit]
    return shown + (["..."] if len(found) > limit else []) or ["(no tensors)"]


def count_tensors(checkpoint: Mapping[str, Any]) -> int:
    """Tensors in a file, in all its dictionaries; each object once."""
    return sum(
        isinstance(value, Tensor)
        for _, content in _mappings(checkpoint, "", 0, set())
        for value in content.values()
    )


def _containers(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dictionary whose keys are text, with its path."""
    return (found for found in _mappings(checkpoint, "", 0, set()) if _has_text_keys(found[1]))


def _mappings(
    content: Any, path: str, depth: int, done: set[int]
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every dictionary, each object once: shared ones could nest without end."""
    if not isinstance(content, Mapping) or id(content) in done or depth > _MAX_DEPTH:
        return
    done.add(id(content))
    yield path, content
    for key, value in content.items():
        yield from _mappings(value, f"{path}.{key}" if path else str(key), depth + 1, done)


def _has_text_keys(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(key, str) for key in content)
