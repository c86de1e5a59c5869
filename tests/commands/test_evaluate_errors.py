"""cwrgp-evaluate: invalid input ends with one line; what has no effect is named."""

from __future__ import annotations

import shutil

import pytest
import torch
from colour_probe import CLASSES, ON_IMAGES, TRAIN, run
from encoders import own_checkpoint
from images import write_images

from cwrgp.cli import run_main
from cwrgp.commands.evaluate import main

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


def test_keys_without_effect_are_named(place, caplog):
    others = {"EVAL.TEST_ROOT": "shards", "EVAL.LINEAR.LR": 0.5, "EVAL.LINEAR.OPTIMIZER": "sgd"}
    others |= {"EVAL.LINEAR.STEPS": "[60]", "EVAL.LINEAR.FINAL_LR": 0.5}
    run(place, "knn", *(word for pair in others.items() for word in pair), "EVAL.KNN_K", 3)
    message = f"keys without effect for the probe knn: {', '.join(others)}"
    assert [m for m in caplog.messages if "without effect" in m] == [message]


def test_an_error_names_the_key_that_caused_it(place, tmp_path):
    shutil.copytree(place / "images", tmp_path / "images")
    (tmp_path / "images" / "train" / "class0" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="^1 of .* cannot be read, more than DATA.MAX_UNREADABLE"):
        run(
            place,
            "linear",
            *ON_IMAGES,
            "DATA.ROOT",
            tmp_path / "images",
            "DATA.MAX_UNREADABLE_SHARE",
            0,
        )


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


def test_the_command_says_what_is_wrong_in_one_line(place, tmp_path, capsys, run_tool):
    base = ["--config-file", place / "config.yaml", "--weights"]
    data = ["knn", "DATA.ROOT", place / "images"]
    done = run_tool("tools/evaluate.py", *base, tmp_path / "none.pth", *data)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "none.pth: no such file" in done.stderr
    assert done.stderr.count("\n") == 1
    for options, message in (
        (("random", "--branch", "online"), "error: --weights 'random' has neither a source nor"),
        (("random", "--output", tmp_path), f"error: --output {tmp_path} must end in .json"),
    ):
        assert main([str(word) for word in (*base, *options, *data)]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(word) for word in (*base, place / "weights.pth", "--source", "x", *data)])
    assert "argument --source: invalid choice: 'x' (choose from" in capsys.readouterr().err


def test_the_output_must_be_a_json_file(place, tmp_path):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ValueError, match=f"^output {tmp_path} must end in .json"):
        run(place, "knn", output=str(tmp_path))
    with pytest.raises(ValueError, match="folder.json is a folder; name a file"):
        run(place, "knn", output=str(tmp_path / "folder.json"))
