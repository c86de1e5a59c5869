"""Configs by name, their overrides, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from repository import REPOSITORY

from cwrgp.config import get_cfg
from cwrgp.config_files import (
    DETECTION,
    PRETRAINING,
    describe_configs,
    find_config,
    merge_file,
    merge_values,
    packaged_configs,
    read_config,
)

CIFAR10 = "pretrain/cifar10_cwrgp4_r18.yaml"


def test_each_config_that_can_be_run_is_listed_by_one_command() -> None:
    files = {
        str(file.relative_to(REPOSITORY / "configs"))
        for file in (REPOSITORY / "configs").rglob("*.yaml")
    }
    assert set(packaged_configs()) == files
    pretraining, detection = set(packaged_configs(PRETRAINING)), set(packaged_configs(DETECTION))
    assert not pretraining & detection
    assert files - pretraining - detection == {
        "detection/Base-RCNN-C4-BN.yaml",
        "detection/Base-RCNN-FPN-BN.yaml",
    }
    for names, command in ((pretraining, "cwrgp-pretrain"), (detection, "cwrgp-train-net")):
        for name in names:
            text = (REPOSITORY / "configs" / name).read_text()
            assert f"{command} " in text and f"--config-file {name}" in text, name


def test_the_list_has_a_line_for_each_config() -> None:
    lines = describe_configs(PRETRAINING).splitlines()
    assert [line.split()[0] for line in lines] == list(packaged_configs(PRETRAINING))
    row = next(line for line in lines if line.startswith(CIFAR10))
    assert row.split(maxsplit=1)[1] == "CW-RGP with 4 views on CIFAR-10, ResNet-18."
    assert all(line.endswith(".") for line in describe_configs(("pretrain/*",)).splitlines())


def test_a_file_comes_before_a_packaged_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = REPOSITORY / "configs" / CIFAR10
    for name in (CIFAR10, f"configs/{CIFAR10}", Path(CIFAR10)):
        assert find_config(name).samefile(packaged)
    (tmp_path / "pretrain").mkdir()
    (tmp_path / CIFAR10).write_text("SEED: 3\n")
    assert find_config(CIFAR10) == Path(CIFAR10)
    assert find_config(f"configs/{CIFAR10}").samefile(packaged)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar10_cwrgp4_r18.yaml", f"; did you mean {CIFAR10} or "),
        ("pretrain/cifar10_cwrgp4_r18", f"; did you mean {CIFAR10} or "),
        ("configs/pretrain/cifar10_cwrgp3_r18.yaml", "did you mean pretrain/cifar10_cwrgp"),
        ("zzz.yaml", "no packaged config of this name"),
        ("../configs/" + CIFAR10, "no such file"),  # names are names, not paths below a folder
    ],
)
def test_a_wrong_name_is_told_close_ones(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        find_config(name)
    message = str(error.value)
    assert message.startswith(f"{name}: no such file, and no packaged config of this name")
    assert hint in message and "\n" not in message


def test_a_packaged_config_is_read_with_its_bases() -> None:
    cfg = read_config(get_cfg(), "quick/pretrain_cifar10_r18.yaml", {})
    assert (cfg.SOLVER.EPOCHS, cfg.DATA.NAME, cfg.METHOD.CWRGP.NUM_DRAWS) == (20, "cifar10", 4)


def test_a_file_may_build_on_a_packaged_config(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"_BASE_: {CIFAR10}\nSOLVER: {{EPOCHS: 7}}\n")
    cfg = read_config(get_cfg(), mine, {})
    assert (cfg.SOLVER.EPOCHS, cfg.DATA.NAME, cfg.DATA.NUM_VIEWS) == (7, "cifar10", 4)
    # A file beside it comes first.
    (tmp_path / "pretrain").mkdir()
    (tmp_path / CIFAR10).write_text("SEED: 3\n")
    cfg = read_config(get_cfg(), mine, {})
    assert (cfg.SEED, cfg.DATA.NAME) == (3, "imagefolder")
    mine.write_text("_BASE_: pretrain/nowhere.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"mine.yaml: _BASE_ pretrain/nowhere.yaml: there"):
        merge_file(get_cfg(), mine)
    mine.write_text(f"_BASE_: {CIFAR10}\nSOLVER: {{EPOCH: 7}}\n")
    (tmp_path / CIFAR10).unlink()
    with pytest.raises(ValueError, match="mine.yaml: unknown config key SOLVER.EPOCH; did you"):
        merge_file(get_cfg(), mine)


def test_a_missing_base_is_named_with_the_file_that_asks_for_it(tmp_path: Path) -> None:
    top, middle = tmp_path / "top.yaml", tmp_path / "middle.yaml"
    top.write_text("_BASE_: middle.yaml\n")
    middle.write_text("_BASE_: pretrain/nowhere.yaml\n")
    with pytest.raises(FileNotFoundError) as error:
        merge_file(get_cfg(), top)
    assert str(error.value) == (
        f"{middle}: _BASE_ pretrain/nowhere.yaml: there is no file "
        f"{tmp_path}/pretrain/nowhere.yaml, and no packaged config of this name"
    )


@pytest.mark.parametrize(
    ("top", "middle", "message"),
    [
        ("_BASE_: top.yaml", "", "{top}: _BASE_ top.yaml is based on this file itself"),
        (
            "_BASE_: middle.yaml",
            "_BASE_: ./top.yaml",
            "{middle}: _BASE_ ./top.yaml is based on this",
        ),
        ("_BASE_: 3", "", "{top}: _BASE_ 3 is not the name of a file"),
        ("_BASE_: middle.yaml", "- SEED", "{middle} is not a config: it must hold sections"),
        ("_BASE_: middle.yaml", "SOLVER: {3: 4}", "{middle} is not a config: it must hold"),
        ("_BASE_: middle.yaml", "SEED: [", "{middle} is not valid YAML: "),
    ],
)
def test_a_wrong_base_is_named(tmp_path: Path, top: str, middle: str, message: str) -> None:
    files = {"top": tmp_path / "top.yaml", "middle": tmp_path / "middle.yaml"}
    files["top"].write_text(top)
    files["middle"].write_text(middle)
    with pytest.raises(ValueError) as error:
        merge_file(get_cfg(), files["top"])
    assert str(error.value).startswith(message.format(**files))


def test_a_file_may_have_several_bases(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("SOLVER: {EPOCHS: 3, GAMMA: 0.5}\nSEED: 1\n")
    (tmp_path / "two.yaml").write_text("_BASE_: one.yaml\nSOLVER: {EPOCHS: 4}\n")
    (tmp_path / "top.yaml").write_text(f"_BASE_: [{CIFAR10}, one.yaml, two.yaml]\nSEED: 2\n")
    cfg = read_config(get_cfg(), tmp_path / "top.yaml", {})
    assert (cfg.SOLVER.EPOCHS, cfg.SOLVER.GAMMA, cfg.SEED) == (4, 0.5, 2)
    assert cfg.DATA.NAME == "cifar10"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("SOLVER: {EPOCHS: many}", "SOLVER.EPOCHS 'many' must be of type int"),
        ("SOLVER: {EPOCHS: 0.5}", "SOLVER.EPOCHS 0.5 must be of type int"),
        ("SOLVER: {EPOCHS: {A: 1}}", "SOLVER.EPOCHS {'A': 1} must be of type int"),
        ("SOLVER: {AMP: {ENABLED: 1}}", "SOLVER.AMP.ENABLED 1 must be of type bool"),
        ("DATA: {ROOT: 3}", "DATA.ROOT 3 must be of type str"),
        ("DATA: {MEAN: 0.5}", "DATA.MEAN 0.5 must be of type list"),
        ("DATA: {MEAN: 2024-01-01}", "DATA.MEAN datetime.date(2024, 1, 1) must be of type list"),
        ("SOLVER: 3", "SOLVER is a section: give its keys, not 3"),
        ("SOLVER:", "SOLVER is a section: give its keys, not None"),
    ],
)
def test_a_wrong_type_in_a_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(ValueError) as error:
        merge_file(get_cfg(), file)
    assert str(error.value) == f"{file}: {message}"


def test_a_text_stays_a_text_and_a_number_may_be_spelled(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("OUTPUT_DIR: '2024'\nSOLVER: {BASE_LR: 1e-3, WEIGHT_DECAY: 0}\n")
    cfg = read_config(get_cfg(), file, {})  # YAML reads 1e-3 as a text
    assert (cfg.OUTPUT_DIR, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY) == ("2024", 0.001, 0.0)


def test_a_config_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "code.yaml").write_text(f"!!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    with pytest.raises(ValueError, match="code.yaml is not valid YAML"):
        merge_file(get_cfg(), tmp_path / "code.yaml")
    assert not (tmp_path / "made").exists()


def test_values_override_as_they_are(tmp_path: Path) -> None:
    cfg = get_cfg()
    views = [{"IMAGE_SIZE": 96}, {}]
    merge_values(
        cfg,
        {
            "SOLVER": {"EPOCHS": 3, "BASE_LR": 1, "AMP": {"ENABLED": False}},
            "DATA": {"ROOT": tmp_path, "MEAN": (0.1, 0.2, 0.3)},
            "AUGMENT": {"PER_VIEW": views},
            "METHOD.NAME": "intl",  # a dotted key
            "OUTPUT_DIR": "2024",  # stays a string
        },
    )
    assert (cfg.SOLVER.EPOCHS, cfg.SOLVER.AMP.ENABLED) == (3, False)
    assert type(cfg.SOLVER.BASE_LR) is float and cfg.SOLVER.BASE_LR == 1
    assert (str(tmp_path), [0.1, 0.2, 0.3]) == (cfg.DATA.ROOT, cfg.DATA.MEAN)
    assert views == cfg.AUGMENT.PER_VIEW and cfg.AUGMENT.PER_VIEW is not views
    assert (cfg.METHOD.NAME, cfg.OUTPUT_DIR) == ("intl", "2024")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"SOLVR": {"EPOCHS": 3}}, "unknown config key SOLVR; did you mean"),
        ({"SOLVER": {"EPOCH": 3}}, "unknown config key SOLVER.EPOCH; did you mean SOLVER.EPOCHS"),
        ({"SOLVER__EPOCHS": 3}, "unknown config key SOLVER__EPOCHS; did you mean SOLVER.EPOCHS"),
        ({"SOLVER": {"EPOCHS": {"A": 1}}}, "SOLVER.EPOCHS {'A': 1} must be of type int"),
        ({"SOLVER": 3}, "SOLVER is a section: give its keys in a dict, not 3"),
        ({"SOLVER": {"EPOCHS": "3"}}, "SOLVER.EPOCHS '3' must be of type int"),
        ({"DATA": {"ROOT": 3}}, "DATA.ROOT 3 must be of type str"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        merge_values(get_cfg(), values)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_config_that_is_given_stays_as_it_is() -> None:
    given = get_cfg()
    given.SEED = 5
    given.freeze()
    cfg = read_config(get_cfg(), given, {"SOLVER": {"EPOCHS": 3}})
    assert (cfg.SEED, cfg.SOLVER.EPOCHS, cfg.is_frozen()) == (5, 3, False)
    assert given.SOLVER.EPOCHS != 3 and given.is_frozen()
    with pytest.raises(ValueError, match="the config has no AUGMENT.BACKEND: it must be made"):
        read_config(get_cfg(), given.SOLVER, {})
