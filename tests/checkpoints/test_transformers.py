"""ResNets of Hugging Face's transformers: names, and what the files beside the weights decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from encoders import make_encoder
from safetensors.torch import save_file
from transformers_resnet import renamed

from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.hugging_face import with_settings
from cwrgp.checkpoints.load import load_encoder
from cwrgp.checkpoints.transformers_names import from_torchvision, to_torchvision


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@pytest.mark.parametrize("prefix", ["resnet.", "", "module.backbone."])
def test_their_names_are_read_and_led_back(arch: str, prefix: str) -> None:
    state = make_encoder(arch)
    names = renamed(state, prefix)
    head = {"classifier.1.weight": torch.ones(10, 512), "classifier.1.bias": torch.ones(10)}
    encoder = extract_encoder(names | head)
    assert (encoder.source, encoder.branch, encoder.arch) == ("transformers", None, arch)
    assert encoder.from_transformers
    assert encoder.state_dict.keys() == state.keys()
    assert all(torch.equal(encoder.state_dict[name], state[name]) for name in state)
    assert encoder.dropped.keys() == head.keys()
    for name, theirs in zip(state, renamed(state, ""), strict=True):
        assert (to_torchvision(theirs), from_torchvision(name)) == (name, theirs)
    assert extract_encoder(names, "transformers").arch == arch


def test_errors_have_the_names_of_the_file() -> None:
    names = renamed(make_encoder(18))
    lost = "resnet.encoder.stages.1.layers.0.shortcut.normalization.bias"
    with pytest.raises(ValueError, match=f"1 tensors of resnet18 are missing: '{lost}'"):
        extract_encoder({name: tensor for name, tensor in names.items() if name != lost})
    for extra in ("resnet.encoder.stages.0.layers.0.se.weight", "resnet.layer1.0.conv1.weight"):
        with pytest.raises(ValueError, match=f"'{extra}' is left over"):
            extract_encoder({**names, extra: torch.ones(3)})
    with pytest.raises(ValueError, match="not a file of moco"):
        extract_encoder(names, "moco")
    with pytest.raises(ValueError, match="not a file of transformers: its ResNet is under 'net.'"):
        extract_encoder({f"net.{k}": v for k, v in make_encoder(18).items()}, "transformers")


def settings(folder: Path, **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet", **config}))
    return folder / "model.safetensors"


def test_the_config_decides_the_stride(tmp_path: Path) -> None:
    encoder = extract_encoder(renamed(make_encoder(50)))
    plain = with_settings(encoder, tmp_path / "model.safetensors")
    assert not plain.stride_in_1x1
    assert plain.warnings == (
        "no config.json beside the file, which would say where the blocks stride: taken as"
        " downsample_in_bottleneck false, the default of transformers",
    )
    for stride in (False, True):
        file = settings(tmp_path, downsample_in_bottleneck=stride)
        found = with_settings(encoder, file)
        assert (found.stride_in_1x1, found.warnings) == (stride, ())
    basic = extract_encoder(renamed(make_encoder(18)))
    assert not with_settings(basic, file).stride_in_1x1  # basic blocks have no 1x1 to stride in


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_act": "gelu"}, "config.json has hidden_act 'gelu': neither torchvision's nor"),
        ({"downsample_in_first_stage": True}, "has downsample_in_first_stage True: neither"),
        ({"downsample_in_bottleneck": "no"}, "has downsample_in_bottleneck 'no', neither true nor"),
    ],
)
def test_another_network_of_the_same_tensors_is_refused(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    encoder = extract_encoder(renamed(make_encoder(18)))
    with pytest.raises(ValueError, match=message):
        with_settings(encoder, settings(tmp_path, **config))


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    encoder = extract_encoder(renamed(make_encoder(18)))
    for text, message in (("{", "config.json is not JSON"), ("[]", "holds a list, not a JSON obj")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            with_settings(encoder, tmp_path / "model.safetensors")


def test_the_normalisation_stands_in_the_preprocessor_config(tmp_path: Path) -> None:
    encoder = extract_encoder(renamed(make_encoder(18)))
    content: dict[str, object] = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(content))
    pixels = with_settings(encoder, tmp_path / "model.safetensors").pixels
    assert pixels is not None
    assert (pixels.mean, pixels.std) == ((127.5, 102.0, 76.5), (51.0, 51.0, 25.5))
    file.write_text(json.dumps({**content, "rescale_factor": 1 / 127.5}))
    assert with_settings(encoder, tmp_path / "model.safetensors").pixels is None


def test_an_encoder_that_strides_elsewhere_is_not_evaluated(tmp_path: Path) -> None:
    file = settings(tmp_path, downsample_in_bottleneck=False)
    save_file(renamed(make_encoder(50)), file)
    assert load_encoder(str(file), "resnet50", "imagenet")[1].source == "transformers"
    settings(tmp_path, downsample_in_bottleneck=True)
    with pytest.raises(ValueError, match="strides in the 1x1 convolutions .*config.json"):
        load_encoder(str(file), "resnet50", "imagenet")
