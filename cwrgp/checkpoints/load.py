"""Loads the encoder that is evaluated, from a file of any known format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchvision.models import ResNet

from cwrgp.checkpoints.encoder import Encoder
from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.from_detectron2 import check_stride, extract_backbone, is_converted
from cwrgp.checkpoints.hugging_face import with_settings
from cwrgp.checkpoints.own import read_config
from cwrgp.checkpoints.pixel_statistics import PixelStatistics
from cwrgp.checkpoints.reader import read_with_digest
from cwrgp.file_io.path_manager import local_file
from cwrgp.models.encoders import ENCODERS, build_encoder
from cwrgp.models.resnet import STEMS
from cwrgp.seeding import Stream, derive_seed, forked_generator

RANDOM = "random"


@dataclass(frozen=True)
class Origin:
    """Where weights come from; for random ones ``path`` only."""

    path: str
    sha256: str | None = None
    source: str | None = None
    branch: str | None = None
    warnings: tuple[str, ...] = ()
    pixels: PixelStatistics | None = None


@dataclass(frozen=True)
class Network:
    """The network of a file.

    Attributes:
        encoder: (B, 3, H, W) -> (B, F).
        arch: a key of `ENCODERS`.
        stem: a key of `STEMS`.
        origin: of its weights.
        test_size: side of the test images and of the shorter side before the crop, in pixels, of
            the run that made it; None where the file does not state them.
    """

    encoder: ResNet
    arch: str
    stem: str
    origin: Origin
    test_size: tuple[int, int] | None


def load_network(
    weights: str,
    *,
    stem: str | None = None,
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    unsafe: bool = False,
) -> Network:
    """Builds the network that a file has, and fills it completely.

    Args:
        weights: as for `load_encoder`, but not "random".
        stem: a key of `STEMS`; None: the file's. A file of another project does not show whether a
            3x3 stem has a max pooling; without ``stem`` it is taken to have none.
        source: as for `load_encoder`; so are the others.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds no ResNet, one that cannot be evaluated, or one with
            another stem.
    """
    checkpoint, found, origin = _read(weights, source, branch, prefix, unsafe)
    if found.arch not in ENCODERS:
        raise ValueError(
            f"{weights} holds a {found.arch}; only {', '.join(ENCODERS)} can be evaluated"
        )
    own = read_config(checkpoint) or {}
    if stem is None:
        stem = _of_section(own, "MODEL", "STEM") or found.stem
    _check(weights, found, found.arch, stem, ("arch", "stem"))
    _check_own_stem(weights, checkpoint, stem, "stem")
    encoder = build_encoder(found.arch, stem=stem)
    encoder.load_state_dict(found.state_dict)
    sizes = [_of_section(own, "DATA", key) for key in ("IMAGE_SIZE", "PROBE_RESIZE")]
    known = all(type(size) is int and size > 0 for size in sizes)
    return Network(encoder, found.arch, stem, origin, (sizes[0], sizes[1]) if known else None)


def load_encoder(
    weights: str,
    arch: str,
    stem: str,
    *,
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    unsafe: bool = False,
    seed: int = 0,
    keys: tuple[str, str] = ("arch", "stem"),
) -> tuple[ResNet, Origin]:
    """Builds an encoder and fills it, completely.

    Args:
        weights: a file, a URL or cwrgp://NAME, as `read_checkpoint` has it; "random" draws them.
        arch: of the network, a key of `ENCODERS`.
        stem: of the network, a key of `STEMS`.
        source: format of the file, as `extract_encoder` has it.
        branch: which network of the file, likewise.
        prefix: likewise.
        unsafe: allow the file to run code.
        seed: of random weights.
        keys: what the user knows ``arch`` and ``stem`` by, such as keys of a config, for errors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds another network than ``arch`` with ``stem``.
    """
    if weights == RANDOM:
        if (source, branch, prefix) != ("auto", None, None):
            raise ValueError(
                f"weights {RANDOM!r} has neither a source nor a branch nor a prefix; omit them"
            )
        with forked_generator(derive_seed(Stream.WEIGHTS, seed)):
            return build_encoder(arch, stem=stem), Origin(RANDOM)
    encoder = build_encoder(arch, stem=stem)
    checkpoint, found, origin = _read(weights, source, branch, prefix, unsafe)
    _check(weights, found, arch, stem, keys)
    _check_own_stem(weights, checkpoint, stem, keys[1])
    encoder.load_state_dict(found.state_dict)
    return encoder, origin


def _read(
    weights: str, source: str, branch: str | None, prefix: str | None, unsafe: bool
) -> tuple[Any, Encoder, Origin]:
    """The content of a file, its ResNet, and where that comes from."""
    local = local_file(weights)
    checkpoint, sha256 = read_with_digest(local, unsafe=unsafe)
    try:
        # Of other files for Detectron2, nothing says whether their network takes RGB or BGR.
        if (source, branch, prefix) == ("auto", None, None) and is_converted(checkpoint):
            found = check_stride(extract_backbone(checkpoint), checkpoint, local, None)
        else:
            found = with_settings(extract_encoder(checkpoint, source, branch, prefix), local)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from error
    if found.stride_in_1x1:
        raise ValueError(
            f"{weights} strides in the 1x1 convolutions (downsample_in_bottleneck in its"
            " config.json), which torchvision's ResNets do not"
        )
    origin = Origin(weights, sha256, found.source, found.branch, found.warnings, found.pixels)
    return checkpoint, found, origin


def _of_section(config: Mapping[str, Any], section: str, key: str) -> Any:
    values = config.get(section)
    return values.get(key) if isinstance(values, dict) else None


def _check_own_stem(weights: str, checkpoint: Any, stem: str, key: str) -> None:
    """A file of this project states which small stem it has; its tensors do not show it."""
    own = _of_section(read_config(checkpoint) or {}, "MODEL", "STEM")
    if own not in (None, stem):
        raise ValueError(
            f"{weights} was trained with {key} {own}, which does not fit {key} {stem}; "
            f"{key} {own} would fit"
        )


def _check(weights: str, found: Encoder, arch: str, stem: str, keys: tuple[str, str]) -> None:
    arch_key, stem_key = keys
    kernel = STEMS[found.stem].kernel
    fitting = [name for name, layout in STEMS.items() if layout.kernel == kernel]
    if found.arch == arch and stem in fitting:
        return
    wrong = (
        f"{weights} holds a {found.arch} whose stem is a {kernel}x{kernel} convolution, which does "
        f"not fit {arch_key} {arch} {stem_key} {stem}"
    )
    if found.arch not in ENCODERS:
        raise ValueError(f"{wrong}; only {', '.join(ENCODERS)} can be evaluated")
    raise ValueError(
        f"{wrong}; {arch_key} {found.arch} {stem_key} {' or '.join(fitting)} would fit"
    )
