"""cwrgp-predict and `d2_transfer.predict`: a run's own evaluation is the oracle."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
import yaml
from PIL import Image

import d2_transfer
from d2_transfer.commands.predict import main
from d2_transfer.data.load import load_annotated
from d2_transfer.data.spec import CocoSpec

MASK_RCNN = "quick/detection_mask_rcnn_r18.yaml"

pytestmark = [
    # Detectron2's own, on this stack.
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scenes: Any) -> Path:
    """A Mask R-CNN after one iteration; its scores are far above the threshold of 0.05."""
    names = ("predict",)
    trained = d2_transfer.train(
        MASK_RCNN,
        weights="",
        output_dir=tmp_path_factory.mktemp("run"),
        num_gpus=0,
        SEED=0,
        DATASETS={"CUSTOM": [scenes.coco("predict")], "TRAIN": names, "TEST": names},
        SOLVER={"MAX_ITER": 1, "STEPS": (), "IMS_PER_BATCH": 2, "AMP": {"ENABLED": False}},
        INPUT={"MIN_SIZE_TRAIN": (64,), "MIN_SIZE_TEST": 80},
        TEST={"PRECISE_BN": {"NUM_ITER": 1}, "DETECTIONS_PER_IMAGE": 5},
        MODEL={"RPN": {"POST_NMS_TOPK_TEST": 20}},
    )
    return trained.output_dir


def evaluated(run: Path) -> dict[int, list[dict[str, Any]]]:
    """What the evaluation of the run found: image id -> detections."""
    entries = json.loads((run / "inference/predict/coco_instances_results.json").read_text())
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        found.setdefault(entry["image_id"], []).append(entry)
    return found


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predictions_are_those_of_the_evaluation(run: Path, scenes: Any, batch_size: int) -> None:
    found = d2_transfer.predict(run, scenes.root / "JPEGImages", batch_size=batch_size)
    expected = evaluated(run)
    assert found.classes == ("square", "bar") and len(found.images) == 6
    assert sum(len(entries) for entries in expected.values()) > 6
    filled = 0
    for image in found.images:
        entries = expected[int(image.file.stem) + 1]
        assert image.masks is not None and len(image.masks) == len(image.boxes) == len(entries)
        assert image.boxes.dtype == np.float32 and (image.width, image.height) == (64, 64)
        x0, y0, x1, y1 = image.boxes.T
        boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
        np.testing.assert_allclose(boxes, [e["bbox"] for e in entries], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(image.scores, [e["score"] for e in entries], rtol=1e-4)
        assert [10 * (number + 1) for number in image.classes] == [
            entry["category_id"] for entry in entries
        ]
        theirs = [entry["segmentation"] for entry in entries]
        union = pycocotools.mask.area(image.masks) + pycocotools.mask.area(theirs)
        overlap = np.diag(pycocotools.mask.iou(image.masks, theirs, [0] * len(entries)))
        assert ((overlap > 0.98) | (union == 0)).all()  # a mask may be empty
        filled += int((union > 0).sum())
    assert filled > 0


def test_the_command_writes_a_data_set_and_pictures(
    run: Path, own_scenes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = own_scenes.root / "JPEGImages"
    (images / "more").mkdir()
    shutil.move(images / "000003.png", images / "more" / "000003.tif.png")
    with Image.open(images / "000004.png") as image:
        image.save(images / "more" / "turned.tif")
    (images / "000004.png").write_bytes((images / "000005.png").read_bytes()[:200])
    output = tmp_path / "out"
    files = [str(images), str(images / "*.png"), str(images / "000000.png")]
    assert main([str(run / "config.yaml"), *files, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    content = json.loads((output / "predictions.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    assert names == [
        *(f"{number:06d}.png" for number in (0, 1, 2, 5)),
        *("more/000003.tif.png", "more/turned.tif"),
    ]
    drawn = sorted(str(path.relative_to(output)) for path in (output / "pictures").rglob("*.png"))
    assert drawn == [f"pictures/{name}" for name in names[:-1]] + ["pictures/more/turned.tif.png"]
    name, _, problem = (output / "unreadable.txt").read_text().rstrip("\n").partition("\t")
    assert name == str(images / "000004.png") and problem.startswith("damaged")
    number = len(content["annotations"])
    assert printed.startswith(f"6 images, {number} detections, ")
    assert f"Written: coco:{output / 'predictions.json'}:{images}\n1 images cannot be" in printed
    assert [category["name"] for category in content["categories"]] == ["square", "bar"]
    loaded = load_annotated(CocoSpec(output / "predictions.json", images), masks=True)
    assert loaded.data.num_things == number and len(loaded.data.images) == 6
    for annotation in content["annotations"]:
        assert annotation["area"] == pycocotools.mask.area(annotation["segmentation"])
        assert 0.05 <= annotation["score"] <= 1
    # Without unreadable images, the list of an earlier call is not left there.
    one = [str(run), str(images / "000000.png"), "--output", str(output), "--no-pictures"]
    assert main(one) == 0 and not (output / "unreadable.txt").exists()


def test_an_image_too_narrow_to_be_resized_is_unreadable(
    run: Path, scenes: Any, tmp_path: Path
) -> None:
    Image.new("RGB", (4000, 1)).save(tmp_path / "a.png")
    found = d2_transfer.predict(run, [scenes.root / "JPEGImages/000000.png", tmp_path / "a.png"])
    assert found.unreadable == {str(tmp_path / "a.png"): "too narrow (4000 x 1 pixels)"}


def test_the_threshold_and_that_of_the_pictures(run: Path, scenes: Any, tmp_path: Path) -> None:
    file = scenes.root / "JPEGImages" / "000000.png"
    everything = d2_transfer.predict(run, file).images[0]
    middle = float(np.median(everything.scores))
    chosen = d2_transfer.predict(run, file, threshold=middle).images[0]
    assert 0 < len(chosen.scores) < len(everything.scores) and chosen.scores.min() > middle
    with Image.open(file) as image:
        plain = np.asarray(image.convert("RGB"))
    for threshold, changed in ((0.0, True), (1.0, False)):
        d2_transfer.predict(run, file, output=tmp_path, picture_threshold=threshold)
        with Image.open(tmp_path / "pictures" / file.name) as picture:
            assert np.array_equal(np.asarray(picture), plain) != changed


def test_an_image_is_turned_as_in_training(run: Path, scenes: Any, tmp_path: Path) -> None:
    with Image.open(scenes.root / "JPEGImages" / "000001.png") as image:
        upright = image.convert("RGB").resize((64, 40))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn to the right
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "tagged.png", exif=exif)
    files = [tmp_path / "upright.png", tmp_path / "tagged.png"]
    expected, found = d2_transfer.predict(run, files).images
    assert (found.width, found.height) == (expected.width, expected.height) == (64, 40)
    assert np.array_equal(found.boxes, expected.boxes) and len(found.boxes)


def test_a_dark_camera_needs_a_range_of_values(run: Path, scenes: Any, tmp_path: Path) -> None:
    with Image.open(scenes.root / "JPEGImages" / "000000.png") as image:
        gray = np.asarray(image.convert("L"))
    Image.fromarray(gray).save(tmp_path / "eight.png")
    Image.fromarray(gray.astype(np.uint16) * 16).save(tmp_path / "twelve.png")
    with pytest.raises(ValueError, match="nearly black; set INPUT.PIXEL_RANGE"):
        d2_transfer.predict(run, tmp_path)
    eight, twelve = d2_transfer.predict(run, tmp_path, INPUT={"PIXEL_RANGE": [0, 4080]}).images
    np.testing.assert_allclose(twelve.boxes, eight.boxes, atol=1e-3)


def test_a_run_is_a_folder_that_was_moved_or_one_of_its_checkpoints(
    run: Path, scenes: Any, tmp_path: Path
) -> None:
    file = scenes.root / "JPEGImages" / "000000.png"
    moved = tmp_path / "a run"
    moved.mkdir()
    for name in ("config.yaml", "model_final.pth"):
        shutil.copy(run / name, moved)
    expected = d2_transfer.predict(run, file).images[0]
    for given in (moved, moved / "model_final.pth"):
        found = d2_transfer.predict(given, file)
        assert found.classes == ("square", "bar")
        assert np.array_equal(found.images[0].boxes, expected.boxes)
    (moved / "model_final.pth").rename(moved / "model_0000000.pth")  # it is still training
    assert np.array_equal(d2_transfer.predict(moved, file).images[0].boxes, expected.boxes)
    (moved / "model_0000000.pth").unlink()
    with (
        pytest.warns(UserWarning, match="a run holds no checkpoint yet; MODEL.WEIGHTS of its conf"),
        pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"),
    ):
        d2_transfer.predict(moved, file)


def test_the_classes_are_those_of_the_weights(run: Path, scenes: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["DATASETS"]["CLASSES"] = ["bar", "square"]
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    file, weights = scenes.root / "JPEGImages" / "000000.png", run / "model_final.pth"
    assert d2_transfer.predict(other, file, weights=weights).classes == ("square", "bar")
    renamed = {"CLASSES": ["Quadrat", "Balken"]}
    found = d2_transfer.predict(other, file, weights=weights, DATASETS=renamed)
    assert found.classes == ("Quadrat", "Balken")


def test_pictures_never_replace_images(run: Path, scenes: Any, tmp_path: Path) -> None:
    photos = tmp_path / "pictures"
    photos.mkdir()
    shutil.copy(scenes.root / "JPEGImages" / "000000.png", photos)
    content = (photos / "000000.png").read_bytes()
    (tmp_path / "link").symlink_to(photos)
    for images in (photos, tmp_path / "link" / "000000.png"):
        with pytest.raises(ValueError, match=r"000000.png is in .*pictures, where the pictures of"):
            d2_transfer.predict(run, images, output=tmp_path)
    assert (photos / "000000.png").read_bytes() == content


def test_names_that_are_not_utf8(run: Path, scenes: Any, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff \xc3\xbc.png")
    shutil.copy(scenes.root / "JPEGImages" / "000000.png", tmp_path / name)
    d2_transfer.predict(run, tmp_path / name, output=tmp_path / "out")
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["images"][0]["file_name"] == name
    assert (tmp_path / "out" / "pictures" / name).is_file()


def test_mistakes_are_one_line(
    run: Path, scenes: Any, encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(scenes.root / "JPEGImages" / "000000.png")
    (tmp_path / "bad.jpg").write_text("<html>")
    (tmp_path / "empty").mkdir()
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["DATASETS"] |= {"CLASSES": [], "TRAIN": ["elsewhere"]}
    (nameless / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(run / "model_final.pth", nameless)
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    (pretrained / "config.yaml").write_text("METHOD: {NAME: cwrgp}\n")
    for arguments, message in (
        (["nowhere", image], "nowhere: no such file"),
        ([str(tmp_path), image], f"{tmp_path} is not the folder of a run: it has no config.yaml"),
        ([str(run), "no*.jpg"], "no*.jpg: no such file or folder, and no pattern of images"),
        ([str(run), str(tmp_path / "empty")], "empty: the folder holds no image"),
        ([str(run), str(tmp_path / "bad.jpg")], "none of the 1 images can be read; the first is"),
        ([str(run), image, "--threshold", "2"], "--threshold 2 is not in 0 to 1"),
        ([str(run), image, "--batch", "0"], "--batch 0 is not positive"),
        (
            [str(run), image, "--weights", str(encoder_file)],
            "fills 100 of 162 tensors",
        ),
        ([MASK_RCNN, image], "give --weights FILE of a trained detector"),
        (
            [str(nameless / "config.yaml"), image, "--weights", str(nameless / "model_final.pth")],
            "have no names: set DATASETS.CLASSES",
        ),
        ([str(pretrained), image], "config; the run must be one of cwrgp-train-net"),
        ([str(run), image, "--picture-threshold", "-1"], "--picture-threshold -1 is not in 0 to 1"),
        ([str(run), image, "--output", image], f"{image} cannot be a folder: {image} is a file"),
        ([str(run), image, "--opts", "INPUT.SIZE", "3"], "unknown config key INPUT.SIZE"),
    ):
        given = [*arguments[:2], "--output", str(tmp_path / "out"), *arguments[2:]]
        assert main(given) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
