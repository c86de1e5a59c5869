"""Checkpoints side by side, on images that are drawn here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_pages import check_page, refused
from encoders import make_encoder, own_checkpoint
from images import write_images
from PIL import Image

import cwrgp
from cwrgp.analysis.checkpoints import collect
from cwrgp.commands.analysis_trials import read_trials
from cwrgp.commands.analysis_weights import _named


@pytest.fixture(scope="module")
def checkpoint_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.save(make_encoder(18), folder / "one.pth")
    torch.save(own_checkpoint(18), folder / "two.pth")
    return folder / "one.pth", folder / "two.pth"


@pytest.fixture
def with_twins(tmp_path: Path) -> Path:
    """More images than channels; the first one is there twice."""
    root = tmp_path / "twins"
    write_images(root / "some", 520, side=8)
    with Image.open(root / "some/000.png") as image:
        image.save(root / "some/000_again.png")
    return root


def trials_file(path: Path, aps: dict[str, float]) -> Path:
    arms = {
        name: {"weights": [f"{name}.pth"], "metrics": {"bbox/AP": {"mean": ap, "std": 1.0, "n": 3}}}
        for name, ap in aps.items()
    }
    content = {"protocol": "pascal_voc_R_50_C4_24k", "deviations": ["SEED 3"], "arms": arms}
    path.write_text(json.dumps(content))
    return path


def test_checkpoints_side_by_side(
    checkpoint_files: tuple[Path, Path],
    with_twins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cwrgp.commands.analysis_weights.IMAGE_SIZE", 32)
    monkeypatch.setattr("cwrgp.commands.analysis_weights.RESIZE", 32)
    one, two = checkpoint_files
    output, trials = tmp_path / "out", trials_file(tmp_path / "trials.json", {"one": 40.0})
    results = cwrgp.analyze(
        weights=[one, f"other={two}"], data=with_twins, output=output, trials=trials
    )
    assert results == json.loads((output / "results.json").read_text())
    assert list(results["checkpoints"]) == ["one", "other"]
    record = results["checkpoints"]["one"]
    assert (record["arch"], record["stem"]) == ("resnet18", "imagenet")
    widths = [stage["width"] for stage in record["stages"].values()]
    assert widths == [64, 128, 256, 512]
    spectrum = record["stages"]["layer4"]["spectrum"]
    assert spectrum == sorted(spectrum, reverse=True) and len(spectrum) == 512
    # The nearest neighbour of an image is its copy.
    first = results["images"][results["queries"][0]]
    assert first == "some/000.png"
    for found in results["checkpoints"].values():
        neighbours = found["neighbours"][0]
        assert results["images"][neighbours[0]] == "some/000_again.png"
        assert results["queries"][0] not in neighbours and len(set(neighbours)) == 5
    ap = {"mean": 40.0, "std": 1.0, "n": 3, "arm": "one", "weights": ["one.pth"]}
    assert results["trials"]["ap"] == {"one": ap}
    page = check_page(output)
    assert len(page.images) == 2 * 6 * 6  # checkpoints, queries, and a query with five neighbours
    facts = page.texts["dd"]
    assert "40.0 ± 1.0, 3 trials, arm one: one.pth" in facts
    assert any("pascal_voc_R_50_C4_24k with SEED 3" in fact for fact in facts)
    assert any("32 px" in fact for fact in facts)
    caption = (
        "Too few points to say whether the rank predicts transfer."
        " Bars: the standard deviation over the trials."
    )
    assert page.texts["figcaption"].count(caption) == 2
    assert "1 checkpoint with an AP: too few for a correlation, which needs four." in " ".join(
        page.texts["p"]
    )


def test_damaged_images_are_omitted_and_pairs_are_of_the_whole_list(
    checkpoint_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IMAGE_SIZE", "RESIZE"):
        monkeypatch.setattr(f"cwrgp.commands.analysis_weights.{name}", 32)
    monkeypatch.setattr("cwrgp.commands.analysis_weights.NUM_PAIRS", 8)
    root = tmp_path / "images"
    (root / "a").mkdir(parents=True)
    for number in range(400):  # all views of these are equal
        Image.new("RGB", (8, 8), (40, 40, 40)).save(root / f"a/{number:03d}.png")
    write_images(root / "b", 160, side=8)
    whole = (root / "b/007.png").read_bytes()
    (root / "b/007.png").write_bytes(whole[: len(whole) - 40])
    os.rename(root / "b/159.png", os.fsencode(root) + b"/b/\xff.png")  # not UTF-8
    one, _ = checkpoint_files
    results = cwrgp.analyze(weights=[one], data=root, output=tmp_path / "out")
    assert len(results["images"]) == 559 and "b/007.png" not in results["images"]
    assert list(results["unreadable"]) == [str(root / "b/007.png")]
    assert results["images"][-1] == "b/\\xff.png"
    assert "1 image, omitted" in check_page(tmp_path / "out").texts["dd"]
    indicators = results["checkpoints"]["one"]["stages"]["layer4"]["indicators"]
    assert indicators["alignment"] > 1e-4


def test_trials_name_weights_by_file(
    checkpoint_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = checkpoint_files
    monkeypatch.chdir(one.parent)
    trials_file(tmp_path / "results.json", {"one": 40.0, "two": 30.0})
    found = read_trials(tmp_path, {"renamed": str(one), "another": "./two.pth", "no": "3.pth"})
    assert {name: ap["mean"] for name, ap in found["ap"].items()} == {
        "renamed": 40.0,
        "another": 30.0,
    }


def test_a_file_name_may_have_an_equals_sign(
    checkpoint_files: tuple[Path, Path], tmp_path: Path
) -> None:
    one, _ = checkpoint_files
    odd = tmp_path / "lr=0.03/model=a.pth"
    odd.parent.mkdir()
    odd.symlink_to(one)
    assert _named([str(odd)]) == {"model=a": str(odd)}
    assert _named([f"a={odd}"]) == {"a": str(odd)}


def test_weights_with_features_that_are_not_finite_are_named(
    with_twins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in ("IMAGE_SIZE", "RESIZE"):
        monkeypatch.setattr(f"cwrgp.commands.analysis_weights.{name}", 32)
    encoder = make_encoder(18)
    encoder["layer1.0.bn1.weight"].fill_(3e38)
    torch.save(encoder, tmp_path / "diverged.pth")
    words = ["--weights", f"a={tmp_path}/diverged.pth", "--data", str(with_twins)]
    error = refused([*words, "--output", str(tmp_path / "out")], capsys)
    assert "diverged.pth: the features are not finite, in float32" in error
    assert not (tmp_path / "out").exists()


def test_the_folder_of_the_results_is_checked_first(
    checkpoint_files: tuple[Path, Path], with_twins: Path, tmp_path: Path, capsys: Any
) -> None:
    one, _ = checkpoint_files
    (tmp_path / "file").write_text("")
    for more in (["--weights", str(one)], ["--experiment", "groups"]):

        def error(output: Path, more: list[str] = more) -> str:
            return refused(["--data", str(with_twins), "--output", str(output), *more], capsys)

        assert f"{tmp_path}/file is a file" in error(tmp_path / "file/out")
        for inside in (with_twins, with_twins / "out"):
            assert f"--output {inside} lies in the folder of the images" in error(inside)
    words = ["--experiment", "groups", "--data", "d", "SOLVER.EPOCHS", "1", "--output", "out"]
    assert "--output must come before the KEY VALUE pairs" in refused(words, capsys)


def test_rank_and_ap_are_correlated() -> None:
    def record(rank: float) -> dict[str, Any]:
        values = {"rankme": rank, "effective_rank": -rank}
        return {"stages": {"layer4": {"indicators": values}}}

    records = {name: record(rank) for name, rank in zip("abcd", (1, 2, 3, 4), strict=True)}
    aps = {name: {"mean": ap} for name, ap in zip("abcd", (10, 30, 20, 40), strict=True)}
    arguments: dict[str, Any] = {"data": "x", "images": [], "unreadable": {}, "queries": []}
    found = collect(records, trials={"ap": aps}, **arguments)["trials"]["correlation"]
    assert found == {"rankme": pytest.approx(0.8), "effective_rank": pytest.approx(-0.8)}
    equal = {"ap": {name: {"mean": 10} for name in "abcd"}}
    found = collect(records, trials=equal, **arguments)["trials"]["correlation"]
    assert found == {"rankme": None, "effective_rank": None}


def test_weights_that_cannot_be_analysed_are_refused(
    checkpoint_files: tuple[Path, Path], with_twins: Path, tmp_path: Path, capsys: Any
) -> None:
    one, two = checkpoint_files

    def error(*weights: object, data: Path = with_twins, trials: Path | None = None) -> str:
        more = [] if trials is None else ["--trials", trials]
        words = ["--data", data, "--output", tmp_path / "out", *more, "--weights", *weights]
        return refused([str(word) for word in words], capsys)

    torch.save({"linear.weight": torch.ones(2, 2)}, tmp_path / "none.pth")
    assert "none.pth" in error(tmp_path / "none.pth") and not (tmp_path / "out").exists()
    assert "missing.pth" in error(tmp_path / "missing.pth")
    assert "the name 'one' is given twice; use NAME=FILE" in error(one, f"one={two}")
    for word in (f"={one}", "one="):
        assert f"--weights '{word}': write NAME=FILE, or FILE alone" in error(word)
    write_images(tmp_path / "few", 30, side=8)
    assert "few has 30 images that can be read; the spectrum of one, with 512 channels" in error(
        one, data=tmp_path / "few"
    )
    (tmp_path / "few/000.png").write_bytes(b"")
    assert "few has 29 images that can be read (1 cannot; the first is " in error(
        one, data=tmp_path / "few"
    )
    (tmp_path / "bad.json").write_text("[]")
    assert "bad.json is not a results.json of cwrgp-trials" in error(
        one, trials=tmp_path / "bad.json"
    )
    (tmp_path / "empty").mkdir()
    assert "empty/results.json: no such file" in error(one, trials=tmp_path / "empty")
    other = trials_file(tmp_path / "other.json", {"moco": 40.0})
    assert "has no box AP of one; its arms are moco" in error(one, trials=other)
    words = ["--data", str(with_twins), "--output", str(tmp_path / "out")]
    assert "weights or an experiment is needed: whitening, penalty" in refused(words, capsys)
    assert "trains its own weights; omit one of the two" in refused(
        [*words, "--experiment", "groups", "--weights", str(one)], capsys
    )
    with pytest.raises(ValueError, match=r"trials 'a.json' belongs to weights"):
        cwrgp.analyze(experiment="groups", data=with_twins, output=tmp_path, trials="a.json")
    assert "nowhere.json: no such file" in error(one, trials=tmp_path / "nowhere.json")
    for option in (["--seeds", "3"], ["--jobs", "2"], ["--restart"], ["--config-file", "a.yaml"]):
        text = refused([*words, *option, "--weights", str(one)], capsys)
        assert option[0].removeprefix("--").partition("-")[0] in text
        assert "belongs to an experiment: omit it with" in text
    for more in ({"SOLVER": {"EPOCHS": 3}}, {"seeds": 2}, {"restart": True}):
        with pytest.raises(ValueError, match="belongs to an experiment: omit it with weights"):
            cwrgp.analyze(weights=one, data=with_twins, output=tmp_path, **more)
    with pytest.raises(ValueError, match="experiment 'nothing' is unknown"):
        cwrgp.analyze(experiment="nothing", data=with_twins, output=tmp_path)
