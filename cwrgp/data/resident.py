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

MAX_SIDE = 128  # pixels; of larger images, few fit into memory
MAX_BYTES = 4 * 2**30


class DifferentSizes(ValueError):
    """The images cannot be one tensor, since they differ in size."""


def load_images(reader: ImageReader, num_threads: int) -> Tensor:
    """Decodes all images of a data set. An unreadable one is replaced by the next readable one.

    Args:
        reader: of the data set.
        num_threads: that decode.

    Returns:
        uint8 (n, 3, H, W).

    Raises:
        DifferentSizes: not all images have one size.
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
                pixels = np.empty((size, *image.shape), dtype=np.uint8)
            if image.shape != pixels.shape[1:]:
                (h, w), (first_h, first_w) = image.shape[:2], pixels.shape[1:3]
                raise DifferentSizes(
                    f"{reader.images.name(index)} has {w} x {h} pixels and an image before it "
                    f"{first_w} x {first_h}"
                )
            pixels[index] = image
    (found,), (missing,) = readable.nonzero(), (~readable).nonzero()
    pixels[missing] = pixels[found[found.searchsorted(missing) % len(found)]]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


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
