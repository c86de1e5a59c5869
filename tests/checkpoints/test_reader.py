"""Reading: every kind of file that is readable, and that nothing in a hostile one is executed."""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import io
import lzma
import os
import pickle
import re
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cwrgp.checkpoints.reader import read_checkpoint, read_with_digest

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
def test_reads_what_torch_saves(tmp_path: Path, stream: bool) -> None:
    path = tmp_path / "checkpoint.any"
    content = {"model": TENSORS, "epoch": 3, "name": "x", "nested": [{"lr": 0.1}]}
    torch.save(content, path, _use_new_zipfile_serialization=not stream)
    found = read_checkpoint(path)
    assert found.keys() == content.keys()
    assert found["nested"] == [{"lr": 0.1}]
    for name, tensor in TENSORS.items():
        assert torch.equal(found["model"][name], tensor)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_a_pickle_of_arrays_as_tensors(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "zoo.pkl"
    arrays = {name: tensor.numpy() for name, tensor in TENSORS.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "score": np.float64(0.5)}, protocol))
    found = read_checkpoint(str(path))
    assert found["score"] == 0.5
    for name, tensor in TENSORS.items():
        assert torch.equal(found["model"][name], tensor)


@pytest.mark.parametrize("kind", ["pickle", "zip", "stream"])
def test_a_hostile_file_executes_nothing(tmp_path: Path, kind: str) -> None:
    path, witness = tmp_path / "hostile.pth", tmp_path / "executed"
    content = {"model": TENSORS, "extra": Hostile(witness)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"extra": Hostile(witness)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match=r"refused: it needs the type '\w+.system'"):
        read_checkpoint(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(Hostile(witness)))  # the bomb does go off elsewhere
    assert witness.exists()


def array_calls() -> dict[str, bytes]:
    """Pickles that make NumPy read pointers out of bytes, if its own classes are called."""
    objects = b"cnumpy\nndarray\n((I1\ntVO\nC\x08AAAAAAAAtR."
    structured = b"cnumpy\ndtype\n(VO\nI0\nI1\ntR."
    reconstruct = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
        b"(I1\n(I1\ntcnumpy\ndtype\n(VO8\nI0\nI1\ntRI00\nC\x08AAAAAAAAtb."
    )
    return {"ndarray": objects, "dtype": structured, "reconstruct": reconstruct}


@pytest.mark.parametrize("name", ["ndarray", "dtype", "reconstruct"])
def test_arrays_of_objects_cannot_be_made_of_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "pointers.pkl"
    path.write_bytes(array_calls()[name])
    with pytest.raises(ValueError, match="is refused: it needs the type .numpy"):
        read_checkpoint(path)


def test_a_small_file_that_unfolds_without_end_is_read_at_once(tmp_path: Path) -> None:
    nested: Any = [0]
    for _ in range(60):
        nested = [nested, nested]
    (tmp_path / "nested.pkl").write_bytes(pickle.dumps({"a": nested}))
    assert len(read_checkpoint(tmp_path / "nested.pkl")["a"]) == 2


@pytest.mark.parametrize("dtype", [">f4", "<i8", "float16", "?"])
def test_arrays_of_every_order_and_type_come_out_right(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "arrays.pkl"
    array = np.arange(6).reshape(2, 3).astype(dtype)
    content = {"c": array, "f": np.asfortranarray(array), "empty": array[:0], "list": [array]}
    path.write_bytes(pickle.dumps(content, 2))
    found = read_checkpoint(path)
    assert np.array_equal(found["c"].numpy(), array) and np.array_equal(found["f"].numpy(), array)
    assert found["empty"].shape == (0, 3) and np.array_equal(found["list"][0].numpy(), array)


def test_a_codec_is_not_reachable_from_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "codec.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(ValueError, match="refused: it needs the type 'codec rot13'"):
        read_checkpoint(path)


def test_a_type_that_is_not_allowed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "formatter.pth"
    torch.save({"model": TENSORS, "args": argparse.HelpFormatter}, path)
    with pytest.raises(
        ValueError, match="refused: it needs the type 'argparse.HelpFormatter'"
    ) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert "unsafe=True would read it, and run the code in it" in str(error.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="is a folder, not a checkpoint file"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "stream", "pickle"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / "cut.pth"
    tensors = {f"t{i}": torch.randn(100) for i in range(10)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({k: v.numpy() for k, v in tensors.items()}))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match="damaged or cut off") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_flipped_byte_inside_a_tensor_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "flipped.pth"
    tensor = torch.full((64,), 1.5)
    torch.save({"a": tensor}, path)
    content = bytearray(path.read_bytes())
    content[content.find(tensor.numpy().tobytes()) + 3] ^= 0xFF
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["a"], tensor)  # torch itself says nothing
    with pytest.raises(ValueError, match="checksum of its record .* does not fit"):
        read_checkpoint(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(ValueError, match="is empty"):
        read_checkpoint(tmp_path / "empty.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="holds a Tensor, not a dictionary"):
        read_checkpoint(tmp_path / "tensor.pth")


def as_tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("model.pth")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def as_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("release/model.pth", content)
    return stream.getvalue()


def as_image(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, kind)
    return stream.getvalue()


def as_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
OTHERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "page": (
        lambda _: b"<!DOCTYPE html><html>404</html>",
        "is a web page (HTML), not a checkpoint: .*; download the file itself",
    ),
    "lfs": (lambda _: LFS, "is a Git LFS pointer, not the checkpoint: run git lfs pull"),
    "gzip": (gzip.compress, "is compressed with gzip: unpack it (gunzip) and give the file in it"),
    "bzip2": (bz2.compress, "is compressed with bzip2: unpack it (bunzip2)"),
    "xz": (lzma.compress, "is compressed with xz: unpack it (unxz)"),
    "tar": (as_tar, "is a tar archive: unpack it (tar -xf) and give the file in it"),
    "zip": (
        as_zip,
        "is a zip archive of 'release/model.pth': unpack it (unzip) and give the file in it",
    ),
    "onnx": (
        lambda _: b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + bytes(100),
        "is an ONNX program, not a checkpoint: give the checkpoint that it was exported from",
    ),
    "onnx without producer": (lambda _: b"\x08\x07:\x10" + bytes(100), "is an ONNX program"),
    "hdf5": (
        lambda _: b"\x89HDF\r\n\x1a\n" + bytes(100),
        "is an HDF5 file (Keras?), not a checkpoint",
    ),
    **{
        kind: (lambda _, kind=kind: as_image(kind), f"is a {kind} image, not a checkpoint")
        for kind in ("PNG", "JPEG", "GIF", "WebP", "TIFF")
    },
    "pdf": (lambda _: b"%PDF-1.7\n", "is a PDF document, not a checkpoint"),
    "npy": (lambda _: as_array(), "is a single NumPy array, not a checkpoint"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_files_of_another_kind_are_named_with_the_remedy(tmp_path: Path, kind: str) -> None:
    make, message = OTHERS[kind]
    whole, path = tmp_path / "whole.pth", tmp_path / "model.pth"
    torch.save({"a": torch.ones(3)}, whole)
    path.write_bytes(make(whole.read_bytes()))
    pattern = re.escape(f"{path} {message}").replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=pattern) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
def test_the_digest_is_that_of_the_file(tmp_path: Path, stream: bool) -> None:
    path = tmp_path / "checkpoint.any"
    torch.save({"model": TENSORS}, path, _use_new_zipfile_serialization=not stream)
    content, digest = read_with_digest(path)
    assert torch.equal(content["model"]["a"], TENSORS["a"])
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["pickle", "zip", "stream"])
def test_a_files_code_runs_only_where_it_is_asked_for(tmp_path: Path, kind: str) -> None:
    path, witness = tmp_path / "own.pth", tmp_path / "executed"
    content: dict[str, Any] = {"a": TENSORS["a"], "args": argparse.Namespace(lr=1)}
    content["code"] = Hostile(witness)
    if kind == "pickle":
        path.write_bytes(pickle.dumps({**content, "a": content["a"].numpy()}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match="unsafe=True would read it"):
        read_checkpoint(path)
    assert not witness.exists()
    found = read_checkpoint(path, unsafe=True)
    assert witness.exists()
    assert torch.equal(found["a"], TENSORS["a"]) and found["args"].lr == 1


def test_a_missing_package_is_named_where_code_may_run(tmp_path: Path) -> None:
    (tmp_path / "other.pkl").write_bytes(b"cnowhere_to_be_found\nConfig\n.")
    with pytest.raises(ValueError, match="not installed: No module named 'nowhere_to_be_found'"):
        read_checkpoint(tmp_path / "other.pkl", unsafe=True)


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pth"])
def test_safetensors(tmp_path: Path, name: str) -> None:
    save_file(TENSORS, tmp_path / name)
    found = read_checkpoint(tmp_path / name)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in TENSORS.items())
    save_file(TENSORS, tmp_path / name, {"matching_heuristics": "True", "__author__": "x"})
    found = read_checkpoint(tmp_path / name)
    assert torch.equal(found.pop("model")["a"], TENSORS["a"])
    assert found == {"matching_heuristics": True, "__author__": "x"}
    save_file(TENSORS, tmp_path / name, {"matching_heuristics": "no"})
    with pytest.raises(ValueError, match="'no', neither true nor false"):
        read_checkpoint(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged or cut off") as error:
        read_checkpoint(tmp_path / name)
    assert "\n" not in str(error.value)


def test_the_name_does_not_tell_the_kind(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "archive.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "archive.safetensors")["a"], TENSORS["a"])


def test_compressed_archives_and_programs_are_refused(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "saved.pth")
    with zipfile.ZipFile(tmp_path / "saved.pth") as saved:
        records = {name: saved.read(name) for name in saved.namelist()}
    with zipfile.ZipFile(tmp_path / "zipped.pth", "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in records.items():
            zipped.writestr(name, content)
    with pytest.raises(ValueError, match="compressed by another program"):
        read_checkpoint(tmp_path / "zipped.pth")
    with zipfile.ZipFile(tmp_path / "saved.pth", "a") as saved:
        saved.writestr("saved/constants.pkl", b"")
    with pytest.raises(ValueError, match="is a TorchScript program"):
        read_checkpoint(tmp_path / "saved.pth")


def test_attributes_cannot_hide_a_dictionarys_methods(tmp_path: Path) -> None:
    state = OrderedDict(a=torch.ones(2))
    # As a module's state dict has it, and another that no module has.
    vars(state).update(_metadata={"": {"version": 2}}, values="hidden")
    torch.save({"model": state}, tmp_path / "hidden.pth")
    assert torch.load(tmp_path / "hidden.pth")["model"].values == "hidden"
    found = read_checkpoint(tmp_path / "hidden.pth")["model"]
    assert len(found.values()) == 1
    assert found._metadata == {"": {"version": 2}}
