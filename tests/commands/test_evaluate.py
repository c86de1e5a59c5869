"""tools/evaluate.py: every probe on tiny images, two processes against one, seeds, mistakes."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from encoders import own_checkpoint
from images import write_images
from PIL import Image
from repository import REPOSITORY
from two_processes import in_two_processes

from cwrgp.cli import load_config, run_main
from cwrgp.commands.evaluate import as_line, run_evaluation
from cwrgp.config import get_cfg

CONFIG = """
DATA: {NUM_WORKERS: 0, IMAGE_SIZE: 32, PROBE_RESIZE: 32}
MODEL: {ARCH: resnet18}
SOLVER: {AMP: {ENABLED: False}}
EVAL:
  BATCH_SIZE: 8
  LINEAR: {EPOCHS: 8, BATCH_SIZE: 20}
  FINETUNE: {FRACTION: 0.5, EPOCHS: 8, BATCH_SIZE: 8}
"""
ON_IMAGES = ["EVAL.LINEAR.OPTIMIZER", "larc", "EVAL.LINEAR.LR", 0.4, "EVAL.LINEAR.FINAL_LR", 0.0,
             "EVAL.LINEAR.WEIGHT_DECAY", 0.0, "EVAL.LINEAR.EPOCHS", 2]  # fmt: skip
TRAIN, TEST, CLASSES = 7, 3, 7  # images of a class, odd on purpose


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Images of seven colours in train and val, a config, and weights."""
    root = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    tints = rng.integers(60, 200, (CLASSES, 3))
    for split, count in (("train", TRAIN), ("val", TEST)):
        for label, tint in enumerate(tints):
            folder = root / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(tint, 25, (36, 36, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(folder / f"{i}.png")
    (root / "config.yaml").write_text(CONFIG)
    torch.manual_seed(0)
    torch.save(own_checkpoint(), root / "weights.pth")
    return root


def run(place: Path, probe: str, *opts: object, weights: str | None = None, **options):
    cfg = get_cfg()
    opts = ("DATA.ROOT", place / "images", *opts)
    load_config(cfg, str(place / "config.yaml"), [str(opt) for opt in opts])
    return run_evaluation(cfg, probe, weights or str(place / "weights.pth"), **options)


@pytest.mark.parametrize(
    ("probe", "opts"),
    [("knn", []), ("linear", []), ("linear", ON_IMAGES), ("lbfgs", []), ("finetune", [])],
    ids=["knn", "linear", "linear on images", "lbfgs", "finetune"],
)
def test_a_probe_finds_the_colours_and_the_same_twice(place, tmp_path, probe, opts):
    record = run(place, probe, *opts, output=str(tmp_path / "new" / "a.json"))
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == record
    assert record == run(place, probe, *opts)
    learnt = CLASSES * (TRAIN if probe != "finetune" else 4)
    assert (record["train_images"], record["test_images"]) == (learnt, CLASSES * TEST)
    assert record["probe"] == probe and 100 / CLASSES < record["top1"] <= 100
    assert (record["top5"] is None) == (probe == "knn")
    assert probe == "knn" or record["top1"] <= record["top5"] <= 100
    assert record["dtype"] == "float32" and record["processes"] == 1
    sha256 = hashlib.sha256((place / "weights.pth").read_bytes()).hexdigest()
    assert record["weights"]["sha256"] == sha256 and record["weights"]["source"] == "cwrgp"
    line = as_line(record)
    assert "\n" not in line and line.startswith(f"{probe}  top-1 {record['top1']:.2f}  top-5 ")
    assert f"images {learnt} / {CLASSES * TEST}" in line and line.endswith(sha256[:12])
    if opts:
        assert record["best"]["top1"] >= record["top1"] and record["best"]["epoch"] in (1, 2)
        assert f"best {record['best']['top1']:.2f} (epoch" in line
    names = tmp_path / "new" / "a.images.txt"
    assert names.exists() == (probe == "finetune")
    if names.exists():
        lines = names.read_text().splitlines()
        assert len(set(lines)) == learnt
        assert all((place / "images" / line).is_file() for line in lines)
        assert sum(line.startswith("train/class3/") for line in lines) == 4


def test_another_seed_draws_another_subset(place, tmp_path):
    for seed in (0, 1):
        short = ["EVAL.FINETUNE.EPOCHS", 1, "SEED", seed]
        run(place, "finetune", *short, output=str(tmp_path / f"{seed}.json"))
    first, second = ((tmp_path / f"{seed}.images.txt").read_text() for seed in (0, 1))
    assert first != second and len(first.split()) == len(second.split())


def test_equal_counts_divide_a_share_of_all_images(place):
    # Half of 49 images of 7 classes: 24, three of each class and one more of three classes.
    opts = ["EVAL.FINETUNE.EPOCHS", 1, "EVAL.FINETUNE.EQUAL_COUNTS", "True"]
    assert run(place, "finetune", *opts)["train_images"] == 24


def test_the_encoder_stays_in_linear_probes_and_moves_in_fine_tuning(place, monkeypatch):
    import cwrgp.commands.probes as probes

    seen = {}
    for name in ("linear", "finetune"):
        original = probes.PROBES[name]

        def spied(cfg, data, original=original, name=name):
            before = {k: v.clone() for k, v in data.encoder.state_dict().items()}
            result = original(cfg, data)
            after = data.encoder.state_dict()
            seen[name] = [not torch.equal(after[k], v) for k, v in before.items()]
            return result

        monkeypatch.setitem(probes.PROBES, name, spied)
    run(place, "linear", *ON_IMAGES)
    run(place, "finetune")
    assert not any(seen["linear"]) and all(seen["finetune"])


STEPS = ["EVAL.LINEAR.EPOCHS", 4, "EVAL.LINEAR.STEPS", "[1,3]", "EVAL.LINEAR.WEIGHT_DECAY", 0.3]


@pytest.mark.parametrize(
    ("probe", "trainer", "opts", "rates", "values"),
    [
        ("linear", "train_on_features", [], (1e-2, 1e-6), {"weight_decay": 5e-6, "seed": 0}),
        ("linear", "train_on_images", ON_IMAGES, (0.4, 0.2), {"optimizer": "larc"}),
        ("linear", "train_on_images", [*ON_IMAGES, *STEPS], (0.4, 0.004), {"weight_decay": 0.3}),
        ("finetune", "fine_tune", ["EVAL.FINETUNE.WEIGHT_DECAY", 0.3], None,
         {"lr_encoder": 0.004, "lr_classifier": 0.2, "weight_decay": 0.3}),
    ],
)  # fmt: skip
def test_the_values_of_a_probe_reach_its_training(
    place, monkeypatch, probe, trainer, opts, rates, values
):
    import cwrgp.commands.probes as probes

    seen = {}
    original = getattr(probes, trainer)
    monkeypatch.setattr(probes, trainer, lambda *a, **k: seen.update(k) or original(*a, **k))
    run(place, probe, *opts)
    assert values.items() <= seen.items()
    if rates is not None:
        epochs = seen["epochs"] if "epochs" in seen else seen["settings"].epochs
        rate = seen["learning_rate"]
        assert (rate(0), rate(epochs - 1)) == pytest.approx(rates, rel=1e-9)


@pytest.mark.parametrize(
    ("probe", "opts", "expected"),
    [("knn", [], ["bicubic"] * 2), ("linear", ON_IMAGES, ["bilinear"]),
     ("finetune", [], ["bilinear"])],
)  # fmt: skip
def test_images_are_shown_as_the_protocol_has_it(place, monkeypatch, probe, opts, expected):
    import cwrgp.evaluation.probe_data as probe_data

    seen, original = [], probe_data.extract_features

    def spied(encoder, images, **rest):
        seen.append(images.transform.transforms[0].interpolation.value)
        return original(encoder, images, **rest)

    monkeypatch.setattr(probe_data, "extract_features", spied)
    run(place, probe, *opts)
    assert seen == expected


def kinds_of_batch_norm(rank: int, place: Path) -> list[str]:
    """Of the encoder that is fine-tuned."""
    import cwrgp.commands.probes as probes

    seen: list[str] = []

    def spied(encoder, *args, **rest):
        kind = torch.nn.modules.batchnorm._BatchNorm
        seen.extend(type(m).__name__ for m in encoder.modules() if isinstance(m, kind))

    probes.fine_tune = spied
    run(place, "finetune")
    return sorted(set(seen))


@pytest.mark.dist
def test_fine_tuning_normalises_over_both_processes(place, tmp_path):
    assert in_two_processes(tmp_path, kinds_of_batch_norm, place) == [["CPUSyncBatchNorm"]] * 2


def test_without_test_images_only_neighbours_are_asked(place):
    alone = ["EVAL.ROOT", place / "images" / "train"]
    record = run(place, "knn", *alone)
    assert record["probe"] == "knn_leave_one_out" and record["test_images"] == CLASSES * TRAIN
    assert as_line(record).startswith("knn_leave_one_out  top-1 ")
    with pytest.raises(
        ValueError, match="EVAL.ROOT .*train has no held-out images .* only knn works"
    ):
        run(place, "linear", *alone)


def write_shards(images: Path, folder: Path) -> str:
    """The images of a folder in its order, five in a shard."""
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=5, verbose=0) as writer:
        for number, path in enumerate(sorted(images.glob("*/*.png"))):
            label = int(path.parent.name.removeprefix("class"))
            writer.write({"__key__": f"{number:06d}", "png": path.read_bytes(), "cls": label})
    return str(folder)


@pytest.mark.parametrize(("probe", "opts"), [("knn", []), ("linear", ON_IMAGES), ("finetune", [])])
def test_shards_give_what_the_folders_give(place, tmp_path, monkeypatch, probe, opts):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    train = write_shards(place / "images" / "train", tmp_path / "train")
    held_out = write_shards(place / "images" / "val", tmp_path / "val")
    shards = ["DATA.NAME", "webdataset", "DATA.ROOT", train, "EVAL.TEST_ROOT", held_out]
    found = run(place, probe, *opts, *shards)
    assert found.pop("data") == "webdataset"
    expected = run(place, probe, *opts)
    del expected["data"]
    assert found == expected


def test_max_images_of_the_runs_probe_does_not_shorten_the_evaluation(place):
    assert run(place, "knn", "EVAL.MAX_IMAGES", 5) == run(place, "knn")


def test_fewer_unreadable_images_than_allowed_are_left_out(place, tmp_path):
    for split in ("train", "val"):
        for label in range(2):
            write_images(tmp_path / split / str(label), 6, seed=label)
        (tmp_path / split / "0" / "000.png").write_bytes(b"no image")
    root = ["DATA.ROOT", tmp_path]
    record = run(place, "lbfgs", *root, "DATA.MAX_UNREADABLE", 1)
    assert (record["train_images"], record["test_images"]) == (11, 11)
    for probe in ("knn", "finetune"):
        with pytest.raises(ValueError, match=r"1 of \d+ images.* cannot be read, more than"):
            run(place, probe, *root, "EVAL.FINETUNE.FRACTION", 1.0)


CASES = [("knn", []), ("linear", []), ("lbfgs", []), ("linear", ON_IMAGES)]


def run_all(rank: int, place: Path) -> list[dict]:
    return [run(place, probe, *opts) for probe, opts in CASES]


@pytest.mark.dist
def test_two_processes_find_what_one_finds(place, tmp_path):
    # 21 test images and batches of 8; 49 training images in batches of 20, the last of 9.
    first, second = in_two_processes(tmp_path, run_all, place)
    assert first == second
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = run_all(0, place)
    finally:
        torch.set_num_threads(threads)
    for two, one in zip(first, alone, strict=True):
        assert two.pop("processes") == 2 and one.pop("processes") == 1
        assert two == one


@pytest.mark.dist
def test_the_command_under_torchrun_prints_one_line(place, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc_per_node", "2", "tools/evaluate.py"]
    command += ["--config-file", place / "config.yaml", "--weights", place / "weights.pth"]
    command += ["--output", tmp_path / "knn.json", "knn", "DATA.ROOT", place / "images"]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "knn.json").read_text())
    assert done.stdout == as_line(record) + "\n" and record["processes"] == 2


MISTAKES = [
    ("knn", ["EVAL.KNN_K", 50], "EVAL.KNN_K: k 50 is more than the 49 labelled images"),
    ("knn", ["MODEL.ARCH", "resnet34"], "MODEL.ARCH resnet18 MODEL.STEM imagenet would fit"),
    ("knn", ["DATA.ROOT", "/nowhere"], "DATA.ROOT: image folder /nowhere does not exist"),
    ("linear", ["EVAL.LINEAR.OPTIMIZER", "lars"], "EVAL.LINEAR.OPTIMIZER 'lars' is unknown"),
    ("linear", ["EVAL.LINEAR.EPOCHS", 0], "EVAL.LINEAR.EPOCHS 0 is below 1"),
    ("linear", ["EVAL.LINEAR.BATCH_SIZE", 0], "EVAL.LINEAR.BATCH_SIZE 0 is below 1"),
    ("linear", ["EVAL.LINEAR.LR", -1.0], "EVAL.LINEAR.LR -1.0 is not positive"),
    ("linear", ["EVAL.LINEAR.FINAL_LR", 0.0], "is not positive; 0 is for OPTIMIZER sgd and larc"),
    ("linear", [*ON_IMAGES, "EVAL.LINEAR.STEPS", "[1,2]"], "[1, 2] must be in ascending"),
    ("linear", ["EVAL.LINEAR.STEPS", "['a']"], "EVAL.LINEAR.STEPS ['a'] must be a list of numbers"),
    ("linear", ["EVAL.LINEAR.WEIGHT_DECAY", -1.0], "EVAL.LINEAR.WEIGHT_DECAY -1.0 is below 0"),
    ("linear", [*ON_IMAGES, "EVAL.LINEAR.OPTIMIZER", "sgd", "EVAL.LINEAR.LR", 1e38],
     "EVAL.LINEAR.LR: the loss is nan in epoch 1; lower the learning rate, now 1e+38"),
    ("finetune", ["EVAL.FINETUNE.FRACTION", 0.0], "EVAL.FINETUNE.FRACTION 0.0 is outside (0, 1]"),
    ("finetune", ["EVAL.FINETUNE.LR_ENCODER", -0.1], "EVAL.FINETUNE.LR_ENCODER -0.1 is below 0"),
    ("finetune", ["EVAL.FINETUNE.BATCH_SIZE", 1], "EVAL.FINETUNE.BATCH_SIZE: a batch of 1 does"),
]  # fmt: skip


@pytest.mark.parametrize(("probe", "opts", "message"), MISTAKES, ids=[str(m[1]) for m in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(place, capsys, probe, opts, message):
    args = type("Arguments", (), {"debug": False})()
    assert run_main(lambda args: run(place, probe, *opts), args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_keys_without_effect_are_named(place, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("cwrgp"), "propagate", True)
    others = {"EVAL.TEST_ROOT": "shards", "EVAL.LINEAR.LR": 0.5, "EVAL.LINEAR.OPTIMIZER": "sgd"}
    others |= {"EVAL.LINEAR.STEPS": "[60]", "EVAL.LINEAR.FINAL_LR": 0.5}
    run(place, "knn", *(word for pair in others.items() for word in pair), "EVAL.KNN_K", 3)
    message = f"keys without effect for the probe knn: {', '.join(others)}"
    assert [m for m in caplog.messages if "without effect" in m] == [message]


def test_an_error_names_the_key_that_caused_it(place, tmp_path):
    shutil.copytree(place / "images", tmp_path / "images")
    (tmp_path / "images" / "train" / "class0" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="^1 of .* cannot be read, more than DATA.MAX_UNREADABLE"):
        run(place, "linear", *ON_IMAGES, "DATA.ROOT", tmp_path / "images")


def test_images_without_labels_are_refused(place, tmp_path):
    write_images(tmp_path, 6)
    with pytest.raises(
        ValueError, match="DATA.ROOT .*: the images of the probe's train split have no la"
    ):
        run(place, "knn", "DATA.ROOT", tmp_path)


def test_images_beside_the_class_folders_are_named_and_omitted(place, tmp_path, caplog):
    shutil.copytree(place / "images", tmp_path / "images")
    for split, count in (("train", 1), ("val", 2)):
        write_images(tmp_path / "images" / split, count)
    for probe, opts in (("knn", []), ("linear", ON_IMAGES), ("finetune", [])):
        caplog.clear()
        found = run(place, probe, *opts, "DATA.ROOT", tmp_path / "images")
        assert found == run(place, probe, *opts)
        train, test = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
        assert f"1 of the {CLASSES * TRAIN + 1} images of the probe's train split have no" in train
        assert "omitted; the first is" in train and train.endswith("images/train/000.png")
        assert "2 of the" in test and test.endswith("images/val/000.png")


def test_held_out_images_without_labels_are_refused(place, tmp_path):
    shutil.copytree(place / "images" / "train", tmp_path / "train")
    write_images(tmp_path / "val", 3)
    with pytest.raises(ValueError, match="DATA.ROOT .*: the images of the probe's test split have"):
        run(place, "knn", "DATA.ROOT", tmp_path)


def test_features_that_are_no_numbers_are_refused(place, tmp_path):
    checkpoint = own_checkpoint()
    checkpoint["model"]["encoder.layer4.1.bn2.weight"] = torch.full((512,), 3e38)
    torch.save(checkpoint, tmp_path / "huge.pth")
    with pytest.raises(
        FloatingPointError, match="SOLVER.AMP.ENABLED: the encoder's features are not fi"
    ):
        run(place, "knn", weights=str(tmp_path / "huge.pth"))


def test_random_weights_have_no_digest(place):
    record = run(place, "knn", weights="random")
    assert record["weights"]["sha256"] is None and as_line(record).endswith("weights random")
    assert math.isfinite(record["top1"])


def test_the_command_says_what_is_wrong_in_one_line(place, tmp_path, run_tool):
    base = ["tools/evaluate.py", "--config-file", place / "config.yaml"]
    data = ["knn", "DATA.ROOT", place / "images"]
    good = ["--weights", place / "weights.pth"]
    for options, message in [
        (["--weights", tmp_path / "none.pth"], "none.pth: no such file"),
    ]:
        done = run_tool(*base, *options, *data)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and message in done.stderr
        assert done.stderr.count("\n") == 1
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ValueError, match="must end in .json"):
        run(place, "knn", output=str(tmp_path))
    with pytest.raises(ValueError, match="folder.json is a folder; name a file"):
        run(place, "knn", output=str(tmp_path / "folder.json"))
    done = run_tool(*base, *good, "--source", "x", *data)
    assert (
        done.returncode == 2
        and "argument --source: invalid choice: 'x' (choose from" in done.stderr
    )
