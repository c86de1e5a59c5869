"""Checkpoints side by side: spectra stage by stage, ranks, similarity, and nearest neighbours."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cwrgp.analysis.checkpoints import collect, write_outputs
from cwrgp.analysis.results import RESULTS
from cwrgp.analysis.stages import STAGES, PooledStages
from cwrgp.checkpoints.load import Network, load_network
from cwrgp.commands.analysis_trials import read_trials
from cwrgp.commands.embed import IMAGE_SIZE, RESIZE, normalize_of, readable_images
from cwrgp.commands.experiment_plan import PLAN
from cwrgp.data.augment.reference import build_test_transform, build_view_transform
from cwrgp.data.augment.spec import ViewSpec
from cwrgp.data.listed import ListedImages
from cwrgp.data.reader import ImageReader
from cwrgp.data.subsets import sample_indices
from cwrgp.data.views import ProbeImages, Transform
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.features import check_finite, extract_features
from cwrgp.image_files import name_below, named_images
from cwrgp.images import decode_rgb
from cwrgp.indicators import indicators, pair_indicators
from cwrgp.launch import local_device
from cwrgp.seeding import Stream, derive_seed, forked_generator
from cwrgp.spectrum import covariance_spectrum

# Images for the spectra; more than the 2048 channels of a ResNet-50.
NUM_IMAGES = 2500
NUM_PAIRS = 500  # of these, in two views each, for the alignment
NUM_QUERIES, NUM_NEIGHBOURS = 6, 5
_BATCH = 50


def analyze_weights(
    weights: Sequence[str],
    data: Path,
    output: Path,
    *,
    trials: Path | None,
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    unsafe: bool = False,
) -> dict[str, Any]:
    """Analyses checkpoints on the images of a folder and writes the files of the analysis.

    Args:
        weights: NAME=FILE, or FILE; what `load_network` takes.
        data: folder of images.
        output: folder of the results.
        trials: results.json of ``cwrgp-trials``, or its folder, whose arms have the same names or
            files; or None.
        source: as for `load_network`; so are the others.

    Returns:
        The content of ``results.json``; see `cwrgp.analysis.checkpoints.collect`.

    Raises:
        ValueError: other results in the folder, weights that hold no ResNet, names
            that occur twice or are missing, fewer images than channels, or trials without any of
            the weights.
        FileNotFoundError: no such file or folder.
    """
    if (output / PLAN).exists() or not _is_free(output / RESULTS):
        raise ValueError(f"output {output} holds other results; choose another folder")
    named = _named(weights)
    aps = None if trials is None else read_trials(trials, named)
    networks = {
        name: load_network(file, source=source, branch=branch, prefix=prefix, unsafe=unsafe)
        for name, file in named.items()
    }
    files, unreadable = _draw_images(data)
    for name, network in networks.items():
        width = network.encoder.inplanes
        if len(files) <= width:
            raise ValueError(
                f"data {data} has {_readable(files, unreadable)}; the spectrum of {name},"
                f" with {width} channels, needs more than {width}"
            )
    found = {}
    for name, network in networks.items():
        print(f"{name}: {network.arch}, {network.origin.source}", flush=True)
        try:
            found[name] = _analyze(network, files)
        except FloatingPointError:
            raise FloatingPointError(
                f"weights {named[name]}: the features are not finite, in float32; the weights have"
                " diverged or are damaged"
            ) from None
    queries = _spread(len(files), NUM_QUERIES)
    for name, (record, features) in found.items():
        record["path"] = named[name]
        record["neighbours"] = _neighbours(features, queries)
    # File names need not be UTF-8, but JSON and HTML are.
    names = [_printable(name_below(file, data)) for file in files]
    results = collect(
        {name: record for name, (record, _) in found.items()},
        data=str(data),
        images=names,
        unreadable=unreadable,
        queries=queries,
        trials=aps,
    )
    shown = {*queries} | {
        index for record, _ in found.values() for row in record["neighbours"] for index in row
    }
    pictures = {index: decode_rgb(files[index].read_bytes(), names[index]) for index in shown}
    for picture in pictures.values():
        picture.thumbnail((128, 128))
    write_outputs(output, results, pictures)
    return results


def _is_free(results: Path) -> bool:
    """Whether there are no results, or those of checkpoints, which may be replaced."""
    if not results.exists():
        return True
    try:
        content = json.loads(results.read_text())
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("kind") == "checkpoints"


def _named(weights: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for word in weights:
        name, sign, file = word.partition("=")
        if not sign or "/" in name or Path(word).exists():
            name, file = _short_name(word), word
        if not name or not file:
            raise ValueError(f"weights {word!r}: write NAME=FILE, or FILE alone")
        if name in named:
            raise ValueError(f"weights {word!r}: the name {name!r} is given twice; use NAME=FILE")
        named[name] = file
    return named


def _short_name(file: str) -> str:
    """The file's name, or its folder's for the names that every run has."""
    path = Path(file)
    return path.parent.name if path.stem.startswith("model_") and path.parent.name else path.stem


def _draw_images(data: Path) -> tuple[list[Path], dict[str, str]]:
    """`NUM_IMAGES` images of a folder, and which of them cannot be read, and why."""
    listed = named_images([data])
    chosen = sample_indices(len(listed), NUM_IMAGES, Stream.PROBE_SUBSET, 0)
    files, unreadable = readable_images([listed[index] for index in sorted(chosen)], None)
    reader = ImageReader(ListedImages(files), max_unreadable=len(files))
    for index in range(len(files)):  # damaged pixels do not show in a header
        reader.read(index, decode_rgb)
    damaged = reader.reasons()
    unreadable |= {str(files[index]): reason for index, reason in damaged.items()}
    unreadable = {_printable(file): reason for file, reason in unreadable.items()}
    return [file for index, file in enumerate(files) if index not in damaged], unreadable


def _readable(files: Sequence[Path], unreadable: Mapping[str, str]) -> str:
    count = f"{len(files)} images that can be read"
    if not unreadable:
        return count
    first, problem = next(iter(unreadable.items()))
    return f"{count} ({len(unreadable)} cannot; the first is {first}: {problem})"


def _analyze(network: Network, files: Sequence[Path]) -> tuple[dict[str, Any], Tensor]:
    """The record of a checkpoint, and the features of its last stage, normalised."""
    precision = Precision.choose(local_device(), enabled=False, layout="auto")
    stages = precision.prepare(PooledStages(network.encoder, network.arch))
    assert isinstance(stages, PooledStages)
    image_size, resize = network.test_size or (IMAGE_SIZE, RESIZE)

    def features(transform: Transform, chosen: Sequence[Path]) -> dict[str, Tensor]:
        x, _ = extract_features(
            stages,
            ProbeImages(ListedImages(chosen), transform, max_unreadable=0),
            normalize=normalize_of(network).to(precision.device),
            batch_size=_BATCH,
            num_workers=0,  # the random views draw from this process's generator
            device=precision.device,
            autocast=precision.autocast(),
            report=bar.update,
        )
        check_finite(x)
        return stages.split(x.cpu())

    plain_transform = build_test_transform(
        image_size=image_size, resize=resize, interpolation="bicubic"
    )
    view_transform = build_view_transform(_view_spec(image_size))
    total = len(files) + 2 * NUM_PAIRS
    with precision.ieee_fp32(), tqdm(total=total, unit="image", disable=None) as bar:
        plain = features(plain_transform, files)
        # Spread over the list: the files of one class stand together in it.
        paired = [files[i] for i in _spread(len(files), NUM_PAIRS)]
        with forked_generator(derive_seed(Stream.PROBE_VIEW, 0)):
            first, second = (features(view_transform, paired) for _ in range(2))
    origin = asdict(network.origin)
    record = {
        "arch": network.arch,
        "stem": network.stem,
        "image_size": image_size,
        "source": origin["source"],
        "sha256": origin["sha256"],
        "stages": {
            stage: {
                "width": plain[stage].shape[1],
                "indicators": indicators(plain[stage])
                | pair_indicators(first[stage], second[stage]),
                "spectrum": covariance_spectrum(plain[stage]).tolist(),
            }
            for stage in STAGES
        },
    }
    return record, F.normalize(plain[STAGES[-1]], dim=1)


def _view_spec(image_size: int) -> ViewSpec:
    """The views of the ImageNet recipes."""
    return ViewSpec(
        image_size=image_size,
        crop_scale=(0.2, 1.0),
        interpolation="bilinear",
        crop_first=True,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_prob=0.8,
        grayscale_prob=0.2,
        blur_prob=0.5,
        solarize_prob=0.0,
        flip_prob=0.5,
    )


def _spread(size: int, count: int) -> list[int]:
    """Places from the first to the last of a list."""
    return np.linspace(0, size - 1, count).astype(int).tolist()


def _neighbours(features: Tensor, queries: Sequence[int]) -> list[list[int]]:
    """The nearest other images of each query by the cosine of the features."""
    cosines = features[queries] @ features.T
    cosines[torch.arange(len(queries)), torch.tensor(queries)] = -2
    return cosines.topk(NUM_NEIGHBOURS, dim=1).indices.tolist()


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")
