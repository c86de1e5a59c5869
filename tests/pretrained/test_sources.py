"""Every row of the table, and every way in which a checkpoint can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from encoders import authors_checkpoint, make_encoder, own_checkpoint, under
from torch import Tensor

from cwrgp.pretrained.resnet import identify_arch, is_resnet_name
from cwrgp.pretrained.sources import SOURCES, extract_encoder

HEAD = {"head.0.weight": torch.ones(4, 4)}
FC = {"fc.weight": torch.ones(10, 512), "fc.bias": torch.zeros(10)}

# For every row: a file in its layout, and what of it must be listed as dropped.
LAYOUTS: dict[str, Callable[[], tuple[dict[str, Any], set[str]]]] = {
    "cwrgp": lambda: (
        own_checkpoint(),
        {"projector.0.weight", "projector.0.bias", "iteration", "config"},
    ),
    "cwrgp-ddp": lambda: (
        authors_checkpoint(),
        {"module.head.0.weight", "module.head.1.running_mean", "epoch", "arch", "optimizer"},
    ),
    "cwrgp-small": lambda: (
        {"state_dict": {**under("model.module.", make_encoder()), **HEAD}, "epoch": 5},
        {"head.0.weight", "epoch"},
    ),
    "torchvision": lambda: ({**make_encoder(), **FC}, {"fc.weight", "fc.bias"}),
}


@pytest.mark.parametrize("row", [row.name for row in SOURCES])
@pytest.mark.parametrize("chosen", ["auto", "by name"])
def test_every_row_is_recognised_and_read_completely(row: str, chosen: str) -> None:
    checkpoint, dropped = LAYOUTS[row]()
    encoder = extract_encoder(checkpoint, "auto" if chosen == "auto" else row)
    assert (encoder.source, encoder.arch, encoder.stem) == (row, "resnet18", "imagenet")
    assert encoder.dropped.keys() == dropped
    expected = make_encoder()
    assert encoder.state_dict.keys() == expected.keys()
    assert all(torch.equal(encoder.state_dict[name], expected[name]) for name in expected)


@pytest.mark.parametrize("container", ["state_dict", "model"])
def test_torchvision_names_in_a_container(container: str) -> None:
    encoder = extract_encoder({container: make_encoder(), "best": 0.5})
    assert encoder.source == "torchvision"
    assert encoder.dropped == {"best": "not part of the network"}


# Tensors of a ResNet without fc, counted by hand: convolutions plus 5 per BatchNorm layer.
@pytest.mark.parametrize(
    ("depth", "num_convolutions"), [(18, 20), (34, 36), (50, 53), (101, 104), (152, 155)]
)
def test_every_architecture_is_found(depth: int, num_convolutions: int) -> None:
    with torch.device("meta"):
        state = {
            name: tensor
            for name, tensor in _torchvision_state(depth).items()
            if not name.startswith("fc.")
        }
    assert len(state) == 6 * num_convolutions
    assert identify_arch(state) == (f"resnet{depth}", "imagenet")


def _torchvision_state(depth: int) -> dict[str, Tensor]:
    import torchvision

    return getattr(torchvision.models, f"resnet{depth}")(weights=None).state_dict()


def test_the_stem_of_small_images_is_reported() -> None:
    state = make_encoder()
    state["conv1.weight"] = torch.randn(64, 3, 3, 3)
    assert extract_encoder(state).stem == "small"
    state["conv1.weight"] = torch.randn(64, 3, 5, 5)
    with pytest.raises(ValueError, match=r"'conv1.weight' has a kernel of \(5, 5\)"):
        extract_encoder(state)


def test_counters_are_kept_for_all_layers_or_none() -> None:
    state = make_encoder()
    without = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert extract_encoder(without).state_dict.keys() == without.keys()
    encoder = extract_encoder({**without, "bn1.num_batches_tracked": torch.tensor(1)})
    assert encoder.state_dict.keys() == without.keys()
    assert encoder.dropped == {
        "bn1.num_batches_tracked": "counter that other BatchNorm layers lack"
    }


def rename(state: dict[str, Tensor], old: str, new: str) -> None:
    state[new] = state.pop(old)


MUTATIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (
        lambda s: s.pop("module.model.layer2.1.bn2.running_var"),
        "1 tensors of resnet18 are missing: 'module.model.layer2.1.bn2.running_var'",
    ),
    "missing stem": (
        lambda s: s.pop("module.model.conv1.weight"),
        "missing: 'module.model.conv1.weight'",
    ),
    "extra in a block": (
        lambda s: s.update({"module.model.layer1.0.downsample.0.weight": torch.ones(64, 64, 1, 1)}),
        "left over, resnet18 has no 'module.model.layer1.0.downsample.0.weight'",
    ),
    "extra of another kind": (
        lambda s: s.update({"module.model.layer1.0.se.weight": torch.ones(3)}),
        "'module.model.layer1.0.se.weight' is left over",
    ),
    "a block too many": (
        lambda s: s.update({"module.model.layer4.2.conv1.weight": torch.ones(512, 512, 3, 3)}),
        r"basic blocks \(2, 2, 2, 3\) in layer1..4 are those of no known ResNet",
    ),
    "shape": (
        lambda s: s.update({"module.model.layer1.0.conv1.weight": torch.ones(128, 64, 3, 3)}),
        r"'module.model.layer1.0.conv1.weight' has shape \(128, 64, 3, 3\), but resnet18 needs"
        r" \(64, 64, 3, 3\)",
    ),
    "renamed": (
        lambda s: rename(s, "module.model.layer3.0.bn1.bias", "module.model.layer3.0.bn1.beta"),
        "'module.model.layer3.0.bn1.beta' is left over",
    ),
    "moved out of the prefix": (
        lambda s: rename(s, "module.model.layer3.0.bn1.bias", "module.layer3.0.bn1.bias"),
        "missing: 'module.model.layer3.0.bn1.bias'",
    ),
    "nan": (
        lambda s: s["module.model.layer3.0.conv1.weight"][0, 0, 0, 0].fill_(float("nan")),
        "'module.model.layer3.0.conv1.weight' holds NaN or Inf",
    ),
    "inf": (
        lambda s: s["module.model.bn1.bias"][3].fill_(float("inf")),
        "'module.model.bn1.bias' holds NaN or Inf",
    ),
    "negative variance": (
        lambda s: s["module.model.bn1.running_var"][3].fill_(-0.1),
        "'module.model.bn1.running_var' holds a negative variance",
    ),
    "integers": (
        lambda s: s.update({"module.model.bn1.bias": torch.zeros(64, dtype=torch.int8)}),
        "'module.model.bn1.bias' has dtype torch.int8",
    ),
    "no tensor": (
        lambda s: s.update({"module.model.bn1.bias": 3}),
        "'module.model.bn1.bias' is a int, not a tensor",
    ),
    "second encoder": (
        lambda s: s.update(under("module.momentum.", make_encoder(seed=1))),
        "two encoders, under 'module.model.' and 'module.momentum.'",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_checkpoint_is_refused_by_name(name: str) -> None:
    mutate, message = MUTATIONS[name]
    checkpoint: dict[str, Any] = authors_checkpoint()
    mutate(checkpoint["state_dict"])
    with pytest.raises(ValueError, match=message) as error:
        extract_encoder(checkpoint)
    assert "\n" not in str(error.value)


def test_two_formats_in_one_file_are_refused() -> None:
    checkpoint = {**own_checkpoint(), "state_dict": authors_checkpoint()["state_dict"]}
    with pytest.raises(ValueError, match=r"more than one .*cwrgp \(in 'model'\), cwrgp-ddp"):
        extract_encoder(checkpoint)
    assert extract_encoder(checkpoint, "cwrgp-ddp").source == "cwrgp-ddp"


def test_no_match_lists_the_prefixes_that_were_seen() -> None:
    state = {
        **under("module.encoder_q.", make_encoder()),
        "module.queue": torch.ones(2, 2),
        "bare": torch.ones(1),
    }
    with pytest.raises(ValueError, match="no ResNet found") as error:
        extract_encoder({"state_dict": state, "epoch": 3})
    seen, _, known = str(error.value).partition("known formats")
    assert "'state_dict: module.encoder_q.'" in seen
    assert "'state_dict: module.'" in seen
    assert "'state_dict: bare'" in seen
    assert "cwrgp-ddp: 'state_dict' + 'module.model.'" in known


def test_prefixes_are_matched_whole() -> None:
    # "encoder." must not be found inside another prefix, nor without its dot.
    for prefix in ("my_encoder.", "encoder", "encoder.encoder."):
        with pytest.raises(ValueError, match="no ResNet found"):
            extract_encoder({"model": under(prefix, make_encoder())})


def test_an_empty_or_strange_checkpoint_is_refused() -> None:
    for checkpoint in ({}, {"state_dict": {}}, {"epoch": 3}, {"model": {1: torch.ones(2)}}):
        with pytest.raises(ValueError, match=r"begin with \(no tensors\)"):
            extract_encoder(checkpoint)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown source 'moco'; known: auto, cwrgp"):
        extract_encoder(own_checkpoint(), "moco")


def test_names() -> None:
    assert is_resnet_name("layer3.22.downsample.1.running_mean")
    for name in (
        "fc.weight",
        "layer5.0.conv1.weight",
        "xconv1.weight",
        "conv1.weight.x",
        "conv1.bias",
    ):
        assert not is_resnet_name(name)
