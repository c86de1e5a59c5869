"""What the commands share: names in their help, lists of configs, a package that is missing."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Sequence

import pytest

import cwrgp.commands.analyze as analyze
import cwrgp.commands.embed as embed
import cwrgp.commands.evaluate as evaluate
import cwrgp.commands.pretrain as pretrain
import cwrgp.commands.publish as publish
import cwrgp.install_detectron2 as install_detectron2
import d2_transfer.commands.check_data as check_data
import d2_transfer.commands.convert as convert
import d2_transfer.commands.predict as predict
import d2_transfer.commands.score as score
import d2_transfer.commands.trials as trials
import d2_transfer.train_net as train_net
from cwrgp.cli import _OPTIONS, name_options, run_main
from cwrgp.errors import MissingPackage

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Main = Callable[[Sequence[str] | None], int]

COMMANDS: dict[str, Main] = {
    "cwrgp-analyze": analyze.main,
    "cwrgp-check-data": check_data.main,
    "cwrgp-convert": convert.main,
    "cwrgp-embed": embed.main,
    "cwrgp-evaluate": evaluate.main,
    "cwrgp-install-detectron2": install_detectron2.main,
    "cwrgp-predict": predict.main,
    "cwrgp-pretrain": pretrain.main,
    "cwrgp-publish": publish.main,
    "cwrgp-score": score.main,
    "cwrgp-train-net": train_net.main,
    "cwrgp-trials": trials.main,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_the_console_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [f"/usr/bin/{name}"])
    with pytest.raises(SystemExit, match="0"):
        COMMANDS[name](["--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {name} [-h]")
    assert "%(prog)s" not in text and "tools/" not in text
    assert "--debug" in text


@pytest.mark.parametrize("script", ["tools/convert_to_d2.py", "d2_transfer/train_net.py"])
def test_the_help_names_the_script_where_it_was_started(script: str, run_tool: Run) -> None:
    text = run_tool(script, "--help", check=True).stdout
    assert text.startswith(f"usage: python {script} [-h]")
    assert f"\n  python {script} --" in text
    assert "python d2_transfer" in run_tool("d2_transfer/train_net.py").stderr


@pytest.mark.parametrize(
    ("name", "shown", "hidden"),
    [
        ("cwrgp-pretrain", "quick/demo_pretrain_r18.yaml", "rcnn"),
        ("cwrgp-evaluate", "pretrain/cifar10_bn_r18.yaml", "rcnn"),
        ("cwrgp-train-net", "detection/coco_R_50_C4_2x.yaml", "pretrain/"),
    ],
)
def test_the_configs_are_listed_without_other_arguments(
    name: str, shown: str, hidden: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        COMMANDS[name](["--list-configs"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert shown in names and not any(hidden in name for name in names)


@pytest.mark.parametrize("name", ["cwrgp-pretrain", "cwrgp-train-net"])
def test_a_wrong_config_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS[name](["--config-file", "coco_R_50_C4_3x.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --config-file coco_R_50_C4_3x.yaml: no such file, and no ")
    assert "did you mean detection/coco_R_50_C4_" in error and error.count("\n") == 1
    assert error.endswith("? (--list-configs shows all)\n")
    assert COMMANDS[name](["--config-file", "zzz.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("no packaged config of this name (--list-configs shows all)\n")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("num_gpus 9: too many", "--num-gpus 9: too many"),
        ("x.pth: (unsafe=True would read it)", "x.pth: (--unsafe-load would read it)"),
        ("x.pth: branch='momentum' may take it", "x.pth: --branch momentum may take it"),
        ("choose one with branch='a: b'", "choose one with --branch 'a: b'"),
        (
            "num_gpus 2 needs dist_url='tcp://HOST:PORT'",
            "--num-gpus 2 needs --dist-url tcp://HOST:PORT",
        ),
        ("output folder of weights 3", "--output folder of weights 3"),
        ("the output, name and branch of my_resume=True", None),
        ("resume=True", None),  # not an argument of this command
    ],
)
def test_a_command_names_options_instead_of_arguments(message: str, shown: str | None) -> None:
    arguments = ("num_gpus", "unsafe", "branch", "output", "dist_url", "debug")
    assert name_options(message, arguments) == (shown or message)


def test_each_option_is_one_of_a_command() -> None:
    parsed = [
        analyze.parse_args([]),
        convert.parse_args(["a", "b"]),
        embed.parse_args(["a", "b", "c"]),
        evaluate.parse_args(["--weights", "a", "--config-file", "b", "knn"]),
        pretrain.parse_args(["--config-file", "a"]),
        predict.parse_args(["a", "b", "--output", "c"]),
        publish.parse_args(["a", "b", "--name", "c"]),
        train_net.parse_args(["--config-file", "a"]),
        trials.parse_args(["--output", "a"]),
    ]
    assert {*_OPTIONS} <= {argument for args in parsed for argument in vars(args)}


def test_a_missing_package_is_the_users_and_another_import_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(args: argparse.Namespace) -> None:
        raise MissingPackage("run this", name="x")

    def defect(args: argparse.Namespace) -> None:
        raise ModuleNotFoundError("No module named 'x'", name="x")

    args = argparse.Namespace(debug=False)
    assert run_main(missing, args) == 2
    assert capsys.readouterr().err == "error: run this\n"
    with pytest.raises(ModuleNotFoundError, match="named 'x'"):
        run_main(defect, args)
