"""Randomly damaged files: each converts with a passing proof, or is refused in one line."""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from encoders import authors_checkpoint, make_encoder, own_checkpoint
from published import PUBLISHED
from torch import Tensor

from d2_transfer.conversion import SUFFIXES, convert_file
from d2_transfer.proof import TOLERANCE_FLOAT64

FORMATS = ("zip", "stream", "pickle", "safetensors")
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64)


def save(content: dict[str, Any], path: Path, form: str) -> None:
    if form == "zip":
        torch.save(content, path)
    elif form == "stream":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif form == "pickle":
        arrays = {k: v.numpy() for k, v in make_encoder(18).items()}
        path.write_bytes(pickle.dumps(arrays, protocol=2))
    else:
        safetensors.torch.save_file(make_encoder(18), path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An undamaged file of every format."""
    folder = tmp_path_factory.mktemp("whole")
    for form in FORMATS:
        save(authors_checkpoint(18), folder / form, form)
    return {form: folder / form for form in FORMATS}


def flip_bytes(path: Path, rng: random.Random) -> str:
    """In the first or the last thousand bytes, where the structure is, or anywhere."""
    size, count = path.stat().st_size, rng.choice((1, 1, 3, 30, 1000))
    start, stop = rng.choice(((0, 1000), (size - 20_000, size), (0, size)))
    with path.open("r+b") as file:
        for _ in range(count):
            place = rng.randrange(start, stop)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ (1 << rng.randrange(8))]))
    return f"{count} bits flipped in {start}..{stop}"


def truncate(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    left = rng.choice((0, rng.randrange(100), rng.randrange(size), size - 1 - rng.randrange(100)))
    with path.open("r+b") as file:
        file.truncate(left)
    return f"cut to {left} of {size} bytes"


def _some_key(tensors: dict[str, Tensor], rng: random.Random) -> str:
    return rng.choice([key for key, value in tensors.items() if isinstance(value, Tensor)])


def rename(tensors: dict[Any, Any], rng: random.Random) -> str:
    key = _some_key(tensors, rng)
    cut = rng.randrange(len(key))
    new: Any = rng.choice(
        (key[:cut] + key[cut + 1 :], key[:cut] + "." + key[cut:], f"x{key}", "", 3, key[::-1])
    )
    tensors[new] = tensors.pop(key)
    return f"{key!r} -> {new!r}"


def change_dtype(tensors: dict[str, Tensor], rng: random.Random) -> str:
    key, dtype = _some_key(tensors, rng), rng.choice(DTYPES)
    tensors[key] = tensors[key].to(dtype)
    return f"{key!r} -> {dtype}"


def change_shape(tensors: dict[str, Tensor], rng: random.Random) -> str:
    key = _some_key(tensors, rng)
    tensor = tensors[key]
    tensors[key] = rng.choice((tensor[None], tensor.flatten(), tensor.repeat_interleave(2, -1)
                               if tensor.ndim else tensor[None], torch.zeros(0)))  # fmt: skip
    return f"{key!r} -> {tuple(tensors[key].shape)}"


def change_values(tensors: dict[str, Tensor], rng: random.Random) -> str:
    key = _some_key(tensors, rng)
    value = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 3e38))
    tensors[key] = torch.full_like(tensors[key], value) if tensors[key].is_floating_point() else 7
    return f"{key!r} -> {value}"


def remove(tensors: dict[str, Tensor], rng: random.Random) -> str:
    key = _some_key(tensors, rng)
    del tensors[key]
    return f"{key!r} removed"


def add(tensors: dict[str, Any], rng: random.Random) -> str:
    key = _some_key(tensors, rng)
    new = rng.choice((f"{key}.weight", f"momentum.{key}", key.replace("layer", "layer1"), "extra"))
    tensors[new] = rng.choice((torch.ones(3), "text", None, {"a": 1}, tensors[key]))
    return f"{new!r} added"


BYTES: tuple[Callable[[Path, random.Random], str], ...] = (flip_bytes, truncate)
CONTENT: tuple[Callable[[dict[str, Any], random.Random], str], ...] = (
    rename, change_dtype, change_shape, change_values, remove, add,
)  # fmt: skip
_LAYOUTS = {"own": own_checkpoint, "authors": authors_checkpoint, "moco": PUBLISHED["moco"].build}


def damage(path: Path, whole: dict[str, Path], rng: random.Random) -> str:
    """Writes a damaged file, and says what was done."""
    if rng.random() < 0.5:
        form = rng.choice(FORMATS)
        shutil.copy(whole[form], path)
        return f"{form}: {rng.choice(BYTES)(path, rng)}"
    layout = rng.choice(list(_LAYOUTS))
    content = dict(_LAYOUTS[layout](18))
    container = "model" if layout == "own" else "state_dict"
    tensors = dict(content[container])  # type: ignore[call-overload]
    done = [rng.choice(CONTENT)(tensors, rng) for _ in range(rng.choice((1, 1, 2)))]
    content[container] = tensors
    torch.save(content, path)
    return f"{layout}: {', '.join(done)}"


def check_one(seed: int, whole: dict[str, Path], folder: Path) -> bool:
    """Whether it was converted."""
    rng = random.Random(seed)
    path, output = folder / "in", folder / f"out{rng.choice(SUFFIXES)}"
    what = f"seed {seed}: {damage(path, whole, rng)}"
    try:
        conversion = convert_file(path, output)
    except (ValueError, OSError) as error:
        assert str(error), what
        assert "Traceback" not in str(error), what
        assert sorted(file.name for file in folder.iterdir()) == ["in"], what
        return False
    assert conversion.verification is not None
    assert conversion.verification.float64 <= TOLERANCE_FLOAT64, what
    output.unlink()
    return True


def test_undamaged_files_convert(whole: dict[str, Path], tmp_path: Path) -> None:
    for path in whole.values():
        convert_file(path, tmp_path / "out.pkl")


SLOW = [pytest.param(range(n, n + 250), marks=pytest.mark.slow) for n in range(0, 1000, 250)]


@pytest.mark.parametrize("seeds", [range(30), *SLOW], ids=lambda r: f"{r.start}-{r.stop}")
def test_converted_with_proof_or_refused(
    whole: dict[str, Path], tmp_path: Path, seeds: range
) -> None:
    converted = sum(check_one(seed, whole, tmp_path) for seed in seeds)
    print(f"{converted} of {len(seeds)} damaged files converted, the rest refused")
    assert 0 < converted < len(seeds)  # both happen: neither is for want of the other
