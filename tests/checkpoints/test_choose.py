"""Which ResNet is read from files of no known format."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import make_encoder, under
from torch import Tensor

from cwrgp.checkpoints.detectron2_names import to_detectron2
from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.extract import extract_encoder

ONLINE, MOMENTUM = make_encoder(18, 0), make_encoder(18, 1)


def assert_is(encoder: Encoder, expected: dict[str, Tensor]) -> None:
    assert encoder.state_dict.keys() == expected.keys()
    assert all(torch.equal(encoder.state_dict[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("container", "prefix", "shown"),
    [
        ("", "net.", "'net.'"),
        ("", "module.net.", "'net.'"),
        ("", "module._orig_mod.net.", "'net.'"),
        ("", "_fsdp_wrapped_module.model.net.", "'net.'"),
        ("", "net._orig_mod.", "'net.'"),
        ("ema", "a.b.c.", "'a.b.c.' in 'ema'"),
        ("params.networks", "model.module.model.", "'model.module.model.' in 'params.networks'"),
    ],
)
def test_the_only_resnet_is_read_wherever_it_is(container: str, prefix: str, shown: str) -> None:
    content: dict[str, Any] = under(prefix, ONLINE) | {"other.weight": torch.ones(3)}
    for part in reversed(container.split(".")) if container else ():
        content = {part: content}
    encoder = extract_encoder(content)
    assert (encoder.source, encoder.branch) == (f"one ResNet under {shown}", None)
    assert_is(encoder, ONLINE)
    assert [key for key in encoder.dropped if key == "other.weight"] == ["other.weight"]
    assert encoder.pixels is None


def test_the_only_resnet_is_read_as_strictly() -> None:
    state = under("net.", ONLINE)
    with pytest.raises(ValueError, match="1 tensors of resnet18 are missing: 'net.bn1.bias'"):
        extract_encoder({k: v for k, v in state.items() if k != "net.bn1.bias"})
    with pytest.raises(ValueError, match="'net.layer1.0.se.weight' is left over"):
        extract_encoder({**state, "net.layer1.0.se.weight": torch.ones(3)})
    with pytest.raises(ValueError, match="no momentum branch: its only ResNet is under 'net.'"):
        extract_encoder(state, branch="momentum")
    with pytest.raises(ValueError, match="not a file of moco: its ResNet is under 'net.'"):
        extract_encoder(state, "moco")


def test_wrappers_inside_names_do_not_hide_a_known_format() -> None:
    state = {}
    for name, tensor in ONLINE.items():
        block = name.split(".", 2)
        wrapped = ".".join([*block[:2], "_fsdp_wrapped_module", *block[2:]])
        state[f"_orig_mod.encoder.{wrapped if len(block) > 2 else name}"] = tensor
    encoder = extract_encoder({"model": state | {"_orig_mod.projector.0.bias": torch.ones(3)}})
    assert encoder.source == "cwrgp"
    assert_is(encoder, ONLINE)


def test_two_names_that_wrappers_tell_apart_are_refused() -> None:
    state = under("net.", ONLINE) | {"net._orig_mod.bn1.bias": torch.ones(64)}
    with pytest.raises(
        ValueError, match="'net.bn1.bias' and 'net._orig_mod.bn1.bias' are the same"
    ):
        extract_encoder(state)


PAIRS = [
    ("online_net.encoder.", "target_net.encoder."),
    ("student.", "teacher."),
    ("net.student_net.", "net.teacher_net."),
    ("net.", "net_ema."),
    ("net.", "ema_net.module."),
    ("trunk_q.0.", "trunk_k.0."),
    ("f.", "f_momentum."),
]


@pytest.mark.parametrize(("online", "momentum"), PAIRS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_network_and_its_average_are_read_as_known_formats_are(
    online: str, momentum: str, turned: bool
) -> None:
    parts = [under(online, ONLINE), under(momentum, MOMENTUM)]
    state = parts[turned] | parts[not turned]
    encoder = extract_encoder(state)
    assert encoder.source == f"two ResNets, online under {online!r} and momentum under {momentum!r}"
    assert encoder.branch == "online"
    assert_is(encoder, ONLINE)
    assert set(encoder.dropped.values()) == {"momentum branch"}
    other = extract_encoder(state, branch="momentum")
    assert other.branch == "momentum"
    assert_is(other, MOMENTUM)
    assert set(other.dropped.values()) == {"online branch"}


@pytest.mark.parametrize(("online", "momentum"), [("model", "ema"), ("student", "teacher")])
def test_the_pair_may_stand_in_two_dictionaries(online: str, momentum: str) -> None:
    content = {online: under("trunk.", ONLINE), momentum: under("trunk.", MOMENTUM)}
    assert_is(extract_encoder(content), ONLINE)
    encoder = extract_encoder(content, branch="momentum")
    assert_is(encoder, MOMENTUM)
    assert encoder.dropped == {online: "not part of the network"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("image.", "text."),
        ("student.", "ema_teacher_of_another.net."),
        ("target.", "teacher."),
        ("student_online.", "query."),
        ("encoder.encoder.", "encoder.other."),
    ],
)
def test_of_two_others_the_prefix_chooses(one: str, other: str) -> None:
    state = under(one, ONLINE) | under(other, MOMENTUM)
    with pytest.raises(ValueError, match="two encoders or more, under .*; choose one with prefix="):
        extract_encoder(state)
    for prefix, expected in ((one, ONLINE), (other, MOMENTUM)):
        encoder = extract_encoder(state, prefix=prefix)
        assert_is(encoder, expected)
        assert encoder.source == f"ResNet under {prefix!r}, chosen by its prefix"
        assert set(encoder.dropped.values()) == {"other branch"}
        assert_is(extract_encoder(under("module.", state), prefix=prefix), expected)
    with pytest.raises(ValueError, match="1 tensors of resnet18 are missing"):
        del state[f"{one}bn1.bias"]
        extract_encoder(state, prefix=one)


@pytest.mark.parametrize(("prefix", "shown"), [("", "left:"), ("net.", "left: net.")])
def test_the_prefix_that_is_proposed_chooses(prefix: str, shown: str) -> None:
    state = {"left": under(prefix, ONLINE), "right": under(prefix, MOMENTUM)}
    with pytest.raises(ValueError, match=f"choose one with prefix='{shown}'$"):
        extract_encoder(state)
    assert_is(extract_encoder(state, prefix=shown), ONLINE)


def test_a_student_and_a_teacher_of_another_width_are_no_pair() -> None:
    state = under("student.", ONLINE) | under("teacher.", make_encoder("resnet50"))
    with pytest.raises(ValueError, match="two encoders or more"):
        extract_encoder(state)
    assert extract_encoder(state, prefix="teacher.").arch == "resnet50"


def test_exact_copies_are_one_network() -> None:
    state = under("net.", ONLINE) | under("again.", ONLINE)
    encoder = extract_encoder(state)
    assert encoder.source == "one ResNet under 'net.'"
    assert set(encoder.dropped.values()) == {"copy of 'net.'"}
    state["again.bn1.bias"] = torch.ones(64)
    with pytest.raises(ValueError, match="two encoders or more"):
        extract_encoder(state)


def test_a_prefix_that_is_not_there_or_twice() -> None:
    state = under("net.", ONLINE)
    with pytest.raises(
        ValueError, match="no ResNet is under prefix 'nets.'; there is one under 'n"
    ):
        extract_encoder(state, prefix="nets.")
    twice = {"a": state, "b": under("net.", MOMENTUM)}
    with pytest.raises(
        ValueError, match="several ResNets are under prefix 'net.'.*prefix='a: net.'"
    ):
        extract_encoder(twice, prefix="net.")
    assert_is(extract_encoder(twice, prefix="b: net."), MOMENTUM)
    for more in ({"source": "moco"}, {"branch": "online"}):
        with pytest.raises(
            ValueError, match="prefix='net.' says which network; omit source and br"
        ):
            extract_encoder(state, prefix="net.", **more)


def test_caffe2_names_are_named() -> None:
    state = {"conv1_w": torch.ones(1), "res2_0_branch2a_bn_s": torch.ones(1)}
    for content in (state, {"model": state}):
        with pytest.raises(
            ValueError, match="the names are Caffe2's .*R-50.pkl.*torchvision's wei"
        ):
            extract_encoder(content)


@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.bottom_up."])
def test_detectron2_names_are_named(prefix: str) -> None:
    state = under(prefix, to_detectron2(make_encoder()))
    for content in (state, {"model": state}):
        with pytest.raises(ValueError, match="the names are Detectron2's .*--to torchvision"):
            extract_encoder(content)
