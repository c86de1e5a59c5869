"""Features of images: `embed` from Python, `main` from a shell."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cwrgp.checkpoints.formats import BRANCHES, source_names
from cwrgp.checkpoints.load import Network, load_network
from cwrgp.checkpoints.pixel_statistics import IMAGENET
from cwrgp.cli import add_checkpoint_arguments, make_parser, run_main
from cwrgp.config.defaults import KEYS
from cwrgp.data.augment.reference import build_test_transform
from cwrgp.data.base import LabelledImages
from cwrgp.data.listed import ListedImages
from cwrgp.data.normalize import Normalize
from cwrgp.data.pixel_range import InPixelRange
from cwrgp.data.views import ProbeImages
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.features import check_finite, extract_features
from cwrgp.file_io.atomic import check_folder, replacing, write_bytes
from cwrgp.image_check import inspect_images, unknown_range_of
from cwrgp.image_files import named_images, write_unreadable
from cwrgp.launch import local_device
from cwrgp.models.resnet import STEMS
from cwrgp.shared_memory import worker_errors_end_the_run

logger = logging.getLogger("cwrgp")

IMAGE_SIZE, RESIZE = 224, 256  # of ImageNet's protocols, where the file states none
NUM_WORKERS = KEYS["DATA.NUM_WORKERS"].default

_DESCRIPTION = """\
Features of images: what the ResNet of a checkpoint computes after its average pooling.

  %(prog)s output/pretrain/model_final.pth photos/ features.npy
  %(prog)s hf://microsoft/resnet-50 'photos/**/*.jpg' features.npy

WEIGHTS is any file that cwrgp-convert reads. features.npy is float32 (images, channels), and
features.txt names the image of each row."""


@dataclass(frozen=True)
class Embedding:
    """Features of images.

    Attributes:
        features: float32 (n, F), in the order of ``files``.
        files: the n images that can be read.
        unreadable: the others -> why.
        network: what computed them.
    """

    features: np.ndarray
    files: list[Path]
    unreadable: dict[str, str]
    network: Network


@worker_errors_end_the_run("num_workers")
def embed(
    weights: str | PathLike[str],
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    output: str | PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    resize: int | None = None,
    batch_size: int = 64,
    num_workers: int = NUM_WORKERS,
    pixel_range: Sequence[float] | None = None,
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    stem: str | None = None,
    unsafe: bool = False,
    progress: bool = False,
) -> Embedding:
    """Features of images under the ResNet of a checkpoint: ``cwrgp-embed`` as a function.

    The shorter side is resized to ``resize``, the central square of ``image_size`` is cut out, and
    the pixels are normalised as the file states it, or with ImageNet's statistics. The features are
    float32, computed in float32.

    Example::

        found = cwrgp.embed("output/pretrain/model_final.pth", "photos/")
        found.features.shape, found.files[0]

    Args:
        weights: a file, a URL, ``cwrgp://NAME`` or ``hf://OWNER/NAME``.
        images: files, folders and patterns.
        output: NAME.npy for the features, beside which NAME.txt names their images and
            NAME.unreadable.txt those that could not be read; None: nothing is written.
        image_size: side of the square in pixels; None: that of the run that made the file, or 224.
        resize: length of the shorter side; None: likewise, or 256.
        batch_size: images at a time.
        num_workers: processes that load images.
        pixel_range: the values of black and white in images of more than 8 bits.
        source: format of the weights; "auto" detects it.
        branch: "online" or "momentum"; None takes what the format's publishers evaluate.
        prefix: what the network's names begin with, where the file has several networks and no
            known format.
        stem: which stem a 3x3 convolution belongs to, "small" or "small_pool", where the file does
            not state it.
        unsafe: lets the weights' file run code: only for files that you made.
        progress: whether a bar shows the progress.

    Raises:
        FileNotFoundError: no such weights or images.
        ValueError: the weights hold no ResNet, a value that cannot work, or no image can be read.
        FloatingPointError: a feature is not finite.
    """
    path = None if output is None else _checked_output(output)
    for name, value in (("batch_size", batch_size), ("image_size", image_size), ("resize", resize)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value} is not positive")
    if pixel_range and not pixel_range[0] < pixel_range[1]:
        raise ValueError(f"pixel_range {list(pixel_range)} is not low < high")
    files = named_images([images] if isinstance(images, str | PathLike) else images)
    if path is not None and (broken := [file for file in files if "\n" in str(file)]):
        raise ValueError(
            f"{str(broken[0])!r} has a line break in its name, and"
            f" {path.with_suffix('.txt').name} has one name per line: rename it"
        )
    network = load_network(
        str(weights), stem=stem, source=source, branch=branch, prefix=prefix, unsafe=unsafe
    )
    sizes = network.test_size or (IMAGE_SIZE, RESIZE)
    image_size, resize = image_size or sizes[0], resize or max(sizes[1], image_size or 0)
    if resize < image_size:
        raise ValueError(f"resize {resize} is less than image_size {image_size}")
    readable, unreadable = readable_images(files, pixel_range)
    for warning in network.origin.warnings:
        logger.warning("%s: %s", weights, warning)
    if network.origin.pixels is None:
        logger.warning("%s states no normalisation of its input: ImageNet's is used", weights)
    data: LabelledImages = ListedImages(readable)
    if pixel_range:
        data = InPixelRange(data, *pixel_range)
    transform = build_test_transform(image_size=image_size, resize=resize, interpolation="bicubic")
    probe = ProbeImages(data, transform, max_unreadable=len(readable))
    precision = Precision.choose(local_device(), enabled=False, layout="auto")
    with (
        tqdm(total=len(readable), unit="image", disable=None if progress else True) as bar,
        precision.ieee_fp32(),
    ):
        features, numbers = extract_features(
            precision.prepare(network.encoder),
            probe,
            normalize=normalize_of(network).to(precision.device),
            batch_size=batch_size,
            num_workers=min(num_workers, math.ceil(len(readable) / batch_size)),
            device=precision.device,
            autocast=precision.autocast(),
            report=bar.update,
        )
    check_finite(features)
    unreadable |= {str(readable[i]): reason for i, reason in probe.reader.reasons().items()}
    found = Embedding(
        features.cpu().numpy(), [readable[i] for i in numbers.tolist()], unreadable, network
    )
    if path is not None:
        _write(found, path)
    return found


def _checked_output(output: str | PathLike[str]) -> Path:
    path = Path(os.path.expanduser(output))
    if path.suffix != ".npy":
        raise ValueError(f"output {output} must end in .npy")
    if path.is_dir():
        raise ValueError(f"output {output} is a folder; name a file")
    check_folder(path.parent)
    return path


def readable_images(
    files: Sequence[Path], pixel_range: Sequence[float] | None
) -> tuple[list[Path], dict[str, str]]:
    """The images that can be read as far as their headers show, and why the others cannot."""
    known = inspect_images(files)
    readable = [file for file in files if not known[file].problem]
    unreadable = {str(file): known[file].problem for file in files if known[file].problem}
    if not readable:
        first, problem = next(iter(unreadable.items()))
        raise ValueError(
            f"none of the {len(files)} images can be read; the first is {first}: {problem}"
        )
    problem = unknown_range_of(
        "pixel_range (--pixel-range)", {file: known[file] for file in readable}
    )
    if problem and not pixel_range:
        raise ValueError(problem)
    return readable, unreadable


def normalize_of(network: Network) -> Normalize:
    pixels = network.origin.pixels or IMAGENET
    mean, std = ([value / 255 for value in values] for values in (pixels.mean, pixels.std))
    return Normalize((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _write(found: Embedding, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, found.features)
    # File names need not be UTF-8.
    names = "".join(f"{file}\n" for file in found.files)
    write_bytes(path.with_suffix(".txt"), names.encode(errors="surrogateescape"))
    write_unreadable(path.with_suffix(".unreadable.txt"), found.unreadable)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-embed", _DESCRIPTION)
    parser.add_argument(
        "weights", metavar="WEIGHTS", help="a file, a URL, cwrgp://NAME or hf://OWNER/NAME"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or patterns")
    parser.add_argument("output", metavar="OUT.npy", help="the features")
    add_checkpoint_arguments(parser, source_names(), BRANCHES)
    parser.add_argument("--stem", choices=STEMS, help="where the file does not state it")
    parser.add_argument("--image-size", type=int, metavar="PX", help="default: the run's, or 224")
    parser.add_argument("--resize", type=int, metavar="PX", help="default: the run's, or 256")
    parser.add_argument(
        "--batch", dest="batch_size", type=int, default=64, metavar="N", help="images at a time"
    )
    parser.add_argument(
        "--num-workers", type=int, default=NUM_WORKERS, metavar="N", help="processes that load"
    )
    parser.add_argument(
        "--pixel-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="black and white"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-embed``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> None:
    logger.addHandler(handler := logging.StreamHandler())  # to stderr
    try:
        found = embed(
            args.weights,
            args.images,
            args.output,
            image_size=args.image_size,
            resize=args.resize,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            pixel_range=args.pixel_range,
            source=args.source,
            branch=args.branch,
            prefix=args.prefix,
            stem=args.stem,
            unsafe=args.unsafe,
            progress=True,
        )
    finally:
        logger.removeHandler(handler)
    network, (rows, columns) = found.network, found.features.shape
    path = Path(os.path.expanduser(args.output))
    print(
        f"{network.arch} ({network.stem} stem, {network.origin.source}): {rows} images,"
        f" {columns} features each\nWritten: {path} and {path.with_suffix('.txt')}"
    )
    if found.unreadable:
        print(
            f"{len(found.unreadable)} images cannot be read;"
            f" {path.with_suffix('.unreadable.txt')} lists them"
        )


if __name__ == "__main__":
    sys.exit(main())
