"""The normalisation of the input: units, tolerance, and where a file states it."""

from __future__ import annotations

from typing import Any

import pytest
from encoders import make_encoder, own_checkpoint
from published import PUBLISHED

from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.formats import SOURCES
from cwrgp.checkpoints.pixel_statistics import (
    IMAGENET,
    PixelStatistics,
    from_unit_range,
    read_metadata,
)

CIFAR = "DATA: {MEAN: [0.4914, 0.4822, 0.4465], STD: [0.2023, 0.1994, 0.201]}"


def test_units() -> None:
    assert IMAGENET.mean == (123.675, 116.28, 103.53)
    assert IMAGENET.std == (58.395, 57.12, 57.375)
    assert str(IMAGENET) == (
        "mean [123.675, 116.28, 103.53], std [58.395, 57.12, 57.375] (RGB, 0..255)"
    )


@pytest.mark.parametrize(
    ("mean", "std", "same"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), True),
        ((123.7, 116.3, 103.5), (58.14, 57.12, 57.375), True),  # rounded; SwAV's 0.228
        ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), False),  # BGR
        ((123.675, 116.28, 103.53), (59.0, 57.12, 57.375), False),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
        ((123.675,), (58.395,), False),
    ],
)
def test_agreement(mean: tuple[float, ...], std: tuple[float, ...], same: bool) -> None:
    assert PixelStatistics(mean, std).agrees_with(IMAGENET) is same


def test_metadata() -> None:
    assert read_metadata(IMAGENET.as_metadata()) == IMAGENET
    text = {key: str(value) for key, value in IMAGENET.as_metadata().items()}
    assert read_metadata(text) == IMAGENET
    assert read_metadata({"model": {}}) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"pixel_mean": [1, 2], "pixel_std": [1, 2, 3]},
            r"pixel_mean is \[1, 2\], not a list",
        ),
        ({"pixel_mean": [1, 2, 3]}, "pixel_std is None"),
        ({"pixel_mean": "[1, 2, 3", "pixel_std": "[1, 2, 3]"}, r"pixel_mean is '\[1, 2, 3', not"),
        ({"pixel_mean": [1, 2, True], "pixel_std": [1, 2, 3]}, "pixel_mean is .*True"),
    ],
)
def test_damaged_metadata(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_metadata(content)


def test_a_run_states_its_own() -> None:
    content = own_checkpoint(18)
    assert extract_encoder(content).pixels is None
    found = extract_encoder({**content, "config": CIFAR}).pixels
    assert found == from_unit_range((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201))
    assert extract_encoder({**content, "config": "DATA: {MEAN: [1], STD: x}"}).pixels is None


def test_a_format_has_one_only_if_all_its_publishers_agree() -> None:
    assert extract_encoder(PUBLISHED["moco"].build(18)).pixels == IMAGENET
    assert extract_encoder(make_encoder(18)).pixels == IMAGENET  # five publishers
    several = extract_encoder(PUBLISHED["solo_learn"].build(18))
    assert "solo_learn" in several.source and several.pixels is None


def test_the_table() -> None:
    unknown = {row.name for row in SOURCES if row.pixels is None}
    assert unknown == {
        *("cwrgp", "cwrgp-small", "wmse", "pycontrast", "byol", "solo_learn", "lightly"),
    }
    assert all(row.pixels.agrees_with(IMAGENET) for row in SOURCES if row.pixels is not None)
