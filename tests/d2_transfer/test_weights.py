"""Which files may fill a detector: matching as Detectron2 does it, and every way to be refused."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from encoders import authors_checkpoint, make_encoder, own_checkpoint
from repository import REPOSITORY
from torch import Tensor

from cwrgp.checkpoints.pixel_statistics import IMAGENET
from d2_transfer.config import get_cfg
from d2_transfer.conversion import SUFFIXES, convert_file, to_detectron2
from d2_transfer.weights import (
    check_weights,
    check_weights_for,
    describe,
    detector_state,
    match_names,
    read_weights,
)

CIFAR = "DATA: {MEAN: [0.4914, 0.4822, 0.4465], STD: [0.2023, 0.1994, 0.201]}"
C4 = "configs/quick/detection_faster_rcnn_r18_c4.yaml"
FPN = "configs/quick/detection_mask_rcnn_r18.yaml"


def config(file: str, depth: int = 18) -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(str(REPOSITORY / file))
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    return cfg


@pytest.fixture(scope="module")
def converted() -> dict[str, Tensor]:
    state = to_detectron2(make_encoder(18))
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def backbone_file(tensors: dict[str, Any]) -> dict[str, Any]:
    return {"model": tensors, "matching_heuristics": True}


@pytest.mark.parametrize("file", [C4, FPN])
def test_names_are_matched_as_detectron2_matches_them(
    file: str, converted: dict[str, Tensor]
) -> None:
    model = detector_state(config(file))
    # In an FPN's backbone the longer of two endings wins, in C4 the longer one fits nowhere.
    longer = {"bottom_up.stem.conv1.weight": torch.ones(64, 3, 7, 7)}
    tensors = {**converted, **longer, "unused.weight": torch.ones(1)}
    upstream = align_and_update_state_dicts(model, dict(tensors), c2_conversion=False)
    ours = match_names(model, tensors, heuristics=True)
    found = {name: key for name, key in ours.items() if tensors[key].shape == model[name].shape}
    assert {name for name in upstream if name in model} == set(found)
    assert all(upstream[name] is tensors[key] for name, key in found.items())


def test_without_heuristics_names_must_be_equal() -> None:
    assert match_names(["a.b.c", "b.c"], ["b.c"], heuristics=False) == {"b.c": "b.c"}
    assert match_names(["a.b.c", "xb.c"], ["b.c"], heuristics=True) == {"a.b.c": "b.c"}
    assert match_names(["a.b.c"], ["c", "b.c"], heuristics=True) == {"a.b.c": "b.c"}


@pytest.mark.parametrize(
    ("file", "new"),
    [
        (C4, {"proposal_generator.rpn_head", "roi_heads.box_predictor", "roi_heads.res5"}),
        (
            FPN,
            {f"backbone.fpn_{kind}{level}" for kind in ("lateral", "output") for level in "2345"}
            | {"proposal_generator.rpn_head"}
            | {f"roi_heads.{part}" for part in ("box_head", "box_predictor", "mask_head")},
        ),
    ],
)
def test_a_converted_file_fills_the_backbone(
    file: str, new: set[str], converted: dict[str, Tensor]
) -> None:
    names = check_weights(backbone_file(converted), detector_state(config(file)), "x.pkl")
    assert {".".join(name.split(".")[:2]) for name in names} == new
    res5 = [name for name in names if name.startswith("roi_heads.res5.")]
    assert all(name.startswith("roi_heads.res5.norm.") for name in res5)


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {k: v for k, v in tensors.items() if k != key}


def with_(**more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {**tensors, **{k.replace("__", "."): v for k, v in more.items()}}


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "one tensor missing": (
        without("res3.0.shortcut.norm.running_var"),
        r"fills 99 of 100 tensors of the backbone; 1 are missing:"
        r" 'backbone.res3.0.shortcut.norm.running_var'",
    ),
    "res5 missing": (
        lambda t: {k: v for k, v in t.items() if not k.startswith("res5.")},
        "fills 75 of 100 tensors .* 'roi_heads.res5.0.shortcut.weight'",
    ),
    "another shape": (
        with_(res2__0__conv1__weight=torch.ones(64, 64, 1, 1)),
        r"'res2.0.conv1.weight' has shape \(64, 64, 1, 1\), but 'backbone.res2.0.conv1.weight' of",
    ),
    "a block too many": (
        with_(res4__2__conv1__weight=torch.ones(256, 256, 3, 3)),
        "holds 1 tensors of a backbone that the model does not have: 'res4.2.conv1.weight'",
    ),
    "nothing fits": (
        lambda t: {f"x.{k}x": v for k, v in t.items()},
        "none of its 100 tensors belongs to the model; it holds 'x.stem.conv1.weightx'",
    ),
    "empty": (lambda t: {}, "none of its 0 tensors belongs to the model; it holds no tensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_by_name(fault: str, converted: dict[str, Tensor]) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message) as error:
        check_weights(backbone_file(change(converted)), detector_state(config(C4)), "x.pkl")
    assert str(error.value).startswith("x.pkl")
    assert "\n" not in str(error.value)


def test_an_ambiguous_name_is_refused(converted: dict[str, Tensor]) -> None:
    weights = backbone_file({**converted, "norm.weight": torch.ones(64)})
    with pytest.raises(
        ValueError, match="'norm.weight' fits several .* 'backbone.fpn_lateral2.norm"
    ):
        check_weights(weights, detector_state(config(FPN)), "x.pkl")


@pytest.mark.parametrize(
    ("in_file", "in_model", "message"),
    [
        (18, 34, "fills 100 of 180 tensors of the backbone"),
        (34, 18, "holds 80 tensors of a backbone that the model does not have"),
        (50, 101, "fills 265 of 520 tensors"),
        (50, 18, "has shape .* is|does the config describe"),
    ],
)
def test_another_depth_is_refused(in_file: int, in_model: int, message: str) -> None:
    tensors = to_detectron2(make_encoder(in_file))
    with pytest.raises(ValueError, match=message):
        check_weights(backbone_file(tensors), detector_state(config(FPN, in_model)), "x.pkl")


@pytest.mark.parametrize("layout", ["torchvision", "authors", "heuristics"])
def test_an_unconverted_file_is_refused_with_the_command(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "raw.pth"
    content: Any = make_encoder(18)
    if layout == "authors":
        content = authors_checkpoint(18)
    elif layout == "heuristics":
        content = backbone_file(content)
    torch.save(content, path)
    command = rf"run cwrgp-convert {path} OUTPUT.pkl"
    with pytest.raises(ValueError, match=rf"not converted .*layer1.0.conv1.weight'\): {command}"):
        check_weights_for(config(C4), str(path))


def test_a_whole_detector_must_be_filled_where_asked(converted: dict[str, Tensor]) -> None:
    model = detector_state(config(C4))
    whole = {k: torch.zeros(v.shape) for k, v in model.items() if "num_batches_tracked" not in k}
    assert check_weights({"model": whole}, model, "x.pth", complete=True) == []
    with pytest.raises(ValueError, match=r"x.pth fills 100 of 114 tensors of the model"):
        check_weights(backbone_file(converted), model, "x.pth", complete=True)
    # Another number of classes: right for fine-tuning, wrong for evaluation.
    whole["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(21, 512)
    new = check_weights({"model": whole}, model, "x.pth")
    assert new == ["roi_heads.box_predictor.cls_score.weight"]
    with pytest.raises(ValueError, match=r"cls_score.weight' has shape \(21, 512\), .*NUM_CLASSES"):
        check_weights({"model": whole}, model, "x.pth", complete=True)


@pytest.fixture(scope="module")
def encoder_50(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A converted ResNet-50."""
    folder = tmp_path_factory.mktemp("encoder_50")
    torch.save(make_encoder(50), folder / "in.pth")
    convert_file(folder / "in.pth", folder / "out.pth")
    return str(folder / "out.pth")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.FORMAT", "BGR", "INPUT.FORMAT BGR; set INPUT.FORMAT RGB$"),
        (
            "MODEL.PIXEL_STD",
            [1.0, 1.0, 1.0],
            r"was not pretrained with MODEL.PIXEL_MEAN \[123.675, 116.28, 103.53\] MODEL.PIXEL_STD"
            r" \[1.0, 1.0, 1.0\]; set MODEL.PIXEL_MEAN \"\[123.675, 116.28, 103.53\]\""
            r" MODEL.PIXEL_STD \"\[58.395, 57.12, 57.375\]\"$",
        ),
        ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675], "set MODEL.PIXEL_MEAN .* MODEL.PIXEL_STD"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", True, "True; set MODEL.RESNETS.STRIDE_IN_1X1 False"),
    ],
)
def test_an_input_that_the_encoder_was_not_trained_on_is_refused(
    encoder_50: str, key: str, value: Any, message: str
) -> None:
    cfg = config("configs/detection/pascal_voc_R_50_C4_24k.yaml", 50)
    check_weights_for(cfg, encoder_50)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        check_weights_for(cfg, encoder_50)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_encoder_with_other_pixel_values_is_refused_and_the_options_help(
    tmp_path: Path, suffix: str
) -> None:
    source, output = tmp_path / "in.pth", tmp_path / f"out{suffix}"
    torch.save({**own_checkpoint(18), "config": CIFAR}, source)
    convert_file(source, output)
    cfg = config(C4)
    with pytest.raises(ValueError, match=r"; set MODEL.PIXEL_MEAN \"\[125.307, ") as error:
        check_weights_for(cfg, str(output))
    cfg.merge_from_list(shlex.split(str(error.value).partition("; set ")[2]))
    assert cfg.MODEL.PIXEL_STD == [51.5865, 50.847, 51.255]
    check_weights_for(cfg, str(output))
    convert_file(source, output, pixels=IMAGENET)  # overrides what the file states
    check_weights_for(config(C4), str(output))


def test_an_encoder_with_unknown_pixel_values_takes_any_but_those_of_the_unit_range(
    encoder_file: Path,
) -> None:
    cfg = config(C4)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [100.0, 100.0, 100.0], [50.0, 50.0, 50.0]
    check_weights_for(cfg, str(encoder_file))
    cfg.MODEL.PIXEL_STD = [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match=r"\[1.0, 1.0, 1.0\]; set .* \"\[58.395, 57.12, 57.375"):
        check_weights_for(cfg, str(encoder_file))


def test_a_config_that_describes_no_detector() -> None:
    cfg = config(FPN)
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res7"]
    with pytest.raises(ValueError, match="MODEL describes no detector: .*res7"):
        check_weights_for(cfg, "")


def test_a_missing_file_is_named_with_its_key() -> None:
    with pytest.raises(FileNotFoundError, match="MODEL.WEIGHTS /nowhere.pkl: no such file"):
        check_weights_for(config(C4), "/nowhere.pkl")


def test_reading_keeps_what_lies_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.ones(1)}, "iteration": 3}, path)
    assert read_weights(str(path))["iteration"] == 3
    torch.save({"state_dict": {"a": torch.ones(1)}}, path)
    assert set(read_weights(str(path))["model"]) == {"a"}
    torch.save({"a": torch.ones(1)}, path)
    assert set(read_weights(str(path))["model"]) == {"a"}


def test_description() -> None:
    assert describe(["a.b.c", "a.b.d", "e.f"]) == "a.b (2), e.f (1)"
