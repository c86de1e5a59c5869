"""cwrgp-embed and `cwrgp.embed`, against torchvision's network and PIL's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from encoders import make_encoder, under
from images import write_images
from PIL import Image
from torchvision.models import ResNet

import cwrgp
from cwrgp.commands.embed import main
from d2_transfer.conversion import convert_file

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NO_WORKERS = ("--num-workers", "0")


@pytest.fixture(autouse=True)
def image_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    write_images(tmp_path / "photos", 5, side=70)
    files = sorted((tmp_path / "photos").iterdir())
    for file in files:
        with Image.open(file) as image:
            image.crop((0, 0, 70, 50)).save(file)
    return files


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A ResNet-18 in a file of no known format."""
    path = tmp_path / "resnet18.pth"
    torch.save(under("net.", make_encoder("resnet18")), path)
    return path


def reference(state: dict[str, torch.Tensor]) -> ResNet:
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    network.load_state_dict(state)
    return network.eval()


def pixels(file: Path, size: int, resize: int) -> torch.Tensor:
    """The central square of an image, by Pillow alone: (3, size, size) in 0..1."""
    with Image.open(file) as image:
        width, height = image.size
        scale = resize / min(width, height)
        resized = image.convert("RGB").resize(
            (int(width * scale), int(height * scale)), Image.Resampling.BICUBIC
        )
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    cut = np.asarray(resized.crop((left, top, left + size, top + size)))
    return torch.tensor(cut).permute(2, 0, 1) / 255


def features(network: ResNet, files: list[Path], mean: tuple, std: tuple) -> np.ndarray:
    batch = torch.stack([pixels(file, 48, 60) for file in files])
    normalized = (batch - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        return network(normalized).numpy()


def test_features_are_torchvisions(photos: list[Path], weights: Path) -> None:
    found = cwrgp.embed(weights, photos[0].parent, image_size=48, resize=60, num_workers=0)
    assert found.files == photos and not found.unreadable
    assert found.features.shape == (5, 512) and found.features.dtype == np.float32
    assert (found.network.arch, found.network.stem) == ("resnet18", "imagenet")
    network = reference(make_encoder("resnet18"))
    expected = features(network, photos, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-5)
    assert np.std(expected, axis=0).max() > 0.01, "the photos differ"


def test_a_file_of_this_project_states_sizes_stem_and_normalisation(
    photos: list[Path], tmp_path: Path
) -> None:
    config = (
        "MODEL: {ARCH: resnet18, STEM: imagenet}\n"
        "DATA: {IMAGE_SIZE: 48, PROBE_RESIZE: 60, MEAN: [.5, .4, .3], STD: [.2, .25, .3]}\n"
    )
    state = make_encoder("resnet18")
    own = {"model": {f"encoder.{k}": v for k, v in state.items()}, "config": config}
    torch.save(own, tmp_path / "own.pth")
    convert_file(tmp_path / "own.pth", tmp_path / "converted.pkl")
    expected = features(reference(state), photos, MEAN, STD)
    found = cwrgp.embed(tmp_path / "own.pth", photos, batch_size=2, num_workers=0)
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-5)
    assert found.network.test_size == (48, 60)
    # A converted file states the normalisation only.
    options = {"image_size": 48, "resize": 60, "num_workers": 0}
    again = cwrgp.embed(tmp_path / "converted.pkl", photos, **options)
    np.testing.assert_allclose(again.features, found.features, rtol=1e-4, atol=1e-5)


def test_the_command_writes_features_names_and_what_could_not_be_read(
    photos: list[Path], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos[1].write_bytes(photos[0].read_bytes()[:100])
    content = bytearray(photos[2].read_bytes())
    content[60:-12] = bytes(len(content) - 72)  # its header and its end are good
    photos[2].write_bytes(content)
    output = tmp_path / "new" / "features.npy"
    sizes = ("--image-size", "48", "--resize", "60", *NO_WORKERS)
    pattern = str(tmp_path / "photos" / "*.png")
    assert main([str(weights), pattern, str(photos[4]), str(output), *sizes]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "resnet18 (imagenet stem, one ResNet under 'net.'): 3 images, 512 features each",
        f"Written: {output} and {output.with_suffix('.txt')}",
        f"2 images cannot be read; {output.with_suffix('.unreadable.txt')} lists them",
    ]
    assert output.with_suffix(".txt").read_text() == "".join(f"{photos[i]}\n" for i in (0, 3, 4))
    bad = output.with_suffix(".unreadable.txt").read_text().splitlines()
    assert [line.partition("\t")[0] for line in bad] == [str(photos[1]), str(photos[2])]
    whole = cwrgp.embed(weights, photos, image_size=48, resize=60, num_workers=0)
    assert np.array_equal(np.load(output), whole.features)


def test_values_of_a_camera_are_mapped_by_their_range(
    photos: list[Path], weights: Path, tmp_path: Path
) -> None:
    with Image.open(photos[0]) as image:
        gray = np.asarray(image.convert("L"))
    Image.fromarray(gray).save(tmp_path / "eight.png")
    Image.fromarray(gray.astype(np.uint16) * 16).save(tmp_path / "twelve.png")
    files = [tmp_path / "eight.png", tmp_path / "twelve.png"]
    with pytest.raises(ValueError, match=r"nearly black; set pixel_range \(--pixel-range\) to"):
        cwrgp.embed(weights, files, num_workers=0)
    options = {"image_size": 48, "num_workers": 0, "pixel_range": (0, 4080)}
    eight, twelve = cwrgp.embed(weights, files, **options).features
    assert np.array_equal(eight, twelve)


def test_mistakes_are_one_line(
    photos: list[Path], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "none.pth")
    torch.save(make_encoder("resnext50_32x4d"), tmp_path / "next.pth")
    (tmp_path / "page.jpg").write_text("<html>")
    output, photo = str(tmp_path / "out.npy"), str(photos[0])
    for arguments, message in (
        ([str(tmp_path / "none.pth"), photo, output], "none.pth: no ResNet found"),
        ([str(tmp_path / "next.pth"), photo, output], "holds a resnext50_32x4d; only resnet18"),
        ([str(tmp_path / "nothing.pth"), photo, output], "nothing.pth: no such file"),
        ([str(weights), "no*.jpg", output], "no*.jpg: no such file or folder, and no pattern"),
        ([str(weights), str(tmp_path / "page.jpg"), output], "none of the 1 images can be read"),
        ([str(weights), photo, "out.txt"], "--output out.txt must end in .npy"),
        ([str(weights), photo, output, "--batch", "0"], "--batch 0 is not positive"),
        ([str(weights), photo, output, "--resize", "90"], "--resize 90 is less than image_size"),
        ([str(weights), photo, output, "--stem", "small"], "stem small; arch resnet18 stem image"),
        (
            [str(weights), photo, output, "--pixel-range", "5", "5"],
            "--pixel-range [5.0, 5.0] is not low",
        ),
    ):
        assert main([*arguments, *NO_WORKERS]) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not Path(output).exists()
    (tmp_path / "folder.npy").mkdir()
    folded = tmp_path / "two\nlines.png"
    folded.write_bytes(photos[0].read_bytes())
    for image, place, message in (
        (photo, f"{photo}/out.npy", f"{photo} cannot be a folder: {photo} is a file"),
        (photo, str(tmp_path / "folder.npy"), "folder.npy is a folder; name a file"),
        (str(folded), output, "lines.png' has a line break in its name, and out.txt has one name"),
    ):
        assert main([str(weights), image, place, *NO_WORKERS]) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
