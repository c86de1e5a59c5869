"""A data set of small images as one tensor on the device of the training."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from cwrgp.data.augment.batched import make_batch
from cwrgp.data.augment.parameters import NUM_UNIFORMS, sample_parameters
from cwrgp.data.augment.spec import ViewSpec
from cwrgp.data.reader import ImageReader
from cwrgp.images import decode_rgb
from cwrgp.seeding import Stream, numpy_generator

MAX_BYTES = 4 * 2**30  # STL-10 has 2.9 GB


class NotResident(ValueError):
    """The images cannot be one tensor: they differ in size, or need too much memory."""


def load_images(reader: ImageReader, num_threads: int) -> Tensor:
    """Decodes all images of a data set. An unreadable one is replaced by the next readable one.

    Args:
        reader: of the data set.
        num_threads: that decode.

    Returns:
        uint8 (n, 3, H, W).

    Raises:
        NotResident: not all images have one size, or they need more than `MAX_BYTES`.
        ValueError: too many images are unreadable.
    """

    def decode(content: bytes | np.ndarray, name: str) -> np.ndarray:
        return np.asarray(decode_rgb(content, name))

    size = len(reader.images)
    pixels: np.ndarray = np.empty(0)
    readable = np.ones(size, dtype=bool)
    with ThreadPoolExecutor(max(1, num_threads)) as pool, ExitStack() as stack:
        images = pool.map(lambda index: reader.read(index, decode), range(size))
        stack.callback(images.close)  # type: ignore[attr-defined]  # a generator; cancels the rest
        for index, image in enumerate(images):
            if image is None:
                readable[index] = False
                continue
            if not pixels.size:
                if size * image.nbytes > MAX_BYTES:
                    raise NotResident(
                        f"{size} images of {image.shape[1]} x {image.shape[0]} pixels need "
                        f"{size * image.nbytes / 2**30:.1f} GiB, more than {MAX_BYTES // 2**30}"
                    )
                pixels = np.empty((size, 3, *image.shape[:2]), dtype=np.uint8)
            if image.shape[:2] != pixels.shape[2:]:
                (h, w), (first_h, first_w) = image.shape[:2], pixels.shape[2:]
                raise NotResident(
                    f"{reader.images.name(index)} has {w} x {h} pixels and an image before it "
                    f"{first_w} x {first_h}"
                )
            pixels[index] = image.transpose(2, 0, 1)
    (found,), (missing,) = readable.nonzero(), (~readable).nonzero()
    pixels[missing] = pixels[found[found.searchsorted(missing) % len(found)]]
    return torch.from_numpy(pixels)


class ResidentViews:
    """V random views of each image of a batch, made on the device that holds the images.

    They are a pure function of (seed, epoch, index), whatever else is in the batch.

    Args:
        images: uint8 (n, 3, H, W).
        specs: one for each view.
        seed: the run's.
    """

    def __init__(self, images: Tensor, specs: Sequence[ViewSpec], *, seed: int) -> None:
        self.images = images
        self.specs = list(specs)
        self.seed = seed

    def __call__(self, keys: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The views of (epoch, index) pairs: V tensors, uint8 (B, 3, S, S)."""
        shape = (len(self.specs), NUM_UNIFORMS)
        uniforms = np.stack(
            [numpy_generator(Stream.VIEW, self.seed, *key).random(shape) for key in keys]
        )
        indices = torch.tensor([index for _, index in keys])
        batch = self.images[indices.to(self.images.device, non_blocking=True)]
        height, width = batch.shape[2:]
        return [
            make_batch(batch, spec, sample_parameters(spec, height, width, uniforms[:, view]))
            for view, spec in enumerate(self.specs)
        ]


def iterate_resident(
    views: ResidentViews, batch_sampler: Iterable[list[tuple[int, int]]]
) -> Generator[list[Tensor], None, None]:
    """Iterates over batches as `cwrgp.data.loaders.iterate_views` does, without processes."""
    for keys in batch_sampler:
        yield views(keys)
