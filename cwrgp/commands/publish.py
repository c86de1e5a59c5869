"""A checkpoint to hand on: without the optimizer, with its history, its hash in its name.

`publish` gives the same bytes for the same input; `main` is the command.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.model_card import model_card
from cwrgp.checkpoints.own import OwnCheckpoint, pack_published, unpack
from cwrgp.checkpoints.reader import read_checkpoint, read_with_digest
from cwrgp.checkpoints.writer import write_checkpoint
from cwrgp.cli import make_parser, run_main
from cwrgp.config.paths import without_paths
from cwrgp.file_io.atomic import move_into_place, write_text
from cwrgp.file_io.digest import file_digest
from cwrgp.file_io.path_manager import local_file
from cwrgp.trackers.jsonl import read_metrics
from cwrgp.version import __version__

_ENCODER = "encoder."
_PROBE = ("knn/", "knn_leave_one_out/")  # how the names of the k-NN probe's metrics begin

_DESCRIPTION = """\
Prepares a checkpoint of cwrgp-pretrain for publication: NAME-<sha256>.pth and a model card.

  %(prog)s output/pretrain/model_final.pth published --name cwrgp_r50

The optimizer's state is omitted; config, versions and metrics are added. The same input gives the
same file."""


@dataclass(frozen=True)
class Publication:
    """What `publish` wrote.

    Attributes:
        checkpoint: ``NAME-<first 8 digits of sha256>.pth``.
        card: the model card beside it.
        sha256: of the checkpoint.
        metrics: name -> value.
    """

    checkpoint: Path
    card: Path
    sha256: str
    metrics: dict[str, float]


def publish(
    input_file: str | Path,
    output_dir: str | Path,
    name: str,
    *,
    metrics: Sequence[str] = (),
    encoder_only: bool = False,
    licence: str = "not stated",
) -> Publication:
    """Writes the weights of a checkpoint of this project, with config, versions and metrics.

    The file is written aside, read back as any other file is, and named only when its
    encoder is bit for bit that of the input.

    Args:
        input_file: ``model_final.pth`` of ``cwrgp-pretrain``.
        output_dir: made where it is missing.
        name: what the file's name begins with.
        metrics: ``KEY=VALUE`` or JSON files, see `read_given_metrics`; none: the last k-NN values
            of ``metrics.json`` beside the input, if it is there.
        encoder_only: omits the projector and everything else beside the encoder.
        licence: for the card.

    Returns:
        What was written, or what was there already with the same contents.

    Raises:
        FileNotFoundError: no such input.
        FileExistsError: an output is there with other contents.
        ValueError: the input is no checkpoint of this project, or an argument is wrong.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(f"name {name!r}: letters, digits, '.', '_' and '-' only")
    local = local_file(input_file)
    state = read_checkpoint(local)
    saved = unpack(state, input_file)
    encoder = extract_encoder(state, "cwrgp")
    beside = [str(p) for p in (local.parent / "metrics.json",) if p.is_file()]
    values = read_given_metrics(metrics or beside, saved.iteration)
    content = _content(saved, values, encoder_only)
    return _write(Path(output_dir), name, content, encoder, licence)


def _content(saved: OwnCheckpoint, metrics: dict[str, float], encoder_only: bool) -> dict[str, Any]:
    """What the published file holds. Tensors are copied: a view's whole storage would be saved."""
    return pack_published(
        saved,
        model={
            key: tensor.detach().clone(memory_format=torch.contiguous_format)
            for key, tensor in saved.model.items()
            if key.startswith(_ENCODER) or not encoder_only
        },
        config=without_paths(saved.config),
        versions={
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "cwrgp": __version__,
        },
        metrics=metrics,
    )


def _write(
    folder: Path, name: str, content: dict[str, Any], encoder: Encoder, licence: str
) -> Publication:
    """Writes aside, reads back, compares with the input's encoder, and names the file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=folder) as aside:
        written = Path(aside) / "checkpoint.pth"
        write_checkpoint(written, content)
        content_read, digest = read_with_digest(written)
        _check_same(encoder, extract_encoder(content_read))
        checkpoint = folder / f"{name}-{digest[:8]}.pth"
        card = checkpoint.with_suffix(".md")
        text = model_card(checkpoint.name, content, encoder, digest, licence)
        if checkpoint.exists() and file_digest(checkpoint) != digest:
            raise FileExistsError(f"{checkpoint} exists with other contents; remove it first")
        if card.exists() and card.read_text(encoding="utf-8") != text:
            raise FileExistsError(f"{card} exists with other contents; remove it first")
        move_into_place(written, checkpoint)
        write_text(card, text)
    return Publication(checkpoint, card, digest, content["metrics"])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-publish", _DESCRIPTION)
    parser.add_argument("input", metavar="INPUT", help="model_final.pth of cwrgp-pretrain")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="folder, made if missing")
    parser.add_argument("--name", required=True, help="beginning of the file's name")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="FILE_OR_KEY=VALUE",
        help="numbers for the card, or JSON files (default: k-NN of metrics.json beside INPUT)",
    )
    parser.add_argument("--encoder-only", action="store_true", help="omit the heads")
    parser.add_argument(
        "--license", default="not stated", metavar="TEXT", help="of the weights, for the card"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-publish``; returns the exit code."""
    return run_main(_publish, parse_args(argv))


def _publish(args: argparse.Namespace) -> None:
    done = publish(
        args.input,
        args.output_dir,
        args.name,
        metrics=args.metrics,
        encoder_only=args.encoder_only,
        licence=args.license,
    )
    print(f"written  {done.checkpoint}\ncard     {done.card}\nsha256   {done.sha256}")
    for name, value in done.metrics.items():
        print(f"metric   {name} {value:g}")


def read_given_metrics(given: Sequence[str], iteration: int) -> dict[str, float]:
    """Numbers from ``KEY=VALUE`` and JSON files; what is named later counts.

    Args:
        given: a file is either one object of numbers, or a run's ``metrics.json`` with a record
            a line, of which the last k-NN values are taken.
        iteration: of the checkpoint; later records are not its own.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a value is not a finite number, or a file is not JSON.
    """
    found: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if equals and not Path(item).is_file():
            found[key] = value
        else:
            found |= _metrics_of_file(Path(item), iteration)
    return {key: _number(key, value) for key, value in found.items()}


def _metrics_of_file(path: Path, iteration: int) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"metrics {path}: no such file, and not KEY=VALUE")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if isinstance(content, dict) and "iteration" not in content:
        return content
    records = read_metrics(path)
    if not records:
        raise ValueError(f"metrics {path} is neither an object of numbers nor a metrics.json")
    own = (record for record in records if record["iteration"] <= iteration)
    return {k: v for record in own for k, v in record.items() if k.startswith(_PROBE)}


def _number(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not key.strip() or not math.isfinite(number):
        raise ValueError(f"metrics {key}={value}: KEY=VALUE with a finite number is needed")
    return number


def _check_same(before: Encoder, after: Encoder) -> None:
    def as_bytes(tensor: Tensor) -> Tensor:
        return tensor.contiguous().reshape(-1).view(torch.uint8)

    one, other = before.state_dict, after.state_dict
    same = one.keys() == other.keys() and all(
        t.dtype == other[k].dtype
        and t.shape == other[k].shape
        and torch.equal(as_bytes(t), as_bytes(other[k]))
        for k, t in one.items()
    )
    if not same:
        raise ValueError("the written encoder differs from the input's; nothing was published")
