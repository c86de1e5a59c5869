"""Encoder in torchvision's names <-> Detectron2's, strict both ways; whole files, with proof."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cwrgp.pretrained.reader import local_file, read_checkpoint
from cwrgp.pretrained.sources import Encoder, extract_encoder
from d2_transfer.atomic import replacing
from d2_transfer.proof import Verification, verify

SUFFIXES = (".pkl", ".pth")

AUTHOR = "cwrgp tools/convert_to_d2.py"  # Detectron2 logs it, and d2_transfer.weights knows it
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


@dataclass(frozen=True)
class Conversion:
    """What `convert_file` did.

    Attributes:
        encoder: what was found in the input.
        num_tensors_out: tensors in the output.
        dropped: key in the input -> why it is not in the output.
        warnings: what a user should know although the conversion is correct.
        verification: the proof, made with the file as written.
        sha256_in: of the input file.
        sha256_out: of the output file.
    """

    encoder: Encoder
    num_tensors_out: int
    dropped: dict[str, str]
    warnings: list[str]
    verification: Verification
    sha256_in: str
    sha256_out: str


def convert_file(
    input_file: str | Path, output_file: str | Path, source: str = "auto"
) -> Conversion:
    """Converts a checkpoint's encoder into a file that Detectron2 loads, and proves the result.

    The output is written under a temporary name in the same folder, read back, verified, and only
    then renamed: whatever goes wrong, an existing output stays as it was and no new one appears.

    Args:
        input_file: a checkpoint of one of `cwrgp.pretrained.sources.SOURCES`.
        output_file: ``.pkl`` (NumPy arrays, Detectron2's classic format) or ``.pth`` (tensors).
            Both are float32 and carry ``matching_heuristics``, with which Detectron2 finds res5 in
            a C4 detector's head as well as in an FPN's backbone.
        source: name of the input's format, or ``"auto"``.

    Returns:
        An account of the conversion.

    Raises:
        FileNotFoundError: no such input.
        ValueError: the input is refused, the output's name is wrong, or the proof failed.
    """
    output = Path(output_file)
    if output.suffix not in SUFFIXES:
        raise ValueError(f"OUTPUT {output}: the name must end in {' or '.join(SUFFIXES)}")
    local = local_file(input_file)
    if output.exists() and output.samefile(local):
        raise ValueError(f"OUTPUT {output} is the INPUT file: choose another name")
    encoder = extract_encoder(read_checkpoint(local), source)
    if encoder.stem != "imagenet":
        raise ValueError(
            f"{input_file}: this encoder cannot be transferred: its first convolution is 3x3 with"
            " stride 1 (made for small images), that of Detectron2's ResNets is 7x7 with stride 2;"
            " pretrain with the ImageNet stem"
        )
    tensors, dropped = _without_counters(encoder.state_dict)
    tensors, warnings = _to_float32(tensors)
    weights = to_detectron2(tensors)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        _write(weights, temporary, output.suffix)
        verification = verify(tensors, read_checkpoint(temporary)["model"], encoder.arch)
    return Conversion(
        encoder=encoder,
        num_tensors_out=len(weights),
        dropped={**encoder.dropped, **dropped},
        warnings=warnings,
        verification=verification,
        sha256_in=sha256(local),
        sha256_out=sha256(output),
    )


def to_detectron2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a ResNet from torchvision's to Detectron2's names; inverse of `to_torchvision`.

    Args:
        state_dict: tensors under torchvision's names, without ``fc``.

    Returns:
        The same tensors, in the same order, under the names of `build_resnet_backbone`.

    Raises:
        ValueError: a name that no torchvision ResNet has.
    """
    return {_detectron2_name(name): tensor for name, tensor in state_dict.items()}


def to_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a ResNet from Detectron2's to torchvision's names; inverse of `to_detectron2`.

    Raises:
        ValueError: a name that no ResNet backbone of Detectron2 has.
    """
    return {_torchvision_name(name): tensor for name, tensor in state_dict.items()}


def _detectron2_name(name: str) -> str:
    if name == "conv1.weight":
        return "stem.conv1.weight"
    if match := re.fullmatch(rf"bn1\.{_NORM}", name):
        return f"stem.conv1.norm.{match[1]}"
    if block := re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", name):
        prefix, part = f"res{int(block[1]) + 1}.{block[2]}", block[3]
        if match := re.fullmatch(r"conv([1-3])\.weight", part):
            return f"{prefix}.conv{match[1]}.weight"
        if match := re.fullmatch(rf"bn([1-3])\.{_NORM}", part):
            return f"{prefix}.conv{match[1]}.norm.{match[2]}"
        if part == "downsample.0.weight":
            return f"{prefix}.shortcut.weight"
        if match := re.fullmatch(rf"downsample\.1\.{_NORM}", part):
            return f"{prefix}.shortcut.norm.{match[1]}"
    raise ValueError(f"{name!r} is no name of a torchvision ResNet without its classifier")


def _torchvision_name(name: str) -> str:
    if name == "stem.conv1.weight":
        return "conv1.weight"
    if match := re.fullmatch(rf"stem\.conv1\.norm\.{_NORM}", name):
        return f"bn1.{match[1]}"
    if block := re.fullmatch(r"res([2-5])\.(\d+)\.(.+)", name):
        prefix, part = f"layer{int(block[1]) - 1}.{block[2]}", block[3]
        if match := re.fullmatch(r"conv([1-3])\.weight", part):
            return f"{prefix}.conv{match[1]}.weight"
        if match := re.fullmatch(rf"conv([1-3])\.norm\.{_NORM}", part):
            return f"{prefix}.bn{match[1]}.{match[2]}"
        if part == "shortcut.weight":
            return f"{prefix}.downsample.0.weight"
        if match := re.fullmatch(rf"shortcut\.norm\.{_NORM}", part):
            return f"{prefix}.downsample.1.{match[1]}"
    raise ValueError(f"{name!r} is no name of a Detectron2 ResNet backbone")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _without_counters(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Leaves out BatchNorm's counters: they change no output, and FrozenBN has no place for one."""
    kept = {k: v for k, v in tensors.items() if not k.endswith(".num_batches_tracked")}
    return kept, {k: "counter, without effect" for k in tensors if k not in kept}


def _to_float32(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Copies to contiguous float32; without a copy, a view's whole storage would be written."""
    others = Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())
    others.pop("float32", None)
    warnings = [
        f"{count} tensors were {dtype}, stored as float32" for dtype, count in others.items()
    ]
    copies = {
        key: tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for key, tensor in tensors.items()
    }
    return copies, warnings


def _write(weights: dict[str, Tensor], path: Path, suffix: str) -> None:
    """Writes what Detectron2's checkpointer reads."""
    model = {k: v.numpy() for k, v in weights.items()} if suffix == ".pkl" else weights
    content = {"model": model, "__author__": AUTHOR, "matching_heuristics": True}
    with path.open("wb") as file:
        if suffix == ".pkl":
            pickle.dump(content, file, protocol=4)
        else:
            torch.save(content, file)
