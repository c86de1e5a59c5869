"""Shards of images whose grey value is their number."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image

from cwrgp.data.augment.reference import ReferenceViews
from cwrgp.data.loaders import iterate_views
from cwrgp.data.reader import load_rgb
from cwrgp.data.samplers import StepSampler
from cwrgp.data.shards import Shards
from cwrgp.data.views import Views

SIDE = 8


def png(value: int) -> bytes:
    """A grey image that tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (value, value, value)).save(file, "png")
    return file.getvalue()


def write_shards(folder: Path, counts=(5, 3, 8), *, broken=()) -> str:
    """Image i of all is grey of value i and of class i modulo 3."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard, count in enumerate(counts):
        with webdataset.TarWriter(str(folder / f"part-{shard:03d}.tar")) as writer:
            for _ in range(count):
                content = b"no image" if number in broken else png(number)
                key = f"folder.of.images/{number:04d}" if number % 2 else f"image{number:04d}"
                meta = json.dumps({"number": number})
                writer.write({"__key__": key, "cls": number % 3, "json": meta, "png": content})
                number += 1
    return str(folder / f"part-{{000..{len(counts) - 1:03d}}}.tar")


def numbers(images) -> list[int]:
    return [load_rgb(images, index).getpixel((0, 0))[0] for index in range(len(images))]


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def run_of(source: str, rank: int, world: int, *, workers: int, start: int = 0) -> list[list[int]]:
    """The numbers of the images in each of a process's batches, over three epochs."""
    shards = Shards(source)
    sampler = StepSampler(
        len(shards), 8, start_step=start, total_steps=6, seed=3, rank=rank, world_size=world
    )
    views = Views(shards, ReferenceViews([to_tensor], seed=3))
    batches = iterate_views(views, sampler, num_workers=workers, pin_memory=False)
    return [batch[0][:, 0, 0, 0].tolist() for batch in batches]
