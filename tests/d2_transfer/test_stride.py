"""Where bottleneck blocks stride: what no tensor shows, and the files beside the weights say."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from d2names import replaced
from encoders import make_encoder
from hub_server import serving_hub
from huggingface_hub import constants
from safetensors.torch import save, save_file
from transformers_resnet import renamed

import d2_transfer.proof as proof
from d2_transfer.commands import convert
from d2_transfer.config import get_cfg
from d2_transfer.conversion import convert_file
from d2_transfer.conversion_report import as_json, as_table
from d2_transfer.proof import TOLERANCE_FLOAT64, verify
from d2_transfer.weights import check_weights_for, read_weights


def transformers_file(folder: Path, stride: bool) -> Path:
    file = folder / "model.safetensors"
    save_file(renamed(make_encoder(50)), file)
    config = {"model_type": "resnet", "downsample_in_bottleneck": stride}
    (folder / "config.json").write_text(json.dumps(config))
    return file


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
@pytest.mark.parametrize("stride", [False, True])
def test_the_output_states_the_stride_and_the_config_must_have_it(
    tmp_path: Path, suffix: str, stride: bool
) -> None:
    output = tmp_path / f"out{suffix}"
    conversion = convert_file(transformers_file(tmp_path, stride), output)
    assert conversion.verification is not None
    assert conversion.verification.float64 <= TOLERANCE_FLOAT64
    table = as_table(conversion)
    assert "source         transformers\n" in table
    assert f"STRIDE_IN_1X1 {stride}\n" in table
    assert as_json(conversion, "in")["resnets"]["STRIDE_IN_1X1"] is stride
    cfg = get_cfg()
    cfg.merge_from_file("configs/detection/pascal_voc_R_50_C4_24k.yaml")
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride
    check_weights_for(cfg, str(output))
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = not stride
    with pytest.raises(ValueError, match=f"{not stride}; set .*STRIDE_IN_1X1 {stride}"):
        check_weights_for(cfg, str(output))
    if stride:
        with pytest.raises(ValueError, match="has STRIDE_IN_1X1 True: torchvision's ResNets"):
            convert_file(output, tmp_path / "back.pth", to="torchvision")


def test_the_proof_sees_the_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {k: v for k, v in make_encoder(50).items() if not k.endswith("tracked")}
    converted = {replaced(name): tensor for name, tensor in state.items()}
    for stride in (False, True):
        assert verify(state, converted, "resnet50", stride_in_1x1=stride).float64 < 1e-12
    inner = proof._detectron2_backbone
    monkeypatch.setattr(
        proof,
        "_detectron2_backbone",
        lambda arch, tensors, stride: inner(arch, tensors, not stride),
    )
    with pytest.raises(ValueError, match="the proof failed: res. of Detectron2's backbone differs"):
        verify(state, converted, "resnet50")


def detector_file(folder: Path) -> Path:
    state = {k: v for k, v in make_encoder(50).items() if not k.endswith("tracked")}
    file = folder / "model_final.pth"
    torch.save({"model": {f"backbone.bottom_up.{replaced(k)}": v for k, v in state.items()}}, file)
    return file


def test_an_export_takes_the_stride_from_the_config_beside_the_file(tmp_path: Path) -> None:
    file, output, config = detector_file(tmp_path), tmp_path / "out.pth", tmp_path / "config.yaml"
    (warning,) = convert_file(file, output, to="torchvision").warnings
    assert "no config.yaml beside the file: stride_in_1x1=False confirms it" in warning
    assert convert_file(file, output, to="torchvision", stride_in_1x1=False).warnings == []
    config.write_text("MODEL: {RESNETS: {STRIDE_IN_1X1: false}}")
    assert convert_file(file, output, to="torchvision").warnings == []
    output.unlink()
    with pytest.raises(ValueError, match="stride_in_1x1=True, but .*config.yaml has STRIDE_IN_"):
        convert_file(file, output, to="torchvision", stride_in_1x1=True)
    config.write_text("MODEL: {RESNETS: {STRIDE_IN_1X1: true}}")
    with pytest.raises(ValueError, match="config.yaml has STRIDE_IN_1X1 True: torchvision's"):
        convert_file(file, output, to="torchvision")
    config.write_text("MODEL: {RESNETS: {STRIDE_IN_1X1: 3}}")
    with pytest.raises(ValueError, match="config.yaml has STRIDE_IN_1X1 3, neither True nor False"):
        convert_file(file, output, to="torchvision")
    config.write_text("MODEL: [")
    with pytest.raises(ValueError, match="config.yaml is not YAML"):
        convert_file(file, output, to="torchvision")
    config.write_text("MODEL: {ARCH: resnet50}")  # of a pretraining run
    assert len(convert_file(file, output, to="torchvision").warnings) == 1


def test_the_option_and_its_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, output = str(detector_file(tmp_path)), str(tmp_path / "out.pth")
    assert convert.main(["--to", "torchvision", "--stride-in-1x1", "False", file, output]) == 0
    assert "warning" not in capsys.readouterr().out
    assert convert.main(["--to", "torchvision", "--stride-in-1x1", "True", file, output]) == 2
    message = capsys.readouterr().err
    assert "error: the detector was built with STRIDE_IN_1X1 True: torchvision's" in message
    assert convert.main(["--stride-in-1x1", "False", file, output]) == 2
    message = capsys.readouterr().err
    assert message == "error: --stride-in-1x1 is for the export to torchvision only\n"


def test_an_author_of_another_file_says_nothing_about_the_stride(tmp_path: Path) -> None:
    file = detector_file(tmp_path)
    content = {**torch.load(file), "__author__": "Detectron2 Model Zoo"}
    torch.save(content, file)
    assert len(convert_file(file, tmp_path / "out.pth", to="torchvision").warnings) == 1


def test_weights_from_the_hub_are_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with serving_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        state = make_encoder(18)
        hub.repositories["some/resnet-18"] = {"model.safetensors": save(renamed(state))}
        for _ in range(2):
            weights = read_weights("hf://some/resnet-18")
            assert torch.equal(weights["model"]["stem.conv1.weight"], state["conv1.weight"])
        (converted,) = (tmp_path / "cache" / "hub").glob("*.pkl")
        hub.repositories["some/converted"] = {"encoder.pkl": converted.read_bytes()}
        weights = read_weights("hf://some/converted")
        assert weights["__author__"] == pickle.loads(converted.read_bytes())["__author__"]
    assert len(list((tmp_path / "cache" / "hub").glob("*.pkl"))) == 1
