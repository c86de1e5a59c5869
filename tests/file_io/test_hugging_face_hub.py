"""``hf://OWNER/NAME[/FILE]`` against a local server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from encoders import make_encoder
from file_server import closed_port
from hub_server import COMMIT, Hub, serving_hub
from repository import REPOSITORY
from safetensors.torch import save
from transformers_resnet import renamed

READ = """
import sys
from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.hugging_face import with_settings
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.cli import run_main
from cwrgp.file_io.path_manager import local_file
import argparse

def main(_):
    for path in sys.argv[1:]:
        file = local_file(path)
        encoder = with_settings(extract_encoder(read_checkpoint(file)), file)
        print(file.name, encoder.source, encoder.arch, encoder.stride_in_1x1, encoder.pixels)

sys.exit(run_main(main, argparse.Namespace(debug=False)))
"""
PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}
CONFIG = {"model_type": "resnet", "downsample_in_bottleneck": True}


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """Four repositories."""
    resnet18, resnet50 = renamed(make_encoder(18)), renamed(make_encoder(50))
    with serving_hub() as served:
        served.repositories = {
            "some/resnet-50": {
                "config.json": json.dumps(CONFIG).encode(),
                "preprocessor_config.json": json.dumps(PIXELS).encode(),
                "README.md": b"# A ResNet",
                "model.safetensors": save(resnet50),
                "pytorch_model.bin": b"not read",
            },
            "some/two": {
                "a.pth": save(resnet18),
                "sub/b.pth": save(make_encoder(18)),
                "c.txt": b"",
            },
            "some/none": {"README.md": b"nothing"},
            "some/gated": {"model.safetensors": b""},
        }
        served.gated.add("some/gated")
        yield served


@pytest.fixture
def read(hub: Hub, tmp_path: Path, run_tool):
    """A new process, since huggingface_hub reads its environment when it is imported."""

    def run(*paths: str, endpoint: str = hub.url):
        env = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}
        env |= {"PYTHONPATH": str(REPOSITORY), "HF_HUB_DISABLE_XET": "1"}
        return run_tool("-c", READ, *paths, **env)

    return run


def test_weights_come_with_the_settings_beside_them(read, hub: Hub) -> None:
    paths = ("hf://some/resnet-50", f"hf://some/resnet-50@{COMMIT}/model.safetensors")
    done = read(*paths, "hf://some/two/a.pth", "hf://some/two/sub/b.pth")
    assert done.returncode == 0, done.stderr
    first, again, a, b = done.stdout.splitlines()
    pixels = "mean [127.5, 127.5, 127.5], std [255, 255, 255] (RGB, 0..255)"
    assert first == again == f"model.safetensors transformers resnet50 True {pixels}"
    assert a == "a.pth transformers resnet18 False None"
    assert b.startswith("b.pth barlow_twins, vicreg")
    fetched = [path for method, path in hub.asked if method == "GET" and "resolve" in path]
    assert not [path for path in fetched if path.endswith((".bin", "README.md"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://some/two", "hf://some/two: the repository has 2 files of weights; name one, as in"),
        ("hf://some/none", "the repository has no files of weights; name one, as in hf://OWNER/"),
        ("hf://some/two/d.pth", "the repository has no file 'd.pth'; it has a.pth, sub/b.pth, c."),
        ("hf://some/nowhere", "no such repository, or it is not public; HF_TOKEN names an account"),
        ("hf://some/gated", "no such repository, or it is not public"),
        ("hf://some/two@old/a.pth", "the repository has no revision 'old'"),
        ("hf://some", "'hf://some' is not of the form hf://OWNER/NAME[/FILE]"),
        ("hf://so me/two", "'hf://so me/two' is not of the form hf://OWNER/NAME[/FILE]"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(read, path: str, message: str) -> None:
    done = read(path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def test_no_connection_is_one_line(read) -> None:
    done = read("hf://some/two/a.pth", endpoint=f"http://127.0.0.1:{closed_port()}")
    assert done.returncode == 2
    assert "error: hf://some/two/a.pth: " in done.stderr and "Traceback" not in done.stderr


def test_without_the_package_its_installation_is_named(run_tool) -> None:
    code = f"import sys; sys.modules['huggingface_hub'] = None\n{READ}"
    done = run_tool("-c", code, "hf://some/two", PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 2
    assert done.stderr == (
        "error: hf://some/two needs huggingface_hub, which is not installed: pip install"
        " 'cwrgp[hub]'\n"
    )
