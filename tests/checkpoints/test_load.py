"""The encoder that is probed: every format gives the same network, or one line says why not."""

from __future__ import annotations

import hashlib

import pytest
import torch
from encoders import make_encoder, own_checkpoint, under
from published import PUBLISHED

from cwrgp.checkpoints.load import Origin, load_encoder


def features(encoder):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return encoder.eval()(torch.rand(2, 3, 32, 32, generator=generator))


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.pth"
    torch.save(own_checkpoint(), path)
    return path


@pytest.mark.parametrize("name", ["cwrgp-ddp", "intl", "moco", "solo_learn", "lightly, tutorial"])
def test_a_published_format_gives_the_features_of_ours(name, own, tmp_path):
    expected = features(load_encoder(str(own), "resnet18", "imagenet")[0])
    assert expected.std() > 0
    path = tmp_path / "theirs.pth"
    torch.save(PUBLISHED[name].build(18), path)
    encoder, origin = load_encoder(str(path), "resnet18", "imagenet")
    assert torch.equal(features(encoder), expected)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (origin.path, origin.sha256, origin.branch) == (str(path), sha256, "online")
    assert PUBLISHED[name].source in origin.source
    if PUBLISHED[name].other:
        other, origin = load_encoder(str(path), "resnet18", "imagenet", branch="momentum")
        assert origin.branch == "momentum" and not torch.equal(features(other), expected)


def test_counters_may_be_absent_and_numbers_half_precise(own, tmp_path):
    state = {k: v for k, v in make_encoder(18).items() if not k.endswith("num_batches_tracked")}
    torch.save({"model": under("encoder.", {k: v.half() for k, v in state.items()})},
               tmp_path / "half.pth")  # fmt: skip
    got = load_encoder(str(tmp_path / "half.pth"), "resnet18", "imagenet")[0]
    assert got.conv1.weight.dtype == torch.float32
    expected = features(load_encoder(str(own), "resnet18", "imagenet")[0])
    torch.testing.assert_close(features(got), expected, rtol=0.05, atol=0.05)


def small_stem(tmp_path):
    state = make_encoder(18) | {"conv1.weight": torch.randn(64, 3, 3, 3)}
    torch.save({"model": under("encoder.", state)}, tmp_path / "small.pth")
    return str(tmp_path / "small.pth")


def test_a_small_stem_fits_both_small_stems(tmp_path):
    path = small_stem(tmp_path)
    for stem in ("small", "small_pool"):
        assert load_encoder(path, "resnet18", stem)[0].conv1.stride == (1, 1)


def test_an_own_file_says_which_of_the_small_stems_it_has(tmp_path):
    path = small_stem(tmp_path)
    torch.save(torch.load(path) | {"config": "MODEL: {STEM: small_pool}"}, path)
    load_encoder(path, "resnet18", "small_pool")
    with pytest.raises(
        ValueError, match="was trained with stem small_pool, which does not fit stem small"
    ):
        load_encoder(path, "resnet18", "small")


def test_another_network_than_the_configs_is_named_with_what_would_fit(own, tmp_path):
    for arch, stem in (("resnet50", "imagenet"), ("resnet18", "small"), ("resnet34", "small")):
        with pytest.raises(ValueError) as error:
            load_encoder(str(own), arch, stem)
        assert str(error.value) == (
            f"{own} holds a resnet18 whose stem is a 7x7 convolution, which does not fit "
            f"arch {arch} stem {stem}; arch resnet18 stem imagenet would fit"
        )
    with pytest.raises(ValueError, match="resnet18 stem small or small_pool would"):
        load_encoder(small_stem(tmp_path), "resnet18", "imagenet")
    torch.save(make_encoder("resnext50_32x4d"), tmp_path / "next.pth")
    with pytest.raises(
        ValueError, match="a resnext50_32x4d .*; only resnet18, resnet34, .* can be evaluated"
    ):
        load_encoder(str(tmp_path / "next.pth"), "resnet50", "imagenet")


def test_what_is_no_checkpoint_is_refused(tmp_path, own):
    with pytest.raises(FileNotFoundError, match="none.pth: no such file"):
        load_encoder(str(tmp_path / "none.pth"), "resnet18", "imagenet")
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth: no ResNet found.*cwrgp-convert --list shows"):
        load_encoder(str(tmp_path / "a.pth"), "resnet18", "imagenet")
    with pytest.raises(ValueError, match="own.pth: .*moco"):
        load_encoder(str(own), "resnet18", "imagenet", source="moco")
    with pytest.raises(ValueError, match="arch 'resnet20' is unknown"):
        load_encoder(str(own), "resnet20", "imagenet")


def test_random_weights_are_asked_for_and_seeded():
    first, origin = load_encoder("random", "resnet18", "small")
    torch.rand(3)
    again = load_encoder("random", "resnet18", "small")[0]
    other = load_encoder("random", "resnet18", "small", seed=1)[0]
    assert torch.equal(features(first), features(again))
    assert not torch.equal(features(first), features(other))
    assert origin == Origin("random")
    with pytest.raises(ValueError, match="^weights 'random' has neither a source nor a branch"):
        load_encoder("random", "resnet18", "small", branch="momentum")
