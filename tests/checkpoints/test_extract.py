"""What an encoder may look like, and every way in which a checkpoint can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from encoders import authors_checkpoint, make_encoder, own_checkpoint, under
from torch import Tensor

from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.find_resnets import count_tensors
from cwrgp.models.resnet import ARCHITECTURES, identify_arch, is_resnet_name


@pytest.mark.parametrize("container", ["state_dict", "model"])
def test_torchvision_names_in_a_container(container: str) -> None:
    encoder = extract_encoder({container: make_encoder(), "best": 0.5})
    assert "torchvision" in encoder.source.split(", ")
    assert encoder.dropped == {"best": "not part of the network"}


# Tensors of a ResNet without fc, counted by hand: convolutions plus 5 per BatchNorm layer.
CONVOLUTIONS = {18: 20, 34: 36, 50: 53, 101: 104, 152: 155}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_is_found(arch: str) -> None:
    with torch.device("meta"):
        state = getattr(torchvision.models, arch)(weights=None).state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    assert len(state) == 6 * CONVOLUTIONS[ARCHITECTURES[arch].depth]
    assert identify_arch(state) == (arch, "imagenet")


def test_an_unknown_width_is_refused() -> None:
    with torch.device("meta"):
        network = torchvision.models.resnet50(weights=None, width_per_group=32)
    with pytest.raises(ValueError, match=r"of 1 x 32 channels in layer1 .*resnet50 1 x 64"):
        identify_arch(network.state_dict())


def test_untrained_and_collapsed_normalisation_is_warned_of() -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    (warning,) = extract_encoder(state).warnings
    assert "statistics of 20 of 20 BatchNorm layers were never updated" in warning
    assert extract_encoder(make_encoder()).warnings == ()
    silent = make_encoder() | {"layer3.1.bn2.weight": torch.zeros(256)}
    (warning,) = extract_encoder(silent).warnings
    assert "1 BatchNorm layers multiply all channels by 0, first 'layer3.1.bn2.weight'" in warning
    dead = make_encoder() | {"layer3.1.bn1.running_var": torch.zeros(256)}
    (warning,) = extract_encoder(dead).warnings
    assert "1 BatchNorm layers have variance 0" in warning
    assert "'layer3.1.bn1.running_var'" in warning


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
    "constant": (
        lambda s: s.update({"module.model.layer2.0.conv1.weight": torch.ones(128, 64, 3, 3)}),
        "'module.model.layer2.0.conv1.weight' has the same value everywhere",
    ),
    "8 bits": (
        lambda s: s.update({"module.model.bn1.bias": torch.zeros(64).to(torch.float8_e5m2)}),
        "'module.model.bn1.bias' has dtype torch.float8_e5m2; 8 bits are too few",
    ),
    "sparse": (
        lambda s: s.update({"module.model.bn1.bias": torch.zeros(64).to_sparse()}),
        "'module.model.bn1.bias' has no plain values",
    ),
    "deep stem": (
        lambda s: s.update({"module.model.conv1.0.weight": torch.ones(32, 3, 3, 3)}),
        "'module.model.conv1.0.weight' is left over: .*timm's resnet50d",
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
        "two encoders or more, under 'module.model.' in 'state_dict' and 'module.momentum.'",
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
    with pytest.raises(ValueError, match="under 'encoder.' in 'model' and 'module.model.' in 'st"):
        extract_encoder(checkpoint)
    assert extract_encoder(checkpoint, "cwrgp-ddp").source == "cwrgp-ddp"


def test_no_match_lists_the_prefixes_that_were_seen() -> None:
    state = {
        **under("module.encoder_q.", {"conv1.weight": torch.ones(1), "fc.bias": torch.ones(1)}),
        "module.queue": torch.ones(2, 2),
        "bare": torch.ones(1),
    }
    with pytest.raises(ValueError, match="no ResNet found") as error:
        extract_encoder({"state_dict": state, "epoch": 3})
    assert "'state_dict: module.encoder_q.'" in str(error.value)
    assert "'state_dict: module.'" in str(error.value)
    assert "'state_dict: bare'" in str(error.value)


def test_prefixes_are_matched_whole() -> None:
    # "encoder." must not be found inside another prefix, nor without its dot.
    for prefix in ("my_encoder.", "encoder.encoder."):
        encoder = extract_encoder({"model": under(prefix, make_encoder())})
        assert encoder.source == f"one ResNet under {prefix!r} in 'model'"
    with pytest.raises(ValueError, match="no ResNet found"):
        extract_encoder({"model": under("encoder", make_encoder())})


def test_an_empty_or_strange_checkpoint_is_refused() -> None:
    for checkpoint in ({}, {"state_dict": {}}, {"epoch": 3}, {"model": {1: torch.ones(2)}}):
        with pytest.raises(ValueError, match=r"begin with \(no tensors\)"):
            extract_encoder(checkpoint)


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown source 'mocov2'; known: auto, cwrgp"):
        extract_encoder(own_checkpoint(), "mocov2")
    with pytest.raises(ValueError, match="unknown branch 'teacher'; known: online, momentum"):
        extract_encoder(own_checkpoint(), branch="teacher")


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


def test_strange_dictionaries_end() -> None:
    around: dict[Any, Any] = {"state_dict": make_encoder(), 3: "a key that is no text"}
    around["itself"] = around
    shared: dict[str, Any] = {}
    for _ in range(60):
        shared = {"a": shared, "b": shared}
    assert extract_encoder(around | {"shared": shared}).arch == "resnet18"
    assert count_tensors(around | {"shared": shared}) == len(make_encoder())
    with pytest.raises(ValueError, match="no ResNet found"):
        extract_encoder({"a\nb": torch.ones(1)})
