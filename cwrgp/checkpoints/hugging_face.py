"""ResNets of Hugging Face's transformers: what the files beside the weights decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.pixel_statistics import from_unit_range, is_three_numbers
from cwrgp.models.resnet import ARCHITECTURES

# Keys of config.json that change the network without changing its tensors -> the only value that
# torchvision's and Detectron2's ResNets have.
_FIXED = {"hidden_act": "relu", "downsample_in_first_stage": False}


def with_settings(encoder: Encoder, file: Path) -> Encoder:
    """Adds what the files beside the weights say, where tensors do not show it.

    Args:
        encoder: of any format; only one of transformers is changed.
        file: the weights. ``config.json`` has the stride (``downsample_in_bottleneck``), and
            ``preprocessor_config.json`` the normalisation of the input.

    Raises:
        ValueError: a file is damaged, or the network differs from torchvision's and Detectron2's.
    """
    if not encoder.from_transformers:
        return encoder
    config = _read_json(file.with_name("config.json"))
    warnings = list(encoder.warnings)
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise ValueError(
                f"{file.with_name('config.json')} has {key} {config[key]!r}: neither torchvision's"
                f" nor Detectron2's ResNets have that, only {value!r}"
            )
    stride = config.get("downsample_in_bottleneck", False)
    if not isinstance(stride, bool):
        raise ValueError(
            f"{file.with_name('config.json')} has downsample_in_bottleneck {stride!r}, neither"
            " true nor false"
        )
    bottleneck = ARCHITECTURES[encoder.arch].bottleneck
    if bottleneck and not config:
        warnings.append(
            "no config.json beside the file, which would say where the blocks stride: taken as"
            " downsample_in_bottleneck false, the default of transformers"
        )
    return replace(
        encoder,
        stride_in_1x1=bottleneck and stride,
        warnings=tuple(warnings),
        pixels=encoder.pixels or _pixels(file.with_name("preprocessor_config.json")),
    )


def _pixels(file: Path) -> Any:
    content = _read_json(file)
    mean, std = content.get("image_mean"), content.get("image_std")
    if not (is_three_numbers(mean) and is_three_numbers(std)):
        return None
    # The images are multiplied by this before they are normalised; 1/255 unless stated.
    scale = content.get("rescale_factor", 1 / 255)
    if content.get("do_rescale", True) is not True or abs(scale * 255 - 1) > 1e-6:
        return None
    return from_unit_range(tuple(mean), tuple(std))


def _read_json(file: Path) -> Mapping[str, Any]:
    """{} where there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not a JSON object")
    return content
