"""How a run makes its views: logged, saved, kept on resume, and refused where it cannot be."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
import yaml
from images import write_images
from PIL import Image
from repository import REPOSITORY

from cwrgp.builders.data import build_pretraining_images
from cwrgp.builders.run import build_run
from cwrgp.builders.solver import build_precision
from cwrgp.cli import load_config
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.config import get_cfg
from cwrgp.preemption import Preempted

QUICK = REPOSITORY / "configs/quick/pretrain_cwrgp_r18.yaml"
CPU = torch.device("cpu")


class StopAfter:
    """Asks a run to stop after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps + 1  # it is asked once before the first step

    def agreed(self) -> bool:
        self.left -= 1
        return self.left == 0


def make_cfg(images, output, *opts):
    cfg = get_cfg()
    pairs = ["DATA.ROOT", images, "OUTPUT_DIR", output, "EVAL.PERIOD", 0, "SOLVER.EPOCHS", 3]
    pairs += ["DATA.NUM_WORKERS", 0]
    load_config(cfg, str(QUICK), [str(word) for word in (*pairs, *opts)])
    return cfg


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


@pytest.mark.parametrize(
    "opts",
    [
        ("AUGMENT.DEVICE", "training"),
        pytest.param(("AUGMENT.BACKEND", "fast"), marks=pytest.mark.slow),
        pytest.param(("AUGMENT.BACKEND", "reference"), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_resumed_run_makes_the_same_views(image_folder, tmp_path, opts):
    whole = make_cfg(image_folder, tmp_path / "whole", *opts)
    run_pretraining(whole)
    parts = make_cfg(image_folder, tmp_path / "parts", *opts)
    with pytest.raises(Preempted):
        run_pretraining(parts, stop=StopAfter(3))
    # Now the choice is left to the run, which keeps it.
    run_pretraining(make_cfg(image_folder, tmp_path / "parts"), resume=True)
    a, b = final(tmp_path / "whole"), final(tmp_path / "parts")
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    saved = yaml.safe_load(b["config"])["AUGMENT"]
    assert saved == yaml.safe_load(a["config"])["AUGMENT"]
    assert "auto" not in (saved["BACKEND"], saved["DEVICE"])
    logged = f"{saved['BACKEND']} views in {saved['DEVICE']}"
    assert (tmp_path / "parts" / "log.txt").read_text().count(logged) == 2


def test_a_checkpoint_without_the_keys_goes_on_with_the_reference(image_folder, tmp_path, caplog):
    with pytest.raises(Preempted):
        run_pretraining(
            make_cfg(image_folder, tmp_path, "AUGMENT.BACKEND", "reference"), stop=StopAfter(2)
        )
    name = tmp_path / (tmp_path / "last_checkpoint").read_text()
    state = torch.load(name, weights_only=True)
    config = yaml.safe_load(state["config"])
    for key in ("BACKEND", "DEVICE"):
        del config["AUGMENT"][key]
    torch.save({**state, "config": yaml.safe_dump(config)}, name)
    with caplog.at_level(logging.WARNING, logger="cwrgp"):
        run_pretraining(make_cfg(image_folder, tmp_path), resume=True)
    assert "changed configuration" not in caplog.text
    saved = yaml.safe_load(final(tmp_path)["config"])["AUGMENT"]
    assert (saved["BACKEND"], saved["DEVICE"]) == ("reference", "workers")


def test_images_of_different_sizes_cannot_be_on_the_device(tmp_path):
    write_images(tmp_path / "images", 64)
    Image.new("RGB", (50, 40)).save(tmp_path / "images" / "x.png")
    cfg = make_cfg(tmp_path / "images", tmp_path / "run", "AUGMENT.DEVICE", "training")
    message = "^AUGMENT.DEVICE training needs small images of one size: .*x.png has 50 x 40"
    with pytest.raises(ValueError, match=message):
        run_pretraining(cfg)


def test_evaluating_needs_no_packages_for_views(image_folder, tmp_path, monkeypatch):
    run_pretraining(make_cfg(image_folder, tmp_path, "AUGMENT.BACKEND", "fast"))
    for name in ("cv2", "simplejpeg", "cwrgp.data.augment.fast"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run_pretraining(make_cfg(image_folder, tmp_path), eval_only=True)


def test_the_fast_backend_is_used_where_its_packages_are(image_folder, tmp_path):
    names = {}
    for backend in ("fast", "reference"):
        cfg = make_cfg(image_folder, tmp_path, "AUGMENT.BACKEND", backend)
        images = build_pretraining_images(cfg)
        run = build_run(cfg, build_precision(cfg, CPU), images, probe=False)
        names[backend] = type(run.views.make_views).__name__
    assert names == {"fast": "FastViews", "reference": "ReferenceViews"}
