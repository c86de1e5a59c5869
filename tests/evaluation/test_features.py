"""Features are complete, in order, and the same to the bit on one process and on two."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from two_processes import in_two_processes

from cwrgp.data.reader import load_rgb
from cwrgp.data.views import ProbeImages
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.features import extract_features
from cwrgp.models.encoders import build_encoder

CPU = torch.device("cpu")


class Noise:
    """Images that are a function of their number; 3, 10, 17 ... are unreadable."""

    def __init__(self, size: int) -> None:
        self.labels = np.arange(size)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> np.ndarray:
        if index % 7 == 3:
            raise OSError("unreadable")
        rng = np.random.default_rng(index)
        return rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)

    def name(self, index: int) -> str:
        return f"noise {index}"


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def extract(
    images: Noise,
    batch_size: int = 4,
    encoder: nn.Module | None = None,
    workers: int = 0,
    max_unreadable: int = 9,
):
    if encoder is None:
        torch.manual_seed(0)
        encoder = build_encoder("resnet18", stem="small")
    return extract_features(
        encoder,
        ProbeImages(images, to_tensor, max_unreadable=max_unreadable),
        normalize=lambda batch: batch.float() / 255,
        batch_size=batch_size,
        num_workers=workers,
        device=CPU,
        autocast=Precision(CPU, torch.float32).autocast(),
    )


def test_features_are_the_encoders_in_evaluation_mode_in_the_images_order():
    torch.manual_seed(1)
    encoder = build_encoder("resnet18", stem="small").train()
    before = encoder.bn1.running_mean.clone()
    features, labels = extract(Noise(9), encoder=encoder)
    assert labels.tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert encoder.training and torch.equal(encoder.bn1.running_mean, before)
    encoder.eval()
    for feature, label in zip(features, labels.tolist(), strict=True):
        with torch.no_grad():
            alone = encoder(to_tensor(load_rgb(Noise(9), label))[None].float() / 255)[0]
        torch.testing.assert_close(feature, alone, rtol=1e-4, atol=1e-5)


class Signalled(Noise):
    """Tells the worker that loads it to stop, as a scheduler does."""

    def read(self, index):
        if torch.utils.data.get_worker_info() is not None:  # not where the size is measured
            os.kill(os.getpid(), signal.SIGTERM)
        return super().read(index)


def test_a_signal_to_the_workers_does_not_end_them():
    encoder = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    features, labels = extract(Signalled(9), encoder=encoder, workers=1)
    assert labels.tolist() == [0, 1, 2, 4, 5, 6, 7, 8] and len(features) == 8


SIZES = (23, 8, 5, 3, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_more_unreadable_images_than_tolerated_are_an_error(workers):
    assert len(extract(Noise(12), max_unreadable=2, workers=workers)[1]) == 10
    message = (
        "^2 of 12 images cannot be read, more than max_unreadable 1; "
        r"the first is noise 3 \(cannot be opened\)$"
    )
    with pytest.raises(ValueError, match=message):
        extract(Noise(12), max_unreadable=1, workers=workers)


def extract_all(rank: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [extract(Noise(size)) for size in SIZES]


def extract_too_many(rank: int) -> str:
    # Each process meets one unreadable image, which it would tolerate.
    with pytest.raises(
        ValueError, match="^2 of 12 images .* max_unreadable 1; .*noise 3 .cannot be opened.$"
    ) as error:
        extract(Noise(12), batch_size=6, max_unreadable=1)
    return str(error.value)


@pytest.mark.dist
def test_unreadable_images_are_counted_over_the_processes(tmp_path: Path):
    first, second = in_two_processes(tmp_path, extract_too_many)
    assert first == second


@pytest.mark.dist
def test_two_processes_have_the_features_of_one_to_the_bit(tmp_path: Path):
    both = in_two_processes(tmp_path, extract_all)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = extract_all(0)
    finally:
        torch.set_num_threads(threads)
    assert [len(labels) for _, labels in expected] == [20, 7, 4, 3, 1]
    for found in both:
        for got, want in zip(found, expected, strict=True):
            assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
