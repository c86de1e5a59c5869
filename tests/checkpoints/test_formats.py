"""Every row of the table: read by structure, by name, in both branches; and refused when wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from encoders import make_encoder, under
from published import MOMENTUM, ONLINE, PUBLISHED, Published
from torch import Tensor

from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.find_resnets import open_container
from cwrgp.checkpoints.formats import SOURCES, Layout, describe_sources

ENCODERS = {seed: make_encoder(18, seed) for seed in (ONLINE, MOMENTUM)}
FILES = pytest.mark.parametrize("name", PUBLISHED)


def container(checkpoint: dict[str, Any], file: Published) -> dict[str, Any]:
    tensors = open_container(checkpoint, file.container)
    assert isinstance(tensors, dict) and tensors
    return tensors


def assert_is(encoder: Encoder, expected: dict[str, Tensor]) -> None:
    assert encoder.state_dict.keys() == expected.keys()
    assert all(torch.equal(encoder.state_dict[name], expected[name]) for name in expected)


def test_every_row_has_a_file() -> None:
    assert {file.source for file in PUBLISHED.values()} == {row.name for row in SOURCES}


def _at(place: tuple[str, str], state: dict[str, Tensor]) -> dict[str, Any]:
    """A file that has these tensors in one place."""
    content: dict[str, Any] = under(place[1], state)
    for part in reversed(place[0].split(".")) if place[0] else ():
        content = {part: content}
    return content


def _joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    both = a | b
    return both | {k: _joined(a[k], b[k]) for k in a.keys() & b.keys() if isinstance(a[k], dict)}


LAYOUTS = [(row.name, layout) for row in SOURCES for layout in row.layouts]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS, ids=[name for name, _ in LAYOUTS])
def test_every_place_of_every_row_is_read(name: str, layout: Layout) -> None:
    (place,) = layout.branches["online"]
    for other in layout.branches["momentum"] or [None]:
        checkpoint = _at(place, ENCODERS[ONLINE])
        if other is not None:
            checkpoint = _joined(checkpoint, _at(other, ENCODERS[MOMENTUM]))
            assert_is(extract_encoder(checkpoint, name, "momentum"), ENCODERS[MOMENTUM])
        assert_is(extract_encoder(checkpoint, name, "online"), ENCODERS[ONLINE])


@FILES
@pytest.mark.parametrize("chosen", ["auto", "by name"])
def test_read_completely(name: str, chosen: str) -> None:
    file = PUBLISHED[name]
    checkpoint = file.build(18)
    encoder = extract_encoder(checkpoint, "auto" if chosen == "auto" else file.source)
    assert file.source in encoder.source.split(", ")
    assert (encoder.arch, encoder.stem) == ("resnet18", "imagenet")
    assert encoder.branch == ("online" if file.taken == ONLINE else "momentum")
    assert_is(encoder, ENCODERS[file.taken])
    # Every key is accounted for, and the backbone's own are not among the dropped.
    used = {file.key(k) for k in encoder.state_dict}
    top = file.container.partition(".")[0]
    beside = set(checkpoint) - {top} if top else set()
    assert encoder.dropped.keys() == (container(checkpoint, file).keys() - used) | beside
    for beginning in file.dropped:
        assert any(key.startswith(beginning) for key in encoder.dropped)


@pytest.mark.parametrize("name", [name for name, file in PUBLISHED.items() if file.other])
def test_the_other_branch(name: str) -> None:
    file = PUBLISHED[name]
    encoder = extract_encoder(file.build(18), file.source, file.other)
    assert encoder.branch == file.other
    assert_is(encoder, ENCODERS[MOMENTUM if file.taken == ONLINE else ONLINE])


@pytest.mark.parametrize("name", [name for name, file in PUBLISHED.items() if not file.other])
def test_a_branch_that_is_not_there(name: str) -> None:
    with pytest.raises(ValueError, match="the file has no momentum branch: its ResNet is under"):
        extract_encoder(PUBLISHED[name].build(18), branch="momentum")


@FILES
def test_a_missing_tensor_is_named(name: str) -> None:
    file = PUBLISHED[name]
    for tensor in ("conv1.weight", "bn1.weight", "layer2.1.bn2.running_var", "layer1.0.bn1.bias"):
        checkpoint = file.build(18)
        del container(checkpoint, file)[file.key(tensor)]
        with pytest.raises(ValueError, match="1 tensors of resnet18 are missing") as error:
            extract_encoder(checkpoint, file.source)
        assert repr(file.key(tensor)) in str(error.value)


@FILES
def test_an_extra_tensor_is_named(name: str) -> None:
    file = PUBLISHED[name]
    for extra in ("layer1.0.se.weight", "layer1.0.downsample.0.weight", "layer4.1.conv3.weight"):
        checkpoint = file.build(18)
        container(checkpoint, file)[file.key(extra)] = torch.randn(64, 64, 1, 1)
        with pytest.raises(ValueError) as error:
            extract_encoder(checkpoint)
        kinds = "are those of no known ResNet"  # a third convolution makes them bottlenecks
        assert repr(file.key(extra)) in str(error.value) or kinds in str(error.value)


@FILES
def test_a_wrong_shape_is_named(name: str) -> None:
    file = PUBLISHED[name]
    for tensor in ("layer3.0.conv1.weight", "layer4.1.bn2.running_mean", "conv1.weight"):
        checkpoint = file.build(18)
        tensors = container(checkpoint, file)
        tensors[file.key(tensor)] = torch.cat([tensors[file.key(tensor)]] * 2)
        with pytest.raises(ValueError, match="has shape .* but resnet18 needs") as error:
            extract_encoder(checkpoint, file.source)
        assert repr(file.key(tensor)) in str(error.value)


@FILES
def test_two_candidates_are_refused_by_name(name: str) -> None:
    file = PUBLISHED[name]
    checkpoint = file.build(18)
    container(checkpoint, file).update(under("another.encoder.", ENCODERS[MOMENTUM]))
    with pytest.raises(ValueError, match="two encoders or more") as error:
        extract_encoder(checkpoint)
    assert repr(file.prefix) in str(error.value)
    assert "'another.encoder.'" in str(error.value)


def test_a_copy_must_be_one() -> None:
    checkpoint = PUBLISHED["mmselfsup"].build(18)
    checkpoint["state_dict"]["encoder_q.0.layer1.0.bn1.bias"] = torch.ones(64)
    with pytest.raises(ValueError, match=r"'encoder_q.0.layer1.0.bn1.bias' should be a copy of 'b"):
        extract_encoder(checkpoint)


def test_a_stripped_momentum_file_must_be_asked_for() -> None:
    checkpoint = {"state_dict": under("module.encoder_k.", make_encoder())}
    with pytest.raises(ValueError, match="no online branch: .*branch='momentum' may take it"):
        extract_encoder(checkpoint)
    assert_is(extract_encoder(checkpoint, branch="momentum"), make_encoder())


def test_names_that_fit_together_are_all_given() -> None:
    assert extract_encoder(make_encoder()).source == "barlow_twins, vicreg, dino, torchvision, timm"
    state = under("module.", make_encoder())
    assert extract_encoder({"state_dict": state}).source == "cwrgp-linear, swav"
    head = {"module.projection_head.0.weight": torch.ones(2, 2)}
    assert extract_encoder({"state_dict": state | head}).source == "swav"


def test_the_list_names_every_row_and_place() -> None:
    text = describe_sources()
    for row in SOURCES:
        assert f"\n{row.name} " in f"\n{text}"
    assert "momentum  state_dict: module.encoder_k." in text
