"""Detectron2's names as the field's converters make them: a chain of replacements."""

from __future__ import annotations


def replaced(name: str) -> str:
    """torchvision's name -> Detectron2's."""
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    for i in (1, 2, 3):
        name = name.replace(f"bn{i}", f"conv{i}.norm")
    if "layer" not in name:
        return f"stem.{name}"
    for i in (4, 3, 2, 1):
        name = name.replace(f"layer{i}", f"res{i + 1}")
    return name
