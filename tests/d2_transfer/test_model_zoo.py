"""``cwrgp://NAME`` as MODEL.WEIGHTS: downloaded from a real server, converted, proven, loaded."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from encoders import make_encoder, under
from file_server import FileServer, serving
from repository import REPOSITORY
from torch import Tensor

from cwrgp.checkpoints.model_zoo import Checkpoint, Publisher
from cwrgp.file_io.cache import cache_dir
from cwrgp.file_io.digest import is_intact
from d2_transfer.checkpoint import TransferCheckpointer
from d2_transfer.config import get_cfg
from d2_transfer.conversion import to_detectron2
from d2_transfer.model_zoo import ConvertedZooHandler, fetch_converted
from d2_transfer.weights import check_weights_for, read_weights

SOMEONE = Publisher("https://example.org", "none")
ENCODER = make_encoder(18)


def moco(encoder: dict[str, Tensor]) -> dict[str, Any]:
    heads = {"module.encoder_q.fc.0.weight": torch.ones(8, 8), "module.queue": torch.randn(8, 16)}
    momentum = under("module.encoder_k.", make_encoder(18, seed=1))
    return {"state_dict": {**under("module.encoder_q.", encoder), **momentum, **heads}}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CWRGP_ZOO_MIRROR", raising=False)
    torch.save(moco(ENCODER), tmp_path / "moco.pth")
    with serving() as served:
        served.files["/tiny.pth"] = (tmp_path / "moco.pth").read_bytes()
        yield served


@pytest.fixture
def rows(server: FileServer) -> Iterator[dict[str, Checkpoint]]:
    """A table of one small checkpoint, which Detectron2 knows during the test."""
    row = Checkpoint(
        "tiny", "MoCo", 1, "moco", SOMEONE, "1.0", url=f"{server.url}/tiny.pth", arch="resnet18"
    )
    table = {"tiny": row}
    PathManager.register_handler(ConvertedZooHandler(table), allow_override=True)
    yield table
    PathManager.register_handler(ConvertedZooHandler(), allow_override=True)


def config() -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / "configs/quick/detection_faster_rcnn_r18_c4.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = "cwrgp://tiny"
    return cfg


def names() -> list[str]:
    return sorted(p.name for p in cache_dir().iterdir() if p.suffix != ".lock")


def test_a_name_fills_a_detector(server: FileServer, rows: dict[str, Checkpoint]) -> None:
    cfg = config()
    check_weights_for(cfg, cfg.MODEL.WEIGHTS)
    model = build_model(cfg)
    TransferCheckpointer(model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    state = model.state_dict()
    for name, tensor in to_detectron2(ENCODER).items():
        if not name.endswith("num_batches_tracked"):
            place = "roi_heads." if name.startswith("res5.") else "backbone."
            assert torch.equal(state[place + name], tensor), name
    assert server.asked == [("/tiny.pth", None)]  # read twice, downloaded once


def test_the_second_use_needs_no_network(server: FileServer, rows: dict[str, Checkpoint]) -> None:
    first = PathManager.get_local_path("cwrgp://tiny")
    time = os.stat(first).st_mtime_ns
    server.files.clear()
    assert PathManager.get_local_path("cwrgp://tiny") == first
    assert os.stat(first).st_mtime_ns == time  # nor is it converted again
    assert len(server.asked) == 1
    assert names() == [Path(first).name, f"{Path(first).name}.sha256", *names()[2:]]
    assert names()[2:] == ["tiny.pth", "tiny.pth.sha256"]


def test_a_damaged_conversion_is_made_again(
    server: FileServer, rows: dict[str, Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch_converted("tiny", rows)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert fetch_converted("tiny", rows) == path
    assert f"{path} has changed since it was written" in caplog.text
    assert path.read_bytes() != content
    assert is_intact(path)
    assert len(server.asked) == 1
    fetch_converted("tiny", rows, force=True)
    assert len(server.asked) == 2


def test_a_refused_file_is_not_cached(
    server: FileServer, rows: dict[str, Checkpoint], tmp_path: Path
) -> None:
    torch.save({"state_dict": under("module.model.", ENCODER)}, tmp_path / "other.pth")
    server.files["/tiny.pth"] = (tmp_path / "other.pth").read_bytes()
    with pytest.raises(ValueError, match="tiny.pth is not tiny"):
        check_weights_for(config(), "cwrgp://tiny")
    assert names() == []
    with pytest.raises(ValueError, match="no published checkpoint is called 'tini'; did you mean"):
        read_weights("cwrgp://tini")


PROCESS = """
from detectron2.utils.file_io import PathManager
import d2_transfer.modeling
print("ready", flush=True)
print(PathManager.get_local_path("cwrgp://cwrgp4_r50_in1k_200ep"))
"""


@pytest.fixture
def mirror(server: FileServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds a ResNet-50 under a name of the real table."""
    torch.save({"state_dict": under("module.model.", make_encoder(50))}, tmp_path / "cwrgp.pth")
    server.files["/m/cwrgp4_r50_in1k_200ep.pth"] = (tmp_path / "cwrgp.pth").read_bytes()
    return {"CWRGP_ZOO_MIRROR": f"{server.url}/m", "CWRGP_CACHE": str(tmp_path / "cache")}


@pytest.mark.dist
def test_two_processes_at_once(server: FileServer, mirror: dict[str, str]) -> None:
    server.hold.clear()
    command, env = [sys.executable, "-c", PROCESS], {**os.environ, **mirror}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    processes = [subprocess.Popen(command, env=env, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    assert server.arrived.wait(120)
    server.hold.set()
    paths = [process.communicate(timeout=300)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert paths[0] == paths[1]
    assert len(server.asked) == 1
    assert len(names()) == 4
    model = read_weights(paths[0])["model"]
    expected = to_detectron2(make_encoder(50))
    assert all(torch.equal(model[name], expected[name]) for name in model)
    assert len(model) == 265


def test_the_converter_takes_a_name(
    server: FileServer, mirror: dict[str, str], tmp_path: Path, run_tool: Callable[..., Any]
) -> None:
    output = tmp_path / "out.pkl"
    name, tool = "cwrgp://cwrgp4_r50_in1k_200ep", "tools/convert_to_d2.py"
    result = run_tool(tool, name, output, **mirror)
    assert result.returncode == 0, result.stderr
    assert output.is_file()
    assert names() == ["cwrgp4_r50_in1k_200ep.pth", "cwrgp4_r50_in1k_200ep.pth.sha256"]
    result = run_tool(tool, "cwrgp://cwrgp4_r50_in1k_20ep", output, **mirror)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "did you mean cwrgp4_r50_in1k_200ep" in result.stderr
