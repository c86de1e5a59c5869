"""MODEL.WEIGHTS: a run starts from any checkpoint that the converter reads, completely."""

from __future__ import annotations

import pytest
import torch
from encoders import make_encoder, under
from published import PUBLISHED
from quick_run import make_cfg

from cwrgp.builders.methods import build_method
from cwrgp.builders.weights import feature_difference, load_weights, report_weights
from cwrgp.checkpoints.load import load_encoder
from cwrgp.commands.pretraining_run import run_pretraining


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": under("module.encoder_q.", make_encoder(18))}, path)
    return path


def cfg_of(weights, *opts):
    return make_cfg("images", "output", "MODEL.WEIGHTS", weights, *opts)


@pytest.mark.parametrize("name", ["cwrgp-ddp", "intl", "moco", "lightly, tutorial"])
def test_the_encoder_is_that_of_the_file_and_the_projector_is_new(name, tmp_path, caplog):
    torch.save(PUBLISHED[name].build(18), tmp_path / "theirs.pth")
    cfg = cfg_of(tmp_path / "theirs.pth")
    method, fresh = build_method(cfg), build_method(cfg)
    loaded = load_weights(cfg, method)
    expected = load_encoder(str(tmp_path / "theirs.pth"), "resnet18", "imagenet")[0].state_dict()
    for key, value in method.encoder.state_dict().items():
        assert torch.equal(value, expected[key]), key
    for key, value in method.projector.state_dict().items():
        assert torch.equal(value, fresh.projector.state_dict()[key]), key
    assert not torch.equal(method.encoder.conv1.weight, fresh.encoder.conv1.weight)
    assert loaded.difference == 0 and method.training
    with caplog.at_level("INFO"):
        report_weights(cfg, loaded)
    assert f"MODEL.WEIGHTS {tmp_path}/theirs.pth: online branch of " in caplog.text
    assert "the features of the encoder equal those of the file's network" in caplog.text


@pytest.mark.parametrize(
    "opts", [("METHOD.NAME", "byol", "METHOD.EMA", 0.9), ("METHOD.NAME", "intl", "METHOD.EMA", 0.9)]
)
def test_the_momentum_encoder_is_a_copy(file, opts):
    cfg = cfg_of(file, *opts)
    method = build_method(cfg)
    load_weights(cfg, method)
    online, momentum = method.encoder.state_dict(), method.momentum_encoder.state_dict()
    assert all(torch.equal(value, momentum[key]) for key, value in online.items())
    assert torch.equal(online["conv1.weight"], make_encoder(18)["conv1.weight"])
    assert not any(p.requires_grad for p in method.momentum_encoder.parameters())


def test_a_difference_of_one_weight_is_seen():
    first, second = (build_method(cfg_of("")).encoder for _ in range(2))
    assert feature_difference(first, second) == 0
    with torch.no_grad():
        second.layer4[1].bn2.bias[3] += 1e-5
    assert feature_difference(first, second) > 1e-9


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ("MODEL.STEM", "small"),
            "^MODEL.WEIGHTS: .*pth holds a resnet18 whose stem is a 7x7 .*fit MODEL.ARCH resnet18 "
            "MODEL.STEM small; MODEL.ARCH resnet18 MODEL.STEM imagenet would fit$",
        ),
        (
            ("MODEL.ARCH", "resnet50"),
            "^MODEL.WEIGHTS: .* does not fit MODEL.ARCH resnet50 .*; MODEL.ARCH resnet18 .* fit$",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_line(file, opts, message):
    cfg = cfg_of(file, *opts)
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(cfg, build_method(cfg))
    assert "\n" not in str(caught.value)


def test_what_only_the_converter_can_be_told_is_said(tmp_path):
    two = {**under("left.", make_encoder(18)), **under("right.", make_encoder(18, 1))}
    torch.save(two, tmp_path / "two.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    for name, option in (("two.pth", "prefix='left.'"), ("module.pth", "unsafe=True")):
        cfg = cfg_of(tmp_path / name)
        with pytest.raises(ValueError, match=f"{option}.*; that is an option of cwrgp-convert"):
            load_weights(cfg, build_method(cfg))


def test_the_only_network_of_a_file_has_no_branch(tmp_path, caplog):
    torch.save(under("net.", make_encoder(18)), tmp_path / "net.pth")
    cfg = cfg_of(tmp_path / "net.pth")
    loaded = load_weights(cfg, build_method(cfg))
    with caplog.at_level("INFO"):
        report_weights(cfg, loaded)
    assert f"{tmp_path}/net.pth: one ResNet under 'net.', SHA-256" in caplog.text


def test_weights_that_are_not_there(tmp_path):
    cfg = cfg_of(tmp_path / "missing.pth")
    with pytest.raises(FileNotFoundError, match="^MODEL.WEIGHTS: .*missing.pth: no such file$"):
        load_weights(cfg, build_method(cfg))
    cfg = cfg_of("random")
    with pytest.raises(ValueError, match="^MODEL.WEIGHTS: random names no file; leave it empty"):
        load_weights(cfg, build_method(cfg))
    cfg = cfg_of("cwrgp://nothing")
    with pytest.raises(ValueError, match="^MODEL.WEIGHTS: no published checkpoint is called"):
        load_weights(cfg, build_method(cfg))


def test_another_normalisation_is_a_warning(file, caplog):
    cfg = cfg_of(file, "DATA.MEAN", "[0.5, 0.5, 0.5]")
    report_weights(cfg, load_weights(cfg, build_method(cfg)))
    assert "its network was trained with mean [123.675, 116.28, 103.53]" in caplog.text
    caplog.clear()
    report_weights(cfg_of(file), load_weights(cfg_of(file), build_method(cfg)))
    assert not [r for r in caplog.records if r.levelname != "INFO"]


def test_a_run_starts_from_the_weights_and_resumes_from_its_checkpoint(
    image_folder, file, tmp_path
):
    opts = ["MODEL.WEIGHTS", file, "EVAL.PERIOD", 0, "DATA.NUM_WORKERS", 0]
    tiny = [*opts, "SOLVER.BASE_LR", 1e-12, "SOLVER.WEIGHT_DECAY", 0]
    run_pretraining(make_cfg(image_folder, tmp_path / "run", *tiny, "SOLVER.EPOCHS", 2))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "features of the encoder equal those of the file's network" in log
    unused = [line for line in log.splitlines() if "without effect" in line]
    assert not any("MODEL.WEIGHTS" in line for line in unused)
    state = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    got, expected = state["model"]["encoder.conv1.weight"], make_encoder(18)["conv1.weight"]
    torch.testing.assert_close(got, expected, atol=1e-8, rtol=0)
    file.unlink()
    cfg = make_cfg(image_folder, tmp_path / "run", *tiny, "SOLVER.EPOCHS", 3)
    run_pretraining(cfg, resume=True)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "MODEL.WEIGHTS is not read: the weights are those of the last checkpoint" in log
