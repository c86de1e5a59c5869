"""Names against an independent oracle, the proof, and whole files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from encoders import authors_checkpoint, make_encoder, own_checkpoint, under
from repository import REPOSITORY
from torch import Tensor

from d2_transfer import convert
from d2_transfer.config import get_cfg
from d2_transfer.convert import convert_file, sha256, to_detectron2, to_torchvision
from d2_transfer.proof import TOLERANCE_FLOAT64, verify

deep = pytest.mark.slow
DEPTHS = [18, 34, 50, pytest.param(101, marks=deep), pytest.param(152, marks=deep)]


def replaced(name: str) -> str:
    """The names as the field's converters make them: a chain of replacements."""
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    for i in (1, 2, 3):
        name = name.replace(f"bn{i}", f"conv{i}.norm")
    if "layer" not in name:
        return f"stem.{name}"
    for i in (4, 3, 2, 1):
        name = name.replace(f"layer{i}", f"res{i + 1}")
    return name


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
    with pytest.raises(ValueError, match=f"'{name}' is no name of a torchvision ResNet"):
        to_detectron2({name: torch.ones(1)})


@pytest.mark.parametrize(
    "name", ["stem.fc.weight", "res6.0.conv1.weight", "conv1.weight", "linear.weight"]
)
def test_a_name_that_is_no_backbones_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no name of a Detectron2 ResNet"):
        to_torchvision({name: torch.ones(1)})


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_proof_passes_for_a_right_conversion(depth: int) -> None:
    state = make_encoder(depth)
    proof = verify(state, to_detectron2(state), f"resnet{depth}")
    assert 0 <= proof.float64 <= 1e-9
    assert 0 <= proof.float32 <= 1e-4


def swap_blocks(state: dict[str, Tensor]) -> None:
    first, second = "res3.0.conv2.weight", "res3.1.conv2.weight"
    state[first], state[second] = state[second], state[first]


FAULTS: dict[str, Callable[[dict[str, Tensor]], None]] = {
    "two layers swapped": swap_blocks,
    "input channels permuted": lambda s: s.update(
        {"res2.0.conv1.weight": s["res2.0.conv1.weight"].flip(1)}
    ),
    "statistics not copied": lambda s: s["res5.1.conv2.norm.running_mean"].zero_(),
    "one weight off by a little": lambda s: s["stem.conv1.weight"][0, 0, 3, 3].mul_(1 + 1e-5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_proof_fails_for_a_wrong_conversion(fault: str) -> None:
    state = make_encoder(18)
    wrong = {name: tensor.clone() for name, tensor in to_detectron2(state).items()}
    FAULTS[fault](wrong)
    with pytest.raises(ValueError, match=r"the proof failed: res\d of Detectron2's .* differs"):
        verify(state, wrong, "resnet18")


def test_the_proof_loads_strictly() -> None:
    state = make_encoder(18)
    converted = to_detectron2(state)
    for wrong in (
        {k: v for k, v in converted.items() if k != "res4.0.shortcut.norm.bias"},
        {**converted, "res4.0.conv3.weight": torch.ones(1)},
        {**converted, "res4.0.shortcut.norm.bias": torch.ones(3)},
    ):
        with pytest.raises(ValueError, match="Detectron2's resnet18 does not load"):
            verify(state, wrong, "resnet18")
    state.pop("bn1.bias")
    with pytest.raises(ValueError, match="torchvision's resnet18 does not load"):
        verify(state, converted, "resnet18")


def test_the_proof_refuses_features_that_prove_nothing() -> None:
    state = {k: torch.zeros_like(v) for k, v in make_encoder(18).items()}
    with pytest.raises(ValueError, match="weights are broken: the largest feature of res2 is 0.0"):
        verify(state, to_detectron2(state), "resnet18")
    state = make_encoder(18)
    state["bn1.weight"] = torch.full((64,), 1e38)
    with pytest.raises(ValueError, match="the largest feature of res\\d is (inf|nan)"):
        verify(state, to_detectron2(state), "resnet18")


LAYOUTS: dict[str, Callable[[], dict[str, object]]] = {
    "cwrgp": lambda: own_checkpoint(18),
    "cwrgp-ddp": lambda: authors_checkpoint(50),
    "cwrgp-small": lambda: {"state_dict": under("model.module.", make_encoder(34)), "epoch": 1},
    "torchvision": lambda: {**make_encoder(18), "fc.weight": torch.ones(4, 512)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_files_of_every_layout(tmp_path: Path, layout: str, suffix: str) -> None:
    source, output = tmp_path / "in.pth", tmp_path / "new" / f"out{suffix}"
    torch.save(LAYOUTS[layout](), source)
    conversion = convert_file(source, output)
    assert conversion.encoder.source == layout
    assert conversion.verification.float64 <= TOLERANCE_FLOAT64
    assert (conversion.sha256_in, conversion.sha256_out) == (sha256(source), sha256(output))
    assert conversion.warnings == []
    assert [path.name for path in output.parent.iterdir()] == [output.name]

    content = torch.load(output) if suffix == ".pth" else pickle.loads(output.read_bytes())
    assert content["matching_heuristics"] is True
    depth = {"cwrgp-ddp": 50, "cwrgp-small": 34}.get(layout, 18)
    expected = {
        replaced(k): v for k, v in make_encoder(depth).items() if "num_batches_tracked" not in k
    }
    assert conversion.num_tensors_out == len(expected)
    assert content["model"].keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(torch.as_tensor(content["model"][name]), tensor)


def test_other_dtypes_are_cast_with_a_warning(tmp_path: Path) -> None:
    source, output = tmp_path / "half.pth", tmp_path / "out.pth"
    halves = {k: v.half() if v.ndim == 4 else v for k, v in make_encoder(18).items()}
    torch.save(halves, source)
    conversion = convert_file(source, output)
    assert conversion.warnings == ["20 tensors were float16, stored as float32"]
    stem = torch.load(output)["model"]["stem.conv1.weight"]
    assert stem.dtype == torch.float32
    assert torch.equal(stem, halves["conv1.weight"].float())


def test_a_view_is_written_without_the_rest_of_its_storage(tmp_path: Path) -> None:
    state = make_encoder(18)
    state["bn1.bias"] = torch.randn(10_000_000)[:64]
    torch.save(state, tmp_path / "views.pth")
    convert_file(tmp_path / "views.pth", tmp_path / "out.pth")
    assert (tmp_path / "out.pth").stat().st_size < 46e6  # 11.2 million float32


def test_a_refused_input_leaves_no_output(tmp_path: Path, checkpoint_file: Path) -> None:
    source, output = tmp_path / "in.pth", tmp_path / "out.pkl"
    state = make_encoder(18)
    state["conv1.weight"] = torch.randn(64, 3, 3, 3)
    torch.save(state, source)
    with pytest.raises(ValueError, match="cannot be transferred: its first convolution is 3x3"):
        convert_file(source, output)
    with pytest.raises(ValueError, match="the name must end in .pkl or .pth"):
        convert_file(checkpoint_file, tmp_path / "out.npz")
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        convert_file(tmp_path / "nowhere.pth", output)
    with pytest.raises(ValueError, match="is the INPUT file"):
        convert_file(source, source)
    os.link(source, tmp_path / "link.pth")
    with pytest.raises(ValueError, match="is the INPUT file"):
        convert_file(source, tmp_path / "link.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth", "link.pth"]


def test_a_failed_proof_leaves_the_old_output(
    tmp_path: Path, checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.pkl"
    output.write_bytes(b"old")
    rename = convert.to_detectron2

    def faulty(state: dict[str, Tensor]) -> dict[str, Tensor]:
        converted = rename(state)
        converted["res3.0.conv2.weight"] = converted["res3.0.conv2.weight"].flip(0)
        return converted

    monkeypatch.setattr(convert, "to_detectron2", faulty)
    with pytest.raises(ValueError, match="the proof failed"):
        convert_file(checkpoint_file, output)
    assert output.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.pkl"]
    monkeypatch.undo()
    convert_file(checkpoint_file, output)
    assert output.stat().st_size > 40e6


C4 = "configs/quick/detection_faster_rcnn_r18_c4.yaml"
FPN = "configs/quick/detection_mask_rcnn_r18.yaml"


@pytest.mark.parametrize("config", [C4, FPN])
@pytest.mark.parametrize("depth", DEPTHS)
def test_detectron2_itself_fills_the_whole_backbone(
    tmp_path: Path, config: str, depth: int
) -> None:
    """With upstream's own checkpointer: no tensor of the backbone stays at its initial value."""
    torch.save(make_encoder(depth), tmp_path / "in.pth")
    convert_file(tmp_path / "in.pth", tmp_path / "out.pkl")
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / config))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    model = build_model(cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "out.pkl"))
    found = model.state_dict()
    body, res5 = ("backbone.", "roi_heads.") if config == C4 else ("backbone.bottom_up.",) * 2
    for name, tensor in make_encoder(depth).items():
        if name.endswith("num_batches_tracked"):
            continue
        key = replaced(name)
        key = (res5 if key.startswith("res5.") else body) + key
        assert torch.equal(found.pop(key), tensor), key
    left = [key for key in found if key.startswith(("backbone.", "roi_heads.res5."))]
    new = ("backbone.fpn_", "roi_heads.res5.norm.")
    assert all(key.startswith(new) or key.endswith("num_batches_tracked") for key in left)
