"""Names against an independent oracle."""

from __future__ import annotations

import pytest
import torch
from d2names import replaced
from encoders import make_encoder

from cwrgp.checkpoints.detectron2_names import to_detectron2, to_torchvision


@pytest.mark.parametrize("depth", [18, 50, 152])
def test_names_are_those_of_the_field_and_go_back(depth: int) -> None:
    state = make_encoder(depth)
    converted = to_detectron2(state)
    assert list(converted) == [replaced(name) for name in state]
    assert len(set(converted)) == len(state)
    back = to_torchvision(converted)
    assert list(back) == list(state)
    assert all(back[name] is state[name] for name in state)


@pytest.mark.parametrize(
    "name", ["fc.weight", "layer5.0.conv1.weight", "layer1.0.conv4.weight", "bn1"]
)
def test_a_name_that_is_no_resnets_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is not a tensor of a torchvision ResNet"):
        to_detectron2({name: torch.ones(1)})


@pytest.mark.parametrize(
    "name", ["stem.fc.weight", "res6.0.conv1.weight", "conv1.weight", "linear.weight"]
)
def test_a_name_that_is_no_backbones_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is not a tensor of a Detectron2 ResNet"):
        to_torchvision({name: torch.ones(1)})
