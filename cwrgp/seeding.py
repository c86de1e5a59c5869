"""Random numbers as a pure function of their purpose, so that a run saves no generator state."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


class Stream(enum.IntEnum):
    """The purposes of random numbers. A value that is in use never changes its meaning."""

    WEIGHTS = 1  # initial weights of a method, or of an encoder that stands for it
    ORDER = 2  # permutation of the images in an epoch of pretraining
    VIEW = 3  # augmentation of an image in an epoch of pretraining
    STEP = 4  # what a method draws in a step
    SUBSET = 5  # images of a data set to pretrain on
    PROBE_SUBSET = 6  # images of a split that a probe uses
    LABEL_SUBSET = 7  # labelled images of a class to fine-tune on
    PROBE_WEIGHTS = 8  # initial weights of a classifier
    PROBE_ORDER = 9  # permutation of the images in an epoch of a probe
    PROBE_VIEW = 10  # augmentation of an image in an epoch of a probe
    DETECTION_SUBSET = 11  # images of a detection data set to fine-tune on
    DETECTION_ORDER = 12  # order of the images in a fine-tuning
    DETECTION_VIEW = 13  # augmentation of an image in a fine-tuning
    DETECTION_STEP = 14  # anchors and proposals that a step of a fine-tuning samples
    PRECISE_BN = 15  # batches that the statistics of BatchNorm come from


def derive_seed(stream: Stream, seed: int, *parts: int) -> int:
    """A seed for one purpose, independent of the seeds of all other purposes.

    NumPy's seed sequences keep the run's seed and the rest of the key apart. The number of parts
    is in the key, so that (3,) and (3, 0) differ.

    Args:
        stream: the purpose.
        seed: the run's; non-negative.
        parts: what the purpose is repeated over, such as epoch and image; in [0, 2^32).

    Returns:
        An integer in [0, 2^63), for ``torch.Generator.manual_seed``.
    """
    return int(_sequence(stream, seed, parts).generate_state(1, np.uint64)[0] >> 1)


def numpy_generator(stream: Stream, seed: int, *parts: int) -> np.random.Generator:
    """A generator for one purpose; the arguments are those of `derive_seed`."""
    return np.random.Generator(np.random.PCG64(_sequence(stream, seed, parts)))


def _sequence(stream: Stream, seed: int, parts: tuple[int, ...]) -> np.random.SeedSequence:
    assert all(0 <= part < 2**32 for part in parts), parts
    return np.random.SeedSequence(seed, spawn_key=(stream, len(parts), *parts))


@contextmanager
def forked_generator(seed: int) -> Iterator[None]:
    """Seeds torch's default CPU generator within a ``with``; its state is restored after it.

    ``torch.manual_seed`` would also initialise CUDA, in every worker of a loader.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def forked_generators(seed: int) -> Iterator[None]:
    """Seeds the default CPU generators of torch, NumPy and Python within a ``with``.

    Their states are restored after it. This is for code of others that draws from them; the
    project's own takes a generator.

    Args:
        seed: in [0, 2^63).
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    try:
        with forked_generator(seed):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
