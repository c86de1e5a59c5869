"""A run from somebody's own photos: what cannot be used is said, listed or refused at the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from images import write_images
from PIL import Image
from quick_run import make_cfg
from two_processes import in_two_processes

from cwrgp.builders import automatic
from cwrgp.builders.data import build_images, build_pretraining_images, build_views
from cwrgp.builders.photos import check_photos, list_unreadable
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.data.reader import ImageReader, load_rgb
from cwrgp.data.resident import load_images

SHORT = ["SOLVER.EPOCHS", 1, "SOLVER.WARMUP_ITERS", 0, "EVAL.PERIOD", 0, "DATA.NUM_WORKERS", 0]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path_factory.mktemp("cache")))


def check(root, output, *opts):
    output.mkdir(exist_ok=True)
    cfg = make_cfg(root, output, "SOLVER.BATCH_SIZE", 4, *opts)
    views = build_views(cfg, build_pretraining_images(cfg))
    check_photos(cfg, views.reader, output)
    return views


@pytest.fixture
def photos(tmp_path):
    """Two folders with 20 images, of which three are damaged."""
    write_images(tmp_path / "photos" / "a", 10)
    write_images(tmp_path / "photos" / "b", 10, seed=1)
    (tmp_path / "photos" / "a" / "003.png").write_bytes(b"<html>404</html>")
    whole = (tmp_path / "photos" / "b" / "004.png").read_bytes()
    (tmp_path / "photos" / "b" / "004.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos" / "b" / "007.png").write_bytes(b"")
    return tmp_path / "photos"


def test_unreadable_images_are_found_listed_and_replaced(photos, tmp_path, caplog):
    views = check(photos, tmp_path / "run", "DATA.MAX_UNREADABLE", 3)
    lines = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
    assert lines[0] == f"{photos}/a/003.png\tunknown format (this is an HTML page)"
    assert lines[1].startswith(f"{photos}/b/004.png\tdamaged (")
    assert lines[2] == f"{photos}/b/007.png\tdamaged (the file is empty (0 bytes))"
    assert len(lines) == 3
    assert views.reader.reasons() == {3: "unknown format", 14: "damaged", 17: "damaged"}
    assert "3 of 20 images cannot be read and are replaced; " in caplog.text
    assert (views[0, 3][0] != 0).any()
    write_images(photos / "a", 10)
    write_images(photos / "b", 10, seed=1)
    check(photos, tmp_path / "run")
    assert not (tmp_path / "run" / "unreadable.txt").exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (("DATA.MAX_UNREADABLE", 2), "more than DATA.MAX_UNREADABLE 2; the first is .*a/003.png "),
        # 0.05 of 20 images is 1, 0.01 is rounded up to 1.
        (
            ("DATA.MAX_UNREADABLE_SHARE", 0.01),
            "more than DATA.MAX_UNREADABLE_SHARE 0.01 of them, rounded up to 1; the first is .*003",
        ),
        (("DATA.MAX_UNREADABLE_SHARE", 0.1, "DATA.MAX_UNREADABLE", 1), "SHARE 0.1 .* up to 2; "),
    ],
)
def test_too_many_unreadable_images_are_refused_and_listed(photos, tmp_path, limits, message):
    with pytest.raises(ValueError, match=f"^3 of 20 images cannot be read, .*{message}"):
        check(photos, tmp_path / "run", *limits)
    assert len((tmp_path / "run" / "unreadable.txt").read_text().splitlines()) == 3


def test_the_larger_limit_counts(photos, tmp_path):
    check(photos, tmp_path / "run", "DATA.MAX_UNREADABLE_SHARE", 0.11)
    check(photos, tmp_path / "run", "DATA.MAX_UNREADABLE", 3, "DATA.MAX_UNREADABLE_SHARE", 0.0)


def test_an_image_that_fails_later_is_added_to_the_list(photos, tmp_path):
    views = check(photos, tmp_path / "run", "DATA.MAX_UNREADABLE", 4)
    (photos / "a" / "005.png").unlink()
    views[0, 5]
    assert list_unreadable(views.reader, tmp_path / "run") == 4
    lines = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
    assert lines[0].endswith("003.png\tunknown format (this is an HTML page)")
    assert lines[1] == f"{photos}/a/005.png\tcannot be opened"
    assert lines[3].endswith("(the file is empty (0 bytes))")


def test_a_sample_of_the_images_is_checked_only(photos, tmp_path):
    views = check(photos, tmp_path / "run", "DATA.MAX_IMAGES", 5, "DATA.MAX_UNREADABLE", 3)
    names = {views.images.name(i)[-9:] for i in views.reader.unreadable}
    chosen = {views.images.name(i)[-9:] for i in range(5)}
    assert names == chosen & {"a/003.png", "b/004.png", "b/007.png"}


def test_a_whole_run_with_unreadable_images(tmp_path):
    write_images(tmp_path / "photos", 70)
    (tmp_path / "photos" / "000.png").write_bytes(b"no image")
    run_pretraining(make_cfg(tmp_path / "photos", tmp_path / "run", *SHORT))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "1 of 70 images cannot be read and are replaced; " in log
    assert "1 of 70 images could not be read and were replaced; " in log
    assert (tmp_path / "run" / "model_final.pth").exists()
    assert "000.png\tunknown format" in (tmp_path / "run" / "unreadable.txt").read_text()


def test_files_that_are_no_images_are_named_by_suffix(tmp_path, caplog):
    write_images(tmp_path / "photos", 6)
    for name in ("a.HEIC", "b.heic", ".DS_Store"):
        (tmp_path / "photos" / name).touch()
    check(tmp_path / "photos", tmp_path / "run")
    assert "photos: 2 files are no images by their suffix and are skipped: .heic (2)" in caplog.text


def write_values(folder, values, count=6, kind="png"):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(np.roll(values, number)).save(folder / f"{number}.{kind}")


def ramp(high, dtype=np.uint16):
    return np.linspace(0, high, 1600).reshape(40, 40).astype(dtype)


def test_twelve_bits_need_a_range(tmp_path):
    write_values(tmp_path / "photos", ramp(4095))
    message = (
        "^DATA.ROOT .*photos: the values of all 6 16-bit images are below 4096 .the largest is "
        r"4095.*; set DATA.PIXEL_RANGE .*, such as \[0, 4095\]$"
    )
    with pytest.raises(ValueError, match=message):
        check(tmp_path / "photos", tmp_path / "run")
    views = check(tmp_path / "photos", tmp_path / "run", "DATA.PIXEL_RANGE", "[0, 4095]")
    assert views.images.read(0)[..., 0].max() == 255
    write_values(tmp_path / "photos", ramp(65535), count=1)  # one image is bright enough
    check(tmp_path / "photos", tmp_path / "run")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_floating_point_images_need_a_range(tmp_path, dtype):
    write_images(tmp_path / "photos", 6)
    write_values(tmp_path / "photos", ramp(100, dtype), kind="tif")
    message = "DATA.ROOT .*: 6 of 12 images have floating-point .* set DATA.PIXEL_RANGE .*/0.tif$"
    with pytest.raises(ValueError, match=message):
        check(tmp_path / "photos", tmp_path / "run")
    check(tmp_path / "photos", tmp_path / "run", "DATA.PIXEL_RANGE", "[0, 100]")


def test_the_images_of_a_probe_need_a_range_too(tmp_path):
    for name in "ab":
        (tmp_path / "photos").mkdir(exist_ok=True)
        write_values(tmp_path / "photos" / name, ramp(4095), count=40)
    write_images(tmp_path / "other", 70)
    root = ["EVAL.ROOT", tmp_path / "photos"]
    with pytest.raises(ValueError, match="^EVAL.ROOT .*photos: the values of all 80 16-bit images"):
        run_pretraining(make_cfg(tmp_path / "other", tmp_path / "run", *root))


@pytest.mark.parametrize("pixel_range", [[], [0, 4095]])
def test_all_ways_to_make_views_see_the_same_pixels(tmp_path, pixel_range):
    """Views without crop and colours are the decoded image."""
    write_values(tmp_path / "photos", ramp(65535 if not pixel_range else 4095), count=6)
    plain = ["DATA.IMAGE_SIZE", 40, "DATA.PROBE_RESIZE", 40, "AUGMENT.CROP_SCALE", "[1.0, 1.0]"]
    plain += ["AUGMENT.JITTER_PROB", 0, "AUGMENT.GRAYSCALE_PROB", 0, "AUGMENT.FLIP_PROB", 0]
    opts = [*plain, "DATA.PIXEL_RANGE", pixel_range]
    expected = np.rint(ramp(65535 if not pixel_range else 4095) / (16.0588 if pixel_range else 257))
    for backend in ("reference", "fast"):
        views = check(tmp_path / "photos", tmp_path / "run", *opts, "AUGMENT.BACKEND", backend)
        view = views[0, 0][0][0].numpy().astype(int)
        assert abs(view - expected).max() <= 1
    cfg = make_cfg(tmp_path / "photos", tmp_path / "run", "SOLVER.BATCH_SIZE", 4, *opts)

    images = build_images(cfg, "train")
    resident = load_images(ImageReader(images), 0)[0, 0].numpy().astype(int)
    probe = np.asarray(load_rgb(images, 0))[..., 0].astype(int)
    assert (resident == probe).all() and abs(probe - expected).max() <= 1


@pytest.mark.parametrize("value", ["[0]", "[5, 5]", "[9, 3]", "[0, 1, 2]"])
def test_a_range_that_is_none_is_refused(image_folder, tmp_path, value):
    with pytest.raises(ValueError, match="^DATA.PIXEL_RANGE .* is not .low, high. with low < high"):
        run_pretraining(make_cfg(image_folder, tmp_path, "DATA.PIXEL_RANGE", value))


def test_repeated_images_are_counted(tmp_path, caplog):
    write_images(tmp_path / "photos", 40)
    check(tmp_path / "photos", tmp_path / "run")
    assert "earlier one" not in caplog.text
    first = Image.open(tmp_path / "photos" / "000.png")
    (tmp_path / "photos" / "x.png").write_bytes((tmp_path / "photos" / "000.png").read_bytes())
    first.resize((80, 80), Image.Resampling.BICUBIC).save(tmp_path / "photos" / "y.jpg")
    check(tmp_path / "photos", tmp_path / "run")
    assert (
        "of the images, 1 are equal to an earlier one and 1 look nearly the same; " in caplog.text
    )
    assert "set METHOD.CWRGP.EPS" in caplog.text


def check_in_a_process(rank, root, output, *opts):
    try:
        views = check(root, output, *opts)
    except ValueError as error:
        return str(error)
    torch.distributed.barrier()
    if rank == 1:
        (root / "a" / "005.png").unlink()
        views[0, 5]
    total = list_unreadable(views.reader, output)
    return [views.reader.reasons(), total, (output / "unreadable.txt").read_text()]


def test_two_processes_know_the_same(photos, tmp_path):
    for folder in ("exchange", "exchange2"):
        (tmp_path / folder).mkdir()
    args = (photos, tmp_path / "run", "DATA.MAX_UNREADABLE", 4)
    first, second = in_two_processes(tmp_path / "exchange", check_in_a_process, *args)
    assert first[0] == {3: "unknown format", 14: "damaged", 17: "damaged"}
    assert second[0] == first[0] | {5: "cannot be opened"}  # what it met later
    assert first[1] == second[1] == 4 and "005.png\tcannot be opened\n" in first[2]
    message = in_two_processes(tmp_path / "exchange2", check_in_a_process, *args[:2])
    assert message[0] == message[1] and message[0].startswith("3 of 19 images cannot be read")


def test_the_number_of_epochs_is_chosen_once(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "ITERATIONS", 5)
    monkeypatch.setattr(automatic, "MIN_EPOCHS", 2)
    opts = [*SHORT, "SOLVER.EPOCHS", 0]
    run_pretraining(make_cfg(image_folder, tmp_path, *opts))
    log = (tmp_path / "log.txt").read_text()
    assert "SOLVER.EPOCHS 0: 5 iterations / 2 in an epoch, " in log and "are 3 epochs" in log
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert state["iteration"] == 5 and yaml.safe_load(state["config"])["SOLVER"]["EPOCHS"] == 3
    monkeypatch.setattr(automatic, "ITERATIONS", 50)
    assert run_pretraining(make_cfg(image_folder, tmp_path, *opts), resume=True) == {}
    assert "changed configuration" not in (tmp_path / "log.txt").read_text()
