"""cwrgp-evaluate: every probe on tiny images, two processes against one, seeds."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import webdataset
from colour_probe import CLASSES, ON_IMAGES, TEST, TRAIN, run
from images import write_images
from repository import REPOSITORY
from two_processes import in_two_processes

from cwrgp.commands.evaluate import as_line


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
    root = ["DATA.ROOT", tmp_path, "DATA.MAX_UNREADABLE_SHARE", 0]
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


def test_random_weights_have_no_digest(place):
    record = run(place, "knn", weights="random")
    assert record["weights"]["sha256"] is None and as_line(record).endswith("weights random")
    assert math.isfinite(record["top1"])
