"""Files that are often given in place of a checkpoint: what they are, and what to do instead."""

from __future__ import annotations

from pathlib import Path

from cwrgp.file_io.download import is_web_page

START = 512  # bytes from which the kind is told

# How a file begins -> its kind, and what to do.
_COMPRESSED = {
    b"\x1f\x8b": ("compressed with gzip", "gunzip"),
    b"BZh": ("compressed with bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("compressed with xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x"),
}
_LFS = b"version https://git-lfs.github.com/spec/"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TAR_MARK = slice(257, 262)


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
    if start.startswith(_LFS):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the checkpoint: run git lfs pull in its repository"
        )
    if start.startswith(_HDF5):
        raise ValueError(f"{path} is an HDF5 file (Keras?), not a checkpoint of PyTorch")
    if start[_TAR_MARK] == b"ustar":
        raise ValueError(f"{path} is a tar archive: unpack it (tar -xf) and give the file in it")
    for mark, (kind, command) in _COMPRESSED.items():
        if start.startswith(mark):
            raise ValueError(f"{path} is {kind}: unpack it ({command}) and give the file in it")
