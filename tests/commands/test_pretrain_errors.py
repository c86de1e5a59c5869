"""cwrgp-pretrain: invalid input and a full disk end with one line; what has no effect is named."""

from __future__ import annotations

import pytest
import torch
from images import write_images
from quick_run import QUICK, make_cfg

from cwrgp.cli import run_main
from cwrgp.commands.pretrain import main, run_pretraining

# Given, but of another method, optimizer, schedule, data set or command.
UNUSED = {
    "SOLVER.AMP.DTYPE": "fp16",  # first, since the file has it too
    "METHOD.EMA": 0.5,
    "METHOD.WHITENING.EPS": 0.5,
    "MODEL.PREDICTOR.HIDDEN": 8,
    "SOLVER.MOMENTUM": 0.5,
    "SOLVER.TRUST_COEFFICIENT": 0.5,
    "SOLVER.GAMMA": 0.5,
    "DATA.CLASS_LIST": "x",
    "DATA.NUM_SAMPLES": 5,
    "EVAL.TEST_ROOT": "x",
    "EVAL.LINEAR.LR": 0.5,
}


def test_keys_without_effect_are_named_in_one_warning(image_folder, tmp_path):
    used = ["SOLVER.EPOCHS", 3, "SOLVER.AMP.ENABLED", False, "SOLVER.FINAL_LR_RATIO", 0.5]
    used += ["DATA.PROBE_RESIZE", 40, "EVAL.KNN_K", 3, "SOLVER.WEIGHT_DECAY", 0.1, "SEED", 7]
    pairs = [word for pair in UNUSED.items() for word in pair]
    run_pretraining(make_cfg(image_folder, tmp_path, *pairs, *used))
    log = (tmp_path / "log.txt").read_text()
    assert log.count("without effect") == 1
    assert f"keys without effect in this run: {', '.join(UNUSED)}\n" in log


def test_a_run_without_a_probe_uses_its_mean_and_deviation(image_folder, tmp_path):
    run_pretraining(
        make_cfg(image_folder, tmp_path, "EVAL.PERIOD", 0, "DATA.MEAN", [0.4, 0.4, 0.4])
    )
    assert "DATA.MEAN" not in (tmp_path / "log.txt").read_text().partition("without effect")[2]


def test_images_to_probe_with_must_have_labels(image_folder, tmp_path):
    write_images(tmp_path / "flat", 6)
    with pytest.raises(
        ValueError, match="EVAL.ROOT .*flat: the images of the probe's train split have"
    ):
        run_pretraining(make_cfg(image_folder, tmp_path / "run", "EVAL.ROOT", tmp_path / "flat"))


MISTAKES = [
    (
        ["DATA.NAME", "imagenet22k"],
        "DATA.NAME 'imagenet22k' is unknown; choose one of imagefolder, cifar10",
    ),
    (
        ["DATA.ROOT", "/nowhere"],
        "DATA.ROOT: image folder /nowhere does not exist",
    ),
    (["DATA.ROOT", __file__], f"DATA.ROOT: image folder {__file__} is a file"),
    (["DATA.ROOT", ""], "DATA.ROOT is empty"),
    (["DATA.MEAN", "['a', 'b', 'c']"], "DATA.MEAN ['a', 'b', 'c'] must be a list of 3 numbers"),
    (["SOLVER.EPOCHS", "None"], "SOLVER.EPOCHS None must be of type int"),
    (["DATA.STD", "[0.2, 0.0, 0.2]"], "DATA.STD [0.2, 0.0, 0.2] is not positive"),
    (["SEED", "3", "--resume"], "--resume must come before the KEY VALUE pairs"),
    (["EVAL.KNN_K", "500"], "EVAL.KNN_K: k 500 is more than the 127 labelled images"),
    (["OUTPUT_DIR", ""], "OUTPUT_DIR is empty"),
    (["METHOD.NAME", "moco9"], "METHOD.NAME 'moco9' is unknown; choose one of cwrgp, wmse"),
    (["METHOD.CWRGP.SUBBATCH_SIZE", "48"], "sub-batches of 2, 4, 8, 16, 32, 64 would"),
    (["METHOD.CWRGP.NUM_GROUPS", "8"], "or eps > 0 (try 1e-4)"),
    (["METHOD.CWRGP.NUM_GROUPS", "3"], "128 channels do not divide into 3 groups"),
    (["MODEL.ARCH", "resnet20"], "MODEL.ARCH 'resnet20' is unknown"),
    (["MODEL.STEM", "tiny"], "MODEL.STEM 'tiny' is unknown"),
    (["MODEL.PROJECTOR.LAYERS", "0"], "MODEL.PROJECTOR.LAYERS 0 is below 1"),
    (["SOLVER.OPTIMIZER", "lion"], "SOLVER.OPTIMIZER 'lion' is unknown"),
    (["SOLVER.BATCH_SIZE", "256"], "SOLVER.BATCH_SIZE 256 is more than the 128 images"),
    (["DATA.MAX_IMAGES", "63"], "SOLVER.BATCH_SIZE 64 is more than the 63 images"),
    (["DATA.MAX_IMAGES", "-1"], "DATA.MAX_IMAGES -1 is below 0"),
    (
        ["SOLVER.ACCUMULATE", "3"],
        "64 does not divide among 1 processes with SOLVER.ACCUMULATE 3; 63",
    ),
    (
        ["SOLVER.AMP.DTYPE", "fp8"],
        "SOLVER.AMP.DTYPE 'fp8' is unknown; choose one of auto, fp32, bf16, fp16",
    ),
    (["SOLVER.SCHEDULE", "linear"], "SOLVER.SCHEDULE 'linear' is unknown; choose one of step"),
    (
        ["SOLVER.SCHEDULE", "step"],
        "drop_epochs [50, 25] count from the end of the run, which has 4 epochs only; choose "
        "smaller SOLVER.DROP_EPOCHS, such as [], or SOLVER.SCHEDULE cosine",
    ),
    (["LOGGERS", "['tensorbord']"], "LOGGERS 'tensorbord' is unknown; choose from ['tensorboard'"),
    (["LOGGERS", "[3]"], "LOGGERS [3] must be a list of texts"),
    (["SOLVER.BASE_LR", "-1.0"], "SOLVER.BASE_LR -1.0 is not positive"),
    (["SOLVER.EPOCHS", "-1"], "SOLVER.EPOCHS -1 is below 0"),
    (["SOLVER.EPOCHS", "1"], "the warm-up of 2 iterations is not shorter than the run of 2"),
    (["SOLVER.WARMUP_EPOCHS", "50.0"], "set SOLVER.WARMUP_ITERS to 0 and WARMUP_EPOCHS to 0"),
    (["SOLVER.WARMUP_EPOCHS", "-1.0"], "SOLVER.WARMUP_EPOCHS -1.0 is below 0"),
    (["SOLVER.ACCUMULATE", "0"], "SOLVER.ACCUMULATE 0 is below 1"),
    (["SOLVER.MOMENTUM", "5.0"], "SOLVER.MOMENTUM 5.0 is outside [0, 1]"),
    (["SOLVER.WEIGHT_DECAY", "1e999"], "SOLVER.WEIGHT_DECAY inf is not a finite number"),
    (["SOLVER.TRUST_COEFFICIENT", "0.0"], "SOLVER.TRUST_COEFFICIENT 0.0 is not positive"),
    (["METHOD.CWRGP.EPS", "-1.0"], "METHOD.CWRGP.EPS -1.0 is outside [0, 1]"),
    (["METHOD.CWRGP.NUM_GROUPS", "0"], "METHOD.CWRGP.NUM_GROUPS 0 is below 1"),
    (["METHOD.BARLOW_TWINS.SCALE", "0.0"], "METHOD.BARLOW_TWINS.SCALE 0.0 is not positive"),
    (["MODEL.PREDICTOR.HIDDEN", "0"], "MODEL.PREDICTOR.HIDDEN 0 is below 1"),
    (["AUGMENT.JITTER", "[0.4, 0.4, 0.4, 0.9]"], "the last value, of hue, is at most 0.5"),
    (["SOLVER.EPOCHS=3"], "KEY VALUE pairs, with a space and no = between"),
    (["AUGMENT.FLIP_PROB", "1.5"], "AUGMENT.FLIP_PROB 1.5 is outside [0, 1]"),
    (["AUGMENT.JITTER", "[0.4]"], "AUGMENT.JITTER [0.4] must be a list of 4 numbers"),
    (["DATA.PROBE_RESIZE", "16"], "DATA.PROBE_RESIZE 16 is below DATA.IMAGE_SIZE 32"),
    (["SOLVER.EPOCHS", "many"], "SOLVER.EPOCHS 'many' must be of type int"),
    (["SOLVER.EPOCH", "3"], "unknown config key SOLVER.EPOCH; did you mean SOLVER.EPOCHS"),
    (["SOLVER.EPOCHS"], "'SOLVER.EPOCHS' has no value"),
]


@pytest.mark.parametrize(("opts", "message"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(image_folder, tmp_path, capsys, opts, message):
    def command(args):
        run_pretraining(make_cfg(image_folder, tmp_path / "run", *opts))

    args = type("Arguments", (), {"debug": False})()
    assert run_main(command, args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "run").exists()
    args.debug = True
    with pytest.raises((ValueError, OSError)):
        run_main(command, args)


def test_the_command_itself_says_it_in_one_line(image_folder, tmp_path, capsys, run_tool):
    done = run_tool("tools/pretrain.py", "--config-file", QUICK, "DATA.ROOT", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "holds no image" in done.stderr
    assert done.stderr.count("\n") == 1
    file = tmp_path / "broken.yaml"
    file.write_text("SOLVER: {EPOCHS: 3\n")
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    for config, message in [
        (empty, "empty.yaml is not a config: it must hold sections with keys"),
        (tmp_path / "none.yaml", "none.yaml: no such file"),
        (file, "is not valid YAML"),
    ]:
        assert main(["--config-file", str(config)]) == 2
        output, errors = capsys.readouterr()
        assert output == "" and errors.startswith("error: ") and message in errors
        assert errors.count("\n") == 1
    pairs = ("OUTPUT_DIR", tmp_path, "DATA.ROOT", image_folder)
    with pytest.raises(FileNotFoundError, match="go on from; omit resume=True to start$"):
        main(["--resume", "--debug", "--config-file", str(QUICK), *map(str, pairs)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "to go on from; omit --resume to start, or give --resume-or-start"),
        (["--eval-only"], "holds no checkpoint to evaluate"),
        (["--num-gpus", "99"], "--num-gpus 99: this machine shows"),
    ],
)
def test_the_command_names_its_options(image_folder, tmp_path, capsys, options, message):
    pairs = ("OUTPUT_DIR", tmp_path, "DATA.ROOT", image_folder)
    assert main([*options, "--config-file", str(QUICK), *map(str, pairs)]) == 2
    assert message in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    image_folder, tmp_path, run_tool
):
    opts = ["SOLVER.EPOCHS", 3, "EVAL.PERIOD", 0, "DATA.NUM_WORKERS", 0]
    run_pretraining(make_cfg(image_folder, tmp_path, *opts, "SOLVER.EPOCHS", 2))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")}
    given = ("DATA.ROOT", image_folder, "OUTPUT_DIR", tmp_path, *opts)
    command = ("--resume", "--config-file", QUICK, *given)
    limited = ("tests/helpers/small_disk.py", 1_000_000)
    result = run_tool(*limited, "tools/pretrain.py", *command)
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]  # after the progress
    assert last.startswith(f"error: {tmp_path}/model_final.pth was not written: the file")
    assert " MB needed, " in last
    assert "Traceback" not in result.stderr + result.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pth")} == before
    assert not list(tmp_path.glob(".*"))
    assert main([str(word) for word in command]) == 0
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 5
