"""Two runs on the same images: AP under weights, the bootstrap, and the sentence."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_detections import detections, voc_detections, write_coco

import d2_transfer
from d2_transfer.commands import score as command
from d2_transfer.data.spec import parse_spec
from d2_transfer.scoring.coco import with_runs
from d2_transfer.scoring.matches import AREAS, coco_matches
from d2_transfer.scoring.results import check_results
from d2_transfer.scoring.truth import load_truth
from d2_transfer.scoring.voc import voc_arrays, voc_matches, voc_scores
from d2_transfer.scoring.weighted import class_aps, resampled_weights

KINDS = ("bbox", "segm")


def percent(aps: np.ndarray) -> float:
    return float(100 * np.nanmean(aps))


def test_equal_weights_give_cocos_ap(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    found = detections(data)
    expected = d2_transfer.score(data, found, KINDS, backend="pycocotools")
    truth = load_truth(parse_spec(data), masks=True)
    entries = with_runs(truth, check_results(truth, found, "results", masks=True))
    once = np.ones((1, 40))
    for kind in KINDS:
        for area, metric in zip(AREAS, ("AP", "APs", "APm", "APl"), strict=True):
            aps = class_aps(coco_matches(truth, entries, kind, area), once, "coco")
            assert aps.shape == (1, 4, 10)
            if metric == "APl":  # no object is that large
                assert expected[kind][metric] is None and np.isnan(aps).all()
                continue
            assert percent(aps) == pytest.approx(expected[kind][metric], abs=1e-9)
            if area == "all":
                assert percent(aps[..., 0]) == pytest.approx(expected[kind]["AP50"], abs=1e-9)
                assert percent(aps[..., 5]) == pytest.approx(expected[kind]["AP75"], abs=1e-9)
                for number, ap in enumerate(expected[kind]["per_class"].values()):
                    values = aps[0, number]
                    if ap is None:
                        assert np.isnan(values).all()
                    else:
                        assert percent(values) == pytest.approx(ap, abs=1e-9)


def repeated_coco(
    content: dict[str, Any], found: list[dict[str, Any]], weights: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data set with each image as often as it weighs, and the detections on all copies."""
    images, annotations, entries = [], [], []
    for image, times in zip(content["images"], weights, strict=True):
        for copied in range(int(times)):
            number = 100 * image["id"] + copied
            images.append({**image, "id": number, "file_name": f"{number}.jpg"})
            for thing in content["annotations"]:
                if thing["image_id"] == image["id"]:
                    more = {"id": len(annotations) + 1, "image_id": number}
                    annotations.append({**thing, **more})
            entries += [
                {**entry, "image_id": number} for entry in found if entry["image_id"] == image["id"]
            ]
    return {**content, "images": images, "annotations": annotations}, entries


def test_weights_are_images_that_are_repeated(tmp_path: Path) -> None:
    """By brute force: COCO's metric on a data set that holds the images so many times."""
    data = write_coco(tmp_path)
    content = json.loads((tmp_path / "truth.json").read_text())
    # Equal scores in one image alternate with those of its copies there, but not here.
    found = [
        {**entry, "score": entry["score"] + n / 1e5} for n, entry in enumerate(detections(data))
    ]
    truth = load_truth(parse_spec(data), masks=True)
    entries = with_runs(truth, check_results(truth, found, "results", masks=True))
    weights = resampled_weights(40, 3, np.random.default_rng(0))
    assert weights.sum(axis=1).tolist() == [40] * 3 and weights.max() > 2 and weights.min() == 0
    for kind in KINDS:
        aps = class_aps(coco_matches(truth, entries, kind), weights, "coco")
        for of_resample, drawn in zip(aps, weights, strict=True):
            again, copies = repeated_coco(copy.deepcopy(content), found, drawn)
            (tmp_path / "again.json").write_text(json.dumps(again))
            expected = d2_transfer.score(
                f"coco:{tmp_path / 'again.json'}", copies, (kind,), backend="pycocotools"
            )
            assert percent(of_resample) == pytest.approx(expected[kind]["AP"], abs=1e-9)


@pytest.mark.parametrize("protocol", ["voc07", "voc10"])
def test_weights_of_voc_images_are_images_that_are_repeated(own_scenes: Any, protocol: str) -> None:
    root = own_scenes.root
    path = root / "Annotations" / "000001.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    truth = load_truth(parse_spec(f"voc:{root}:all"))
    found = check_results(truth, voc_detections(root, 0), "results", masks=False)
    # Only copies of a detection tie: other ties fall as NumPy's sort likes.
    found = [{**entry, "score": n / 1000} for n, entry in enumerate(found)]
    assert truth.voc is not None
    matches = voc_matches(truth.voc, truth.classes, **voc_arrays(found))
    weights = np.array([[1, 1, 1, 1, 1, 1], [0, 2, 0, 1, 2, 1], [3, 0, 1, 0, 0, 2]], dtype=float)
    aps = class_aps(matches, weights, protocol)
    for of_resample, drawn in zip(aps, weights, strict=True):
        copies, entries = [], []
        for number, times in enumerate(drawn, start=1):
            for _ in range(int(times)):
                copies.append(truth.voc[number - 1])
                entries += [
                    {**entry, "image_id": len(copies)}
                    for entry in found
                    if entry["image_id"] == number
                ]
        expected = voc_scores(copies, truth.classes, **voc_arrays(entries))[protocol]
        assert percent(of_resample) == pytest.approx(expected["AP"], abs=1e-9)


def test_the_difference_is_that_of_the_scores(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    a, b = detections(data, 1), detections(data, 2)
    found = d2_transfer.compare(data, a, b, KINDS, areas=True, resamples=50)
    back = d2_transfer.compare(data, b, a, KINDS, areas=True, resamples=50)
    first, second = (d2_transfer.score(data, results, KINDS) for results in (a, b))
    assert found["images"] == 40 and found["protocol"] == "coco"
    for kind in KINDS:
        assert found["first"][kind].keys() == first[kind].keys()
        assert found["difference"][kind]["APl"] is None  # no object is that large
        for metric in ("AP", "AP50", "AP75", "APs", "APm"):
            change, reverse = found["difference"][kind][metric], back["difference"][kind][metric]
            expected = second[kind][metric] - first[kind][metric]
            assert found["first"][kind][metric] == pytest.approx(first[kind][metric], abs=1e-9)
            assert change["value"] == pytest.approx(expected, abs=1e-9)
            assert change["low"] < change["value"] < change["high"]
            assert change["low"] == pytest.approx(-reverse["high"], abs=1e-9)
        assert found["difference"][kind]["per_class"]["none"] is None


def test_the_standard_error_is_that_of_fresh_images(tmp_path: Path) -> None:
    """The bootstrap on one data set gives the spread of the difference over many data sets."""
    differences, errors = [], []
    for seed in range(60):
        data = write_coco(tmp_path, seed=seed)
        both = detections(data, seed), detections(data, 1000 + seed)
        found = d2_transfer.compare(data, *both, resamples=100)
        change = found["difference"]["bbox"]["AP50"]
        differences.append(change["value"])
        errors.append((change["high"] - change["low"]) / 2 / 1.96)
    # The spread of 60 values is known to 9 %; AP on 40 images is not linear in the images.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(differences), rel=0.3)


def test_equal_results_have_no_interval(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    found = d2_transfer.compare(data, detections(data), detections(data))
    assert found["verdict"] == "identical runs"
    change = found["difference"]["bbox"]["AP"]
    assert change == {"value": 0.0, "low": None, "high": None}


def one_class(folder: Path, images: list[int]) -> tuple[str, list[dict[str, Any]]]:
    """A data set of 5 images with an object in each of ``images``; and its objects as results."""
    names = ("image_id", "category_id", "bbox")
    things = [(image, 1, [10 + 50 * n % 150, 10, 40, 40]) for n, image in enumerate(images)]
    objects: list[dict[str, Any]] = [dict(zip(names, thing, strict=True)) for thing in things]
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(1, 6)],
        "annotations": [{"id": n, "iscrowd": 0, **o} for n, o in enumerate(objects, start=1)],
        "categories": [{"id": 1, "name": "a"}],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return f"coco:{folder / 'truth.json'}", [{**o, "score": 0.9} for o in objects]


def test_resamples_that_do_not_differ_give_no_interval(tmp_path: Path) -> None:
    """All objects are in one image: a narrow interval would claim what one image cannot show."""
    data, found = one_class(tmp_path, [2, 2, 2])
    comparison = d2_transfer.compare(data, found[:1], found)
    change = comparison["difference"]["bbox"]["AP"]
    assert change == {"value": pytest.approx(100 * 67 / 101), "low": None, "high": None}
    assert comparison["verdict"].endswith(
        "the second has 66.3 more box AP, but all resamples give the same, so these images show no"
        " interval"
    )


def test_other_scores_in_the_same_order_are_the_same(tmp_path: Path) -> None:
    data, found = one_class(tmp_path, [1, 2, 3, 4])
    comparison = d2_transfer.compare(data, found, [{**entry, "score": 0.1} for entry in found])
    assert comparison["verdict"].endswith(": box AP is the same, in every resample too")
    assert comparison["difference"]["bbox"]["AP"] == {"value": 0.0, "low": None, "high": None}


def perfect(data: str) -> list[dict[str, Any]]:
    content = json.loads(Path(data.removeprefix("coco:")).read_text())
    return [
        {**{key: thing[key] for key in ("image_id", "category_id", "bbox")}, "score": 1.0}
        for thing in content["annotations"]
        if not thing["iscrowd"]
    ]


def test_the_sentence_names_the_better_run(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    good, bad = perfect(data), detections(data)
    found = d2_transfer.compare(data, bad, good)
    value = found["difference"]["bbox"]["AP"]["value"]
    low, high = (found["difference"]["bbox"]["AP"][end] for end in ("low", "high"))
    sentence = f"better by {value:.1f} box AP, 95 % interval {low:.1f} to {high:.1f}"
    assert found["verdict"] == f"these two runs, on 40 images: the second is {sentence}"
    reverse = d2_transfer.compare(data, good, bad)["verdict"]
    assert reverse == f"these two runs, on 40 images: the first is {sentence}"


def test_noise_is_called_so(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    found = d2_transfer.compare(data, detections(data, 1), detections(data, 1)[:-1], KINDS)
    box, mask = found["verdict"].split("; no difference")
    assert "no difference in box AP is shown" in box and "joint 95 % interval" in box
    assert "in mask AP is shown" in mask and "or more with 80 % power" in mask
    # The joint interval of two metrics is wider than each alone.
    alone = d2_transfer.compare(data, detections(data, 1), detections(data, 1)[:-1])
    one, both = (c["difference"]["bbox"]["AP"] for c in (alone, found))
    ratio = (both["high"] - both["low"]) / (one["high"] - one["low"])
    assert ratio == pytest.approx(2.2414 / 1.95996, rel=1e-4)
    assert both["value"] == one["value"]


def test_voc_data_are_compared_by_their_own_protocol(scenes: Any) -> None:
    data = f"voc:{scenes.root}:all"
    a, b = voc_detections(scenes.root, 0), voc_detections(scenes.root, 1)
    found = d2_transfer.compare(data, a, b)
    scores = [d2_transfer.score(data, results)["voc07"] for results in (a, b)]
    assert found["protocol"] == "voc07"
    assert found["second"]["bbox"]["AP50"] == pytest.approx(scores[1]["AP50"], abs=1e-9)
    change = found["difference"]["bbox"]["AP"]
    assert change["value"] == pytest.approx(scores[1]["AP"] - scores[0]["AP"], abs=1e-9)
    with pytest.raises(ValueError, match="scored by voc07, which has no areas; omit areas"):
        d2_transfer.compare(data, a, b, areas=True)


def test_no_detections_are_compared(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    found = d2_transfer.compare(data, [], perfect(data), resamples=20)
    assert found["first"]["bbox"]["AP"] == 0
    assert found["difference"]["bbox"]["AP"]["value"] == pytest.approx(100)
    with pytest.raises(ValueError, match="resamples 1 is below 2"):
        d2_transfer.compare(data, [], [], resamples=1)


def test_the_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_coco(tmp_path)
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for seed, file in enumerate(files):
        Path(file).write_text(json.dumps(detections(data, seed)))
    assert command.main([data, *files, "--masks", "--json", "--resamples", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == d2_transfer.compare(data, *files, KINDS, resamples=20)
    assert not math.isnan(found["difference"]["segm"]["AP"]["low"])
    assert command.main([data, *files, "--resamples", "20"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("these two runs, on 40 images: ") and "| none    | -" in text
    assert command.main([data, files[0], "--areas"]) == 2
    assert capsys.readouterr().err.endswith("compare two files; give a SECOND.json\n")
    assert command.main([data, *files, "--backend", "pycocotools"]) == 2
    assert "does not compare two files; omit it" in capsys.readouterr().err
