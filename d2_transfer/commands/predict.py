"""A trained detector on images: `predict` from Python, `main` from a shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwrgp.cli import make_parser, run_main
from cwrgp.file_io.atomic import check_folder
from cwrgp.image_files import common_folder, named_images, write_unreadable
from d2_transfer.requirement import require_detectron2

if TYPE_CHECKING:
    from d2_transfer.config import TransferConfig
    from d2_transfer.prediction import Prediction

PICTURE_THRESHOLD = 0.5
PICTURES = "pictures"  # the folder in --output

_DESCRIPTION = """\
Finds objects in images with a trained detector. Class names, input and threshold are the run's.

  %(prog)s output/cells photos/ --output predictions/
  %(prog)s output/cells 'more/*.jpg' --output predictions/ --threshold 0.3 --batch 4
  %(prog)s detection/coco_R_50_C4_1x.yaml street.jpg --weights detector.pth --output predictions/

--output gets predictions.json (a COCO data set whose annotations have a score), pictures/, and
unreadable.txt if images cannot be read."""


@dataclass(frozen=True)
class Predictions:
    """What `predict` found.

    Attributes:
        images: one for each image, in order; also for unreadable ones.
        classes: names of the classes; `Prediction.classes` has their numbers.
        image_root: the folder that the file names in ``predictions.json`` are relative to.
    """

    images: list[Prediction]
    classes: tuple[str, ...]
    image_root: Path

    @property
    def unreadable(self) -> dict[str, str]:
        """The images that cannot be read -> why."""
        return {str(image.file): image.unreadable for image in self.images if image.unreadable}


def predict(
    run: str | PathLike[str],
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    weights: str | PathLike[str] | None = None,
    output: str | PathLike[str] | None = None,
    threshold: float | None = None,
    picture_threshold: float = PICTURE_THRESHOLD,
    batch_size: int = 1,
    pictures: bool = True,
    progress: bool = False,
    **overrides: Any,
) -> Predictions:
    """Finds objects in images with a trained detector: ``cwrgp-predict`` as a function.

    Example::

        found = d2_transfer.predict("output/cells", "photos/", output="predictions/")
        for image in found.images:
            print(image.file, [found.classes[number] for number in image.classes], image.boxes)

    Args:
        run: folder of a run of ``cwrgp-train-net``, whose last checkpoint is taken; one of its
            checkpoints; or a config.
        images: files, folders and patterns.
        weights: of the whole detector; None: the run's.
        output: folder for ``predictions.json``, ``pictures/`` and ``unreadable.txt``; None: nothing
            is written.
        threshold: lowest score of a detection; None: the run's ``SCORE_THRESH_TEST``.
        picture_threshold: lowest score of a detection in the pictures.
        batch_size: images that the model gets at a time.
        pictures: whether pictures are written.
        progress: whether a bar shows the progress.
        **overrides: keys of the config. Sections are dicts: ``INPUT={"MIN_SIZE_TEST": 640}``.

    Raises:
        MissingPackage: Detectron2 is not installed.
        FileNotFoundError: no such run, weights or images.
        ValueError: weights that do not fit, classes without names, a value that cannot work, or
            images none of which can be read.
    """
    require_detectron2()
    from cwrgp.config_files import merge_values  # noqa: PLC0415
    from d2_transfer.prediction import run_config  # noqa: PLC0415

    cfg = run_config(run, weights)
    merge_values(cfg, overrides)
    return _predict(
        cfg,
        [images] if isinstance(images, str | PathLike) else images,
        output,
        threshold=threshold,
        picture_threshold=picture_threshold,
        batch_size=batch_size,
        pictures=pictures,
        progress=progress,
    )


def _predict(
    cfg: TransferConfig,
    images: Iterable[str | PathLike[str]],
    output: str | PathLike[str] | None,
    *,
    threshold: float | None,
    picture_threshold: float,
    batch_size: int,
    pictures: bool,
    progress: bool,
) -> Predictions:
    from tqdm import tqdm  # noqa: PLC0415

    from d2_transfer.prediction import load_detector  # noqa: PLC0415
    from d2_transfer.prediction_files import (  # noqa: PLC0415
        picture_name,
        write_picture,
        write_predictions,
    )

    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is not positive")
    if not 0 <= picture_threshold <= 1:
        raise ValueError(f"picture_threshold {picture_threshold:g} is not in 0 to 1")
    files = named_images(images)
    root = common_folder(files)
    folder = None if output is None else Path(os.path.expanduser(output))
    if folder is not None:
        check_folder(folder)
        _check_no_picture(files, folder / PICTURES)
    detector = load_detector(cfg, threshold=threshold)
    found: list[Prediction] = []
    for prediction in tqdm(
        detector.predict(files, batch_size=batch_size),
        total=len(files),
        unit="image",
        disable=None if progress else True,  # None: unless it is a terminal
    ):
        found.append(prediction)
        if folder is not None and pictures and not prediction.unreadable:
            write_picture(
                prediction,
                detector.classes,
                folder / PICTURES / picture_name(prediction.file, root),
                threshold=picture_threshold,
                pixel_range=cfg.INPUT.PIXEL_RANGE,
            )
    if all(prediction.unreadable for prediction in found):
        raise ValueError(
            f"none of the {len(found)} images can be read; the first is {found[0].file}:"
            f" {found[0].unreadable}"
        )
    result = Predictions(found, detector.classes, root)
    if folder is not None:
        write_predictions(found, detector.classes, root, folder / "predictions.json")
        write_unreadable(folder / "unreadable.txt", result.unreadable)
    return result


def _check_no_picture(files: Sequence[Path], pictures: Path) -> None:
    """Refuses images that pictures would replace, or that are pictures of an earlier call."""
    folder = Path(os.path.realpath(pictures))
    for file in files:
        if folder in Path(os.path.realpath(file.parent), file.name).parents:
            raise ValueError(
                f"{file} is in {pictures}, where the pictures of detections are written: choose"
                " another folder for the output"
            )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-predict", _DESCRIPTION)
    parser.add_argument(
        "run", metavar="RUN", help="folder of a run, one of its checkpoints, or a config"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or patterns")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--weights", metavar="FILE", help="of the whole detector (default: the run's last)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="lowest score of a detection (default: the run's, nearly always 0.05)",
    )
    parser.add_argument(
        "--picture-threshold",
        type=float,
        default=PICTURE_THRESHOLD,
        metavar="SCORE",
        help=f"lowest score of a detection in the pictures (default: {PICTURE_THRESHOLD})",
    )
    parser.add_argument(
        "--batch",
        dest="batch_size",
        type=int,
        default=1,
        metavar="N",
        help="images at a time (default: 1)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write predictions.json only")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="override keys of the config; must come last",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-predict``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> None:
    require_detectron2()
    from cwrgp.config_files import merge_pairs  # noqa: PLC0415
    from d2_transfer.prediction import run_config  # noqa: PLC0415

    cfg = run_config(args.run, args.weights)
    merge_pairs(cfg, args.opts)
    found = _predict(
        cfg,
        args.images,
        args.output,
        threshold=args.threshold,
        picture_threshold=args.picture_threshold,
        batch_size=args.batch_size,
        pictures=not args.no_pictures,
        progress=True,
    )
    print(_as_text(found, Path(os.path.expanduser(args.output)), args.picture_threshold))


def _as_text(found: Predictions, folder: Path, picture_threshold: float) -> str:
    scores = [score for image in found.images for score in image.scores]
    above = sum(score >= picture_threshold for score in scores)
    read = len(found.images) - len(found.unreadable)
    lines = [
        f"{read} images, {len(scores)} detections, {above} of them with a score of"
        f" {picture_threshold:g} or more",
        f"Written: coco:{folder / 'predictions.json'}:{found.image_root}",
    ]
    if found.unreadable:
        lines.append(
            f"{len(found.unreadable)} images cannot be read; {folder / 'unreadable.txt'} lists them"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
