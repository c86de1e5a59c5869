"""Files that are often given in place of a checkpoint: what they are, and what to do instead."""

from __future__ import annotations

import re
from pathlib import Path

from cwrgp.file_io.download import is_web_page

START = 512  # bytes that the kind is recognised by

_UNPACK = "unpack it ({}) and give the file in it"
_NO_CHECKPOINT = "not a checkpoint"

# How a file of another kind begins (a regular expression) -> its kind, and what to do.
_KINDS = {
    rb"version https://git-lfs.github.com/spec/": (
        "a Git LFS pointer, not the checkpoint: run git lfs pull in its repository"
    ),
    rb"\x89HDF\r\n\x1a\n": (
        "an HDF5 file (Keras?), not a checkpoint of PyTorch: load it with the program that wrote it"
        " and save the network in PyTorch"
    ),
    # A protocol buffer: the version of the format, then the name of the program that wrote it.
    rb"\x08[\x01-\x20](?:\x12[\x01-\x40][ -~]|:)": (
        "an ONNX program, not a checkpoint: give the checkpoint that it was exported from"
    ),
    rb".{257}ustar": f"a tar archive: {_UNPACK.format('tar -xf')}",
    rb"\x1f\x8b": f"compressed with gzip: {_UNPACK.format('gunzip')}",
    rb"BZh": f"compressed with bzip2: {_UNPACK.format('bunzip2')}",
    rb"\xfd7zXZ\x00": f"compressed with xz: {_UNPACK.format('unxz')}",
    rb"\x28\xb5\x2f\xfd": f"compressed with zstd: {_UNPACK.format('unzstd')}",
    rb"7z\xbc\xaf\x27\x1c": f"a 7z archive: {_UNPACK.format('7z x')}",
    rb"\x89PNG\r\n\x1a\n": f"a PNG image, {_NO_CHECKPOINT}",
    rb"\xff\xd8\xff": f"a JPEG image, {_NO_CHECKPOINT}",
    rb"GIF8[79]a": f"a GIF image, {_NO_CHECKPOINT}",
    rb"RIFF.{4}WEBP": f"a WebP image, {_NO_CHECKPOINT}",
    rb"II\*\x00|MM\x00\*": f"a TIFF image, {_NO_CHECKPOINT}",
    rb"%PDF-": f"a PDF document, {_NO_CHECKPOINT}",
    rb"\x93NUMPY": f"a single NumPy array, {_NO_CHECKPOINT}",
}


class OtherFile(Exception):
    """What a file is instead of a checkpoint, and what to do."""


def refuse_other_file(start: bytes, path: str | Path) -> None:
    """Raises ValueError if a file is of a known other kind, with its kind and the remedy.

    Args:
        start: its first `START` bytes, or all of it if it is shorter.
        path: for the message.
    """
    if is_web_page(start):
        raise ValueError(
            f"{path} is a web page (HTML), not a checkpoint: the address was that of a page, or the"
            " server asked for a login; download the file itself"
        )
    for beginning, kind in _KINDS.items():
        if re.match(beginning, start, re.DOTALL):
            raise ValueError(f"{path} is {kind}")


_CAFFE2_NAME = re.compile(r"res\d_\d+_branch\d[abc]?(?:_bn)?_[wbs]")
CAFFE2_ADVICE = (
    "the names are Caffe2's ('res2_0_branch2a_w'), as in the ImageNet weights of Detectron2's first"
    " zoo (R-50.pkl), whose BatchNorm statistics are merged into scales; give the file to"
    " Detectron2 itself, or take torchvision's weights"
)


def is_caffe2_name(name: str) -> bool:
    """Whether this is a name of a ResNet's tensor in Caffe2."""
    return _CAFFE2_NAME.fullmatch(name) is not None
