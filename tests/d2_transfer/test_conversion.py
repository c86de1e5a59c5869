"""Whole files: every layout in, every format out, and back."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
import torchvision
from d2names import replaced
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from encoders import make_encoder
from opened_files import opened_files
from published import PUBLISHED
from repository import REPOSITORY
from torch import Tensor

import d2_transfer.conversion as convert
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.file_io.digest import file_digest
from cwrgp.models.resnet import ARCHITECTURES
from d2_transfer.config import get_cfg
from d2_transfer.conversion import SUFFIXES, convert_file
from d2_transfer.proof import TOLERANCE_FLOAT64, resnet_config

deep = pytest.mark.slow
SHALLOW = ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"]
DEEP = [pytest.param(arch, marks=deep) for arch in ARCHITECTURES if arch not in SHALLOW]
C4 = "configs/quick/detection_faster_rcnn_r18_c4.yaml"
FPN = "configs/quick/detection_mask_rcnn_r18.yaml"


@pytest.mark.parametrize(("number", "name"), list(enumerate(PUBLISHED)))
def test_files_of_every_layout(tmp_path: Path, number: int, name: str) -> None:
    file, suffix = PUBLISHED[name], SUFFIXES[number % len(SUFFIXES)]
    source, output = tmp_path / "in.pth", tmp_path / "new" / f"out{suffix}"
    torch.save(file.build(18), source)
    conversion = convert_file(source, output)
    assert file.source in conversion.encoder.source.split(", ")
    assert conversion.verification is not None
    assert conversion.verification.float64 <= TOLERANCE_FLOAT64
    assert (conversion.sha256_in, conversion.sha256_out) == (
        file_digest(source),
        file_digest(output),
    )
    assert conversion.warnings == []
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    state = make_encoder(18, file.taken)
    assert_holds(output, {replaced(k): v for k, v in state.items() if not k.endswith("tracked")})
    assert conversion.num_tensors_out == 100


def assert_holds(path: Path, expected: dict[str, Tensor]) -> None:
    """Reads the file with the library that it was made for."""
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as archive:
            assert archive.metadata()["matching_heuristics"] == "True"
            model = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    else:
        torch_file = path.suffix == ".pth"
        content = torch.load(path) if torch_file else pickle.loads(path.read_bytes())
        assert content["matching_heuristics"] is True
        model = content["model"]
    assert model.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(torch.as_tensor(model[name]), tensor)


@pytest.mark.parametrize("number", range(3))
def test_conversion_and_export_change_no_bit(tmp_path: Path, number: int) -> None:
    state = make_encoder(18)
    torch.save(state, tmp_path / "in.pth")
    there = tmp_path / f"there{SUFFIXES[number]}"
    convert_file(tmp_path / "in.pth", there)
    back = tmp_path / f"back{SUFFIXES[number - 1]}"
    conversion = convert_file(there, back, to="torchvision")
    assert (conversion.encoder.source, conversion.encoder.arch) == ("detectron2", "resnet18")
    assert conversion.verification is not None
    found = read_checkpoint(back)
    assert found.keys() == {name for name in state if not name.endswith("tracked")}
    assert all(torch.equal(found[name], state[name]) for name in found)
    torchvision.models.resnet18(weights=None).load_state_dict(
        {**found, "fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}
    )
    with pytest.raises(ValueError, match="must have one Detectron2 ResNet, under '' or 'backbone"):
        convert_file(back, tmp_path / "again.pth", to="torchvision")
    with pytest.raises(ValueError, match="no ResNet found"):
        convert_file(there, tmp_path / "again.pth")


@pytest.mark.parametrize("config", [C4, FPN])
def test_export_from_a_detector(tmp_path: Path, config: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / config))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = 2  # frozen layers have no counters
    model = build_model(cfg)
    torch.save({"model": model.state_dict(), "iteration": 7}, tmp_path / "model_final.pth")
    conversion = convert_file(
        tmp_path / "model_final.pth", tmp_path / "encoder.pth", to="torchvision"
    )
    found, expected = read_checkpoint(tmp_path / "encoder.pth"), model.state_dict()
    assert len(found) == 100
    body, res5 = ("backbone.", "roi_heads.") if config == C4 else ("backbone.bottom_up.",) * 2
    for name, tensor in found.items():
        key = replaced(name)
        assert torch.equal(tensor, expected[(res5 if key.startswith("res5") else body) + key])
    assert any(key.startswith("proposal_generator.") for key in conversion.dropped)
    extra = model.state_dict() | {f"{body}stem.conv2.weight": torch.ones(1)}
    torch.save({"model": extra}, tmp_path / "extra.pth")
    with pytest.raises(ValueError, match=f"'{body}stem.conv2.weight' is left over"):
        convert_file(tmp_path / "extra.pth", tmp_path / "no.pth", to="torchvision")
    with pytest.raises(ValueError, match="source, branch and prefix are for conversions to Det"):
        convert_file(tmp_path / "extra.pth", tmp_path / "no.pth", "moco", to="torchvision")
    state = model.state_dict()
    lost = f"{res5}res5.1.conv1.weight"
    del state[lost]
    torch.save({"model": state}, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match=f"missing: '{lost}'"):
        convert_file(tmp_path / "cut.pth", tmp_path / "no.pth", to="torchvision")
    assert not (tmp_path / "no.pth").exists()


def test_processes_that_write_one_output_do_not_meet(tmp_path: Path) -> None:
    for number in (0, 1):
        torch.save(make_encoder(18, number), tmp_path / f"{number}.pth")
    command = "import sys; from d2_transfer.conversion import convert_file as convert\n"
    command += "print(convert(*sys.argv[1:]).sha256_out)"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", command, tmp_path / f"{number}.pth", tmp_path / "out.pth"],
            stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
        )
        for number in (0, 1)
    ]  # fmt: skip
    digests = [process.communicate(timeout=240)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert digests[0] != digests[1] and file_digest(tmp_path / "out.pth") in digests
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.pth", "1.pth", "out.pth"]


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
def test_files_are_not_opened_more_often_than_needed(tmp_path: Path, stream: bool) -> None:
    source, output = tmp_path / "in.pth", tmp_path / "out.pkl"
    torch.save(make_encoder(18), source, _use_new_zipfile_serialization=not stream)
    with opened_files() as opened:
        convert_file(source, output)
    # Once to read, check and digest it; torch opens an archive again, to map it.
    assert opened[source] == (1 if stream else 2)
    written = {path: n for path, n in opened.items() if path.parent == tmp_path and path != source}
    # Created, written, read and digested, synced.
    assert list(written.values()) == [4], written


def test_without_proof(tmp_path: Path, checkpoint_file: Path) -> None:
    conversion = convert_file(checkpoint_file, tmp_path / "out.pkl", check=False)
    assert conversion.verification is None
    assert (tmp_path / "out.pkl").is_file()


LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
MEASURE = """
import resource, sys
from d2_transfer.conversion import convert_file
convert_file(sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
def test_peak_memory_is_about_twice_the_files_tensors(tmp_path: Path, suffix: str) -> None:
    peaks = {}
    sizes = {}
    for arch in ("resnet18", "wide_resnet101_2"):
        source = tmp_path / f"{arch}.pth"
        torch.save(make_encoder(arch), source)
        sizes[arch] = source.stat().st_size
        # By way of a small process: a child begins with its parent's high-water mark.
        command = [sys.executable, "-c", LAUNCHER, MEASURE, source, tmp_path / f"out{suffix}"]
        peaks[arch] = int(subprocess.check_output(command, text=True, cwd=REPOSITORY))
    more = peaks["wide_resnet101_2"] - peaks["resnet18"]
    assert more < 2.3 * (sizes["wide_resnet101_2"] - sizes["resnet18"])


def test_what_does_not_fit_float32_is_refused(tmp_path: Path) -> None:
    state = make_encoder(18)
    state["bn1.weight"] = torch.full((64,), 1e300, dtype=torch.float64)
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(ValueError, match="'bn1.weight' is too large for float32"):
        convert_file(tmp_path / "in.pth", tmp_path / "out.pkl")


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


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tensors_that_share_memory(tmp_path: Path, suffix: str) -> None:
    state = make_encoder(18)
    state["layer1.0.bn1.bias"] = state["layer1.1.bn1.bias"]
    state["layer1.0.bn1.weight"] = torch.tensor([0.7]).expand(64)
    torch.save(state, tmp_path / "in.pth")
    convert_file(tmp_path / "in.pth", tmp_path / f"out{suffix}")
    found = read_checkpoint(tmp_path / f"out{suffix}")["model"]
    assert torch.equal(found["res2.0.conv1.norm.bias"], state["layer1.1.bn1.bias"])
    assert torch.equal(found["res2.0.conv1.norm.weight"], torch.full((64,), 0.7))


def test_a_refused_input_leaves_no_output(tmp_path: Path, checkpoint_file: Path) -> None:
    source, output = tmp_path / "in.pth", tmp_path / "out.pkl"
    state = make_encoder(18)
    state["conv1.weight"] = torch.randn(64, 3, 3, 3)
    torch.save(state, source)
    with pytest.raises(ValueError, match="cannot be transferred: its first convolution is 3x3"):
        convert_file(source, output)
    with pytest.raises(ValueError, match="the name must end in .pkl or .pth or .safetensors"):
        convert_file(checkpoint_file, tmp_path / "out.npz")
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        convert_file(tmp_path / "nowhere.pth", output)
    with pytest.raises(ValueError, match="is the input file"):
        convert_file(source, source)
    os.link(source, tmp_path / "link.pth")
    with pytest.raises(ValueError, match="is the input file"):
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


@pytest.mark.parametrize("config", [C4, FPN])
@pytest.mark.parametrize("arch", SHALLOW + DEEP)
def test_detectron2_itself_fills_the_whole_backbone(tmp_path: Path, config: str, arch: str) -> None:
    """With upstream's own checkpointer: no tensor of the backbone stays at its initial value."""
    torch.save(make_encoder(arch), tmp_path / "in.pth")
    convert_file(tmp_path / "in.pth", tmp_path / "out.pkl")
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / config))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.update(resnet_config(arch))
    model = build_model(cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "out.pkl"))
    found = model.state_dict()
    body, res5 = ("backbone.", "roi_heads.") if config == C4 else ("backbone.bottom_up.",) * 2
    for name, tensor in make_encoder(arch).items():
        if name.endswith("num_batches_tracked"):
            continue
        key = replaced(name)
        key = (res5 if key.startswith("res5.") else body) + key
        assert torch.equal(found.pop(key), tensor), key
    left = [key for key in found if key.startswith(("backbone.", "roi_heads.res5."))]
    new = ("backbone.fpn_", "roi_heads.res5.norm.")
    assert all(key.startswith(new) or key.endswith("num_batches_tracked") for key in left)
