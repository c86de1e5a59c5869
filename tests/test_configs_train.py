"""Every pretraining YAML takes two steps in a reduced form, on one process and on two."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
import torch.distributed as dist
from encoders import make_encoder
from images import write_images
from repository import REPOSITORY
from two_processes import in_two_processes

from cwrgp.cli import load_config
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.config import get_cfg
from cwrgp.trackers.jsonl import read_metrics

CONFIGS = sorted((REPOSITORY / "configs" / "pretrain").glob("*.yaml"))
CONFIGS += sorted((REPOSITORY / "configs" / "quick").glob("pretrain*.yaml"))
# The least with which no convolution of stride 2 meets an image of one pixel: PyTorch 2.15 leaves
# parts of its bf16 gradient unwritten on a CPU.
SIDES = {"small": 8, "small_pool": 16, "imagenet": 32}


def reduced(path, images, output):
    """A recipe in small: its method, views, solver and schedule, on other images.

    ResNet-18, images of 8 to 64 pixels (the views' sizes keep their ratios),
    projectors of width 64 or less (2 where the batch is whitened), 8 samples in a batch and 4 in a
    sub-batch, two iterations of which the first is the warm-up, and eps, since random weights tell
    8 images hardly apart.
    """
    cfg = get_cfg()
    load_config(cfg, str(path), [])
    crops = any("IMAGE_SIZE" in view for view in cfg.AUGMENT.PER_VIEW)
    side = 64 if crops else SIDES[cfg.MODEL.STEM]
    full = cfg.DATA.IMAGE_SIZE
    batch_whitening = cfg.METHOD.NAME in ("wmse", "zca_cw", "pca", "zca_bw")
    opts = {
        "DATA.NAME": "imagefolder",
        "DATA.ROOT": images,
        "DATA.IMAGE_SIZE": side,
        "DATA.PROBE_RESIZE": side,
        "DATA.NUM_WORKERS": 0,
        "MODEL.ARCH": "resnet18",
        "MODEL.WEIGHTS": f"{images}.pth" if cfg.MODEL.WEIGHTS else "",
        "MODEL.PROJECTOR.HIDDEN": 32,
        "MODEL.PROJECTOR.OUT": 2 if batch_whitening else 64,
        "MODEL.PREDICTOR.HIDDEN": 16,
        "METHOD.CWRGP.SUBBATCH_SIZE": 4,
        "METHOD.CWRGP.EPS": 1e-3,
        "METHOD.CWRGP.COVARIANCE_EPOCHS": min(cfg.METHOD.CWRGP.COVARIANCE_EPOCHS, 1),
        "METHOD.WHITENING.SUBBATCH_SIZE": 4 if batch_whitening else 0,
        "METHOD.WHITENING.EPS": 1e-2 if batch_whitening else 0.0,
        "SOLVER.AMP.DTYPE": "bf16",
        "SOLVER.EPOCHS": 1,
        "SOLVER.BATCH_SIZE": 8,
        "SOLVER.DROP_EPOCHS": [],
        "SOLVER.WARMUP_ITERS": 1,
        "SOLVER.WARMUP_EPOCHS": 0.5 if cfg.SOLVER.WARMUP_EPOCHS else 0.0,
        "EVAL.PERIOD": 0,
        "LOG_PERIOD": 1,
        "OUTPUT_DIR": output,
    }
    cfg.merge_from_list([word for pair in opts.items() for word in pair])
    for view in cfg.AUGMENT.PER_VIEW:
        if "IMAGE_SIZE" in view:
            view["IMAGE_SIZE"] = view["IMAGE_SIZE"] * side // full
    return cfg


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """16 images without labels: two batches. Beside them, weights to start from."""
    folder = tmp_path_factory.mktemp("few")
    write_images(folder, 16)
    torch.save(make_encoder(18), f"{folder}.pth")
    return folder


@pytest.fixture
def one_thread():
    """Several are slower on images this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def two_steps(path, images, output):
    run_pretraining(reduced(path, str(images), str(output)))
    records = [r for r in read_metrics(output / "metrics.json") if "total_loss" in r]
    assert [r["iteration"] for r in records] == [0, 1]
    assert all(math.isfinite(r["total_loss"]) and r["lr"] > 0 for r in records)
    state = torch.load(output / "model_final.pth", weights_only=True)
    assert state["iteration"] == 1
    assert [name for name, v in state["model"].items() if not v.isfinite().all()] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_takes_two_steps(path, images, tmp_path, one_thread):
    two_steps(path, images, tmp_path / "run")
    shutil.rmtree(tmp_path / "run")  # 100 MB


def two_steps_of_all(rank, images, folder):
    done = []
    for path in CONFIGS:
        output = folder / path.stem
        run_pretraining(reduced(path, str(images), str(output)))
        dist.barrier()
        if rank == 0:
            records = [r for r in read_metrics(output / "metrics.json") if "total_loss" in r]
            assert [r["iteration"] for r in records] == [0, 1], path.stem
            assert all(math.isfinite(r["total_loss"]) for r in records), path.stem
            shutil.rmtree(output)
        done.append(path.stem)
    return done


@pytest.mark.dist
@pytest.mark.slow
def test_every_config_takes_two_steps_on_two_processes(images, tmp_path):
    first, second = in_two_processes(tmp_path, two_steps_of_all, images, tmp_path)
    assert first == second == [path.stem for path in CONFIGS]
