"""The encoder that is probed, from a file of any known format."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import yaml
from torchvision.models import ResNet

from cwrgp.checkpoints.extract import Encoder, extract_encoder
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.file_io.digest import file_digest
from cwrgp.file_io.path_manager import local_file
from cwrgp.models.encoders import ARCHITECTURES, build_encoder
from cwrgp.seeding import Stream, derive_seed, forked_generator

RANDOM = "random"
# What the shape of conv1 tells of MODEL.STEM.
_STEMS = {"imagenet": ("imagenet",), "small": ("small", "small_pool")}


@dataclass(frozen=True)
class Origin:
    """Where weights come from; for random ones ``path`` only."""

    path: str
    sha256: str | None = None
    source: str | None = None
    branch: str | None = None
    warnings: tuple[str, ...] = ()


def load_encoder(
    weights: str,
    arch: str,
    stem: str,
    *,
    source: str = "auto",
    branch: str | None = None,
    unsafe: bool = False,
    seed: int = 0,
) -> tuple[ResNet, Origin]:
    """Builds an encoder and fills it, completely.

    Args:
        weights: a file, a URL or cwrgp://NAME, as `read_checkpoint` has it; "random" draws them.
        arch: MODEL.ARCH.
        stem: MODEL.STEM.
        source: format of the file, as `extract_encoder` has it.
        branch: which network of the file, likewise.
        unsafe: let the file run code.
        seed: of random weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds another network than ``arch`` with ``stem``.
    """
    if weights == RANDOM:
        if (source, branch) != ("auto", None):
            raise ValueError("--weights random has neither --source nor --branch; leave them away")
        with forked_generator(derive_seed(Stream.WEIGHTS, seed)):
            return build_encoder(arch, stem=stem), Origin(RANDOM)
    encoder = build_encoder(arch, stem=stem)
    checkpoint = read_checkpoint(weights, unsafe=unsafe)
    try:
        found = extract_encoder(checkpoint, source, branch)
    except ValueError as error:
        # The converter lists the formats.
        hint = str(error).replace("--list", "tools/convert_to_d2.py --list")
        raise ValueError(f"{weights}: {hint}") from error
    _check(weights, found, arch, stem)
    _check_own_stem(weights, checkpoint, stem)
    encoder.load_state_dict(found.state_dict)
    return encoder, Origin(
        weights, file_digest(local_file(weights)), found.source, found.branch, found.warnings
    )


def _check_own_stem(weights: str, checkpoint: Any, stem: str) -> None:
    """A file of this project's says which small stem it has, which its tensors do not tell."""
    with contextlib.suppress(KeyError, TypeError, yaml.YAMLError):
        own = yaml.safe_load(checkpoint["config"])["MODEL"]["STEM"]
        if own != stem:
            raise ValueError(
                f"{weights} was trained with MODEL.STEM {own}, but the config says {stem}; "
                f"MODEL.STEM {own} would fit"
            )


def _check(weights: str, found: Encoder, arch: str, stem: str) -> None:
    fitting = _STEMS[found.stem]
    if found.arch == arch and stem in fitting:
        return
    kernel = {"imagenet": "7x7", "small": "3x3"}[found.stem]
    wrong = f"{weights} holds a {found.arch} whose stem is a {kernel} convolution, but the config "
    wrong += f"says MODEL.ARCH {arch} MODEL.STEM {stem}"
    if found.arch not in ARCHITECTURES:
        raise ValueError(f"{wrong}; of architectures there are {', '.join(ARCHITECTURES)} only")
    raise ValueError(
        f"{wrong}; MODEL.ARCH {found.arch} MODEL.STEM {' or '.join(fitting)} would fit"
    )
