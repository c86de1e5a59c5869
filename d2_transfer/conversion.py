"""Whole files, with proof: any known checkpoint -> Detectron2, and Detectron2 -> torchvision."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from cwrgp.checkpoints.detectron2_names import to_detectron2
from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.find_resnets import count_tensors
from cwrgp.checkpoints.from_detectron2 import (
    AUTHOR,
    STRIDE_KEY,
    check_stride,
    extract_backbone,
)
from cwrgp.checkpoints.hugging_face import with_settings
from cwrgp.checkpoints.pixel_statistics import PixelStatistics
from cwrgp.checkpoints.reader import read_with_digest
from cwrgp.checkpoints.writer import num_bytes
from cwrgp.file_io.atomic import replacing
from cwrgp.file_io.path_manager import local_file
from d2_transfer.proof import Verification, verify

SUFFIXES = (".pkl", ".pth", ".safetensors")


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote, and what was found in the input.

    Attributes:
        output: the file.
        encoder: what was found in the input, without its tensors.
        pixels: mean and standard deviation of the input in pretraining, for MODEL.PIXEL_MEAN and
            MODEL.PIXEL_STD; None if they are not known.
        num_tensors_in: tensors in the input, heads and all.
        num_tensors_out: tensors in the output.
        dropped: key in the input -> why it is not in the output.
        warnings: what a user should know although the conversion is correct.
        verification: the proof, made with the file as written; None without one.
        sha256_in: of the input file.
        sha256_out: of the output file.
    """

    output: Path
    encoder: Encoder
    pixels: PixelStatistics | None
    num_tensors_in: int
    num_tensors_out: int
    dropped: dict[str, str]
    warnings: list[str]
    verification: Verification | None
    sha256_in: str
    sha256_out: str


def convert_file(
    input_file: str | Path,
    output_file: str | Path,
    source: str = "auto",
    *,
    branch: str | None = None,
    prefix: str | None = None,
    to: str = "detectron2",
    stride_in_1x1: bool | None = None,
    check: bool = True,
    unsafe: bool = False,
    pixels: PixelStatistics | None = None,
) -> Conversion:
    """Converts a checkpoint's encoder into a file that Detectron2 loads, and proves the result.

    After any failure an existing output is unchanged and there is no new one.

    Args:
        input_file: a checkpoint that `cwrgp.checkpoints.extract.extract_encoder` reads; for the
            export to torchvision, a Detectron2 file, also a fine-tuned detector.
        output_file: ``.pkl`` (NumPy arrays, Detectron2's classic format), ``.pth`` or
            ``.safetensors`` (tensors), all float32.
        source: name of the input's format, or ``"auto"``.
        branch: "online" or "momentum"; None takes what the format's publishers evaluate.
        prefix: what the network's names begin with, where the file has several networks and no
            known format.
        to: "detectron2", or "torchvision" to export a Detectron2 backbone.
        stride_in_1x1: for that export, MODEL.RESNETS.STRIDE_IN_1X1 of the detector; None takes it
            from ``config.yaml`` beside the file, where Detectron2 writes it.
        check: False omits the proof.
        unsafe: lets the input file run code of its own.
        pixels: normalisation of the input in pretraining, in place of what the file states or its
            format is known for.

    Raises:
        FileNotFoundError: no such input.
        ValueError: the input is refused, the output's name is wrong, or the proof failed.
    """
    output = Path(output_file)
    local = _check_arguments(input_file, output, source, branch, prefix, to, stride_in_1x1)
    checkpoint, sha256_in = read_with_digest(local, unsafe=unsafe)
    if to == "detectron2":
        encoder = with_settings(extract_encoder(checkpoint, source, branch, prefix), local)
    else:
        encoder = check_stride(extract_backbone(checkpoint), checkpoint, local, stride_in_1x1)
    _check_stem(encoder, input_file)
    encoder = encoder if pixels is None else replace(encoder, pixels=pixels)
    num_tensors_in = count_tensors(checkpoint)
    del checkpoint  # what is not used of it takes memory
    return _convert(encoder, output, to, check, num_tensors_in, sha256_in)


def _check_arguments(
    input_file: str | Path,
    output: Path,
    source: str,
    branch: str | None,
    prefix: str | None,
    to: str,
    stride_in_1x1: bool | None,
) -> Path:
    """Raises as `convert_file` does, before anything is read. Returns the input's local path."""
    if output.is_dir():
        raise ValueError(f"output_file {output} is a folder; name a file")
    if output.suffix not in SUFFIXES:
        raise ValueError(f"output_file {output}: the name must end in {' or '.join(SUFFIXES)}")
    if to not in ("detectron2", "torchvision"):
        raise ValueError(f"to {to!r} is unknown; choose 'detectron2' or 'torchvision'")
    local = local_file(input_file)
    if output.exists() and output.samefile(local):
        raise ValueError(f"output_file {output} is the input file: choose another name")
    if to == "torchvision" and (source != "auto" or branch is not None or prefix is not None):
        raise ValueError("source, branch and prefix are for conversions to Detectron2 only")
    if to == "detectron2" and stride_in_1x1 is not None:
        raise ValueError("stride_in_1x1 is for the export to torchvision only")
    return local


def _check_stem(encoder: Encoder, input_file: str | Path) -> None:
    """Raises ValueError if Detectron2 has no such network."""
    if encoder.stem != "imagenet":
        raise ValueError(
            f"{input_file}: this encoder cannot be transferred: its first convolution is 3x3 with"
            " stride 1 (made for small images), that of Detectron2's ResNets is 7x7 with stride 2;"
            " pretrain with the ImageNet stem"
        )


def _convert(
    encoder: Encoder, output: Path, to: str, check: bool, num_tensors_in: int, sha256_in: str
) -> Conversion:
    """Writes the output under a temporary name, reads it back, proves it, and only then renames it.

    Files for Detectron2 carry ``matching_heuristics``, with which it finds res5 in a C4 detector's
    head as well as in an FPN's backbone.
    """
    dropped = dict(encoder.dropped)
    tensors, cast = _to_float32(_without_counters(encoder, dropped))
    weights = to_detectron2(tensors) if to == "detectron2" else tensors
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output, num_bytes(weights)) as temporary:
        _write(weights, temporary, output.suffix, to, encoder)
        written, sha256_out = read_with_digest(temporary)
        verification = _prove(written, tensors, encoder, to) if check else None
    return Conversion(
        output=output,
        encoder=replace(encoder, state_dict={}),
        pixels=encoder.pixels,
        num_tensors_in=num_tensors_in,
        num_tensors_out=len(weights),
        dropped=dropped,
        warnings=[*encoder.warnings, *cast],
        verification=verification,
        sha256_in=sha256_in,
        sha256_out=sha256_out,
    )


def _without_counters(encoder: Encoder, dropped: dict[str, str]) -> dict[str, Tensor]:
    """Drops BatchNorm's counters: they do not affect the output, and FrozenBN has none."""
    counters = [name for name in encoder.state_dict if name.endswith(".num_batches_tracked")]
    dropped |= dict.fromkeys(counters, "counter, without effect")
    return {name: t for name, t in encoder.state_dict.items() if name not in counters}


def _to_float32(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Contiguous float32 tensors that own their storage, which is what would be written."""
    others = Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())
    others.pop("float32", None)
    warnings = [
        f"{count} tensors were {dtype}, stored as float32" for dtype, count in others.items()
    ]
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        own[name] = _own_float32(name, tensor, storages)
        storages.add(own[name].untyped_storage().data_ptr())
    return own, warnings


def _own_float32(name: str, tensor: Tensor, taken: set[int]) -> Tensor:
    tensor = tensor.detach()
    storage = tensor.untyped_storage()
    whole = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in taken
    if tensor.dtype == torch.float32 and tensor.is_contiguous() and whole:
        return tensor  # a copy would cost the file's size in memory
    own = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not torch.isfinite(own).all():
        raise ValueError(f"{name!r} is too large for float32 (it was {tensor.dtype})")
    return own


def _write(weights: dict[str, Tensor], path: Path, suffix: str, to: str, encoder: Encoder) -> None:
    """Writes what Detectron2's checkpointer reads, or a plain state dict for torchvision."""
    about: dict[str, Any] = {}
    if to == "detectron2":
        about = {"__author__": AUTHOR, "matching_heuristics": True}
        about |= encoder.pixels.as_metadata() if encoder.pixels else {}
        about |= {STRIDE_KEY: True} if encoder.stride_in_1x1 else {}
    if suffix == ".safetensors":  # its metadata are texts; a list of numbers is JSON
        safetensors.torch.save_file(weights, path, {k: str(v) for k, v in about.items()})
        return
    model: Any = {k: v.numpy() for k, v in weights.items()} if suffix == ".pkl" else weights
    content = {"model": model, **about} if about else model
    with path.open("wb") as file:
        if suffix == ".pkl":
            pickle.dump(content, file, protocol=4)
        else:
            torch.save(content, file)


def _prove(
    written: Mapping[str, Any], tensors: dict[str, Tensor], encoder: Encoder, to: str
) -> Verification:
    """Compares the content of the file as written with what was read from the input."""
    if to == "detectron2":
        stride = encoder.stride_in_1x1
        return verify(tensors, written["model"], encoder.arch, stride_in_1x1=stride)
    return verify(written, to_detectron2(tensors), encoder.arch)
