"""One run of an experiment: a pretraining, and the indicators of the network that it ends in."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from cwrgp.builders.data import build_images, build_normalize, build_specs, root_of
from cwrgp.builders.methods import build_method
from cwrgp.builders.probes import probe_transform
from cwrgp.builders.solver import build_precision
from cwrgp.checkpoints.own import unpack
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.commands.pretraining_run import run_pretraining
from cwrgp.data.augment.reference import build_view_transform
from cwrgp.data.base import LabelledImages
from cwrgp.data.subsets import ImageSubset, sample_indices
from cwrgp.data.views import ProbeImages, Transform
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.features import extract_features
from cwrgp.indicators import indicators, pair_indicators
from cwrgp.launch import local_device
from cwrgp.preemption import StopRequest
from cwrgp.seeding import Stream, derive_seed, forked_generator
from cwrgp.spectrum import covariance_spectrum
from cwrgp.trackers.jsonl import NAME, read_metrics
from cwrgp.version import __version__

NUM_IMAGES = 2000  # that the indicators are of; several times the channels of a ResNet-18
_NOT_CURVES = ("iteration", "lr", "time", "data_time", "eta_seconds", "max_mem_mb")


def pretrain_and_measure(cfg: CfgNode, stop: StopRequest) -> dict[str, Any]:
    """Trains, or goes on with it, and measures.

    Args:
        cfg: of the run.
        stop: whether a signal has asked the run to stop.

    Returns:
        ``curves``: key of ``metrics.json`` -> iterations and values; ``indicators`` and
        ``spectra``: "encoder" and "embedding" -> what they are of :func:`measured_images`;
        ``width``: the channels of both; ``knn``: top-1 in percent, None without labels;
        ``environment``.

    Raises:
        ValueError, OSError, FloatingPointError, Preempted: as `run_pretraining`.
    """
    run_pretraining(cfg, resume=True, or_start=True, stop=stop)
    folder = Path(cfg.OUTPUT_DIR)
    curves = read_curves(folder)
    device = local_device()
    precision = Precision.choose(device, enabled=False, layout="auto")
    with precision.ieee_fp32():
        stages = _final_stages(cfg, precision)
        features, pairs = _features(cfg, stages, precision)
    for periodic in folder.glob("model_[0-9]*.pth"):
        periodic.unlink()
    knn = [values[-1] for key, (_, values) in curves.items() if key.startswith("knn")]
    return {
        "curves": curves,
        "indicators": {
            stage: indicators(x) | pair_indicators(*pairs[stage]) for stage, x in features.items()
        },
        "spectra": {stage: covariance_spectrum(x).tolist() for stage, x in features.items()},
        "width": {stage: x.shape[1] for stage, x in features.items()},
        "knn": knn[0] if knn else None,
        "environment": environment(build_precision(cfg, device)),
    }


def read_curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The records of a run by key: iterations, counted from 1, and values."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for record in read_metrics(folder / NAME):
        for key, value in record.items():
            if key not in _NOT_CURVES:
                iterations, values = curves.setdefault(key, ([], []))
                iterations.append(int(record["iteration"]) + 1)
                values.append(value)
    return curves


def environment(precision: Precision) -> dict[str, str]:
    """Versions, hardware, and the number format of the training."""
    on_gpu = precision.device.type == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else torch.cpu.get_capabilities()["cpu_name"]
    return {
        "cwrgp": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "device": str(device),
        "number format": precision.describe(),
    }


def measured_images(cfg: CfgNode) -> tuple[LabelledImages, bool]:
    """At most `NUM_IMAGES` images that indicators are of, the same for all runs.

    Returns:
        The images, and whether they are held out; without a test split they are training images.
    """
    held_out = build_images(cfg, "test")
    images = build_images(cfg, "train") if held_out is None else held_out
    assert images is not None
    chosen = sample_indices(len(images), NUM_IMAGES, Stream.PROBE_SUBSET, 0)
    return ImageSubset(images, chosen), held_out is not None


def check_enough(cfg: CfgNode, count: int, widths: Sequence[int]) -> None:
    """Refuses fewer images than the covariance has dimensions.

    Raises:
        ValueError: names the folder.
    """
    if count <= max(widths):
        raise ValueError(
            f"{' '.join(root_of(cfg, 'test'))} has {count} images to measure; a covariance of"
            f" {max(widths)} dimensions needs more than {max(widths)}"
        )


class _Stages(nn.Module):
    """Encoder output and embedding side by side, so that both take one pass."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.width = int(encoder.inplanes)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        return torch.cat([features, self.projector(features).to(features.dtype)], 1)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """(n, F + D) -> (n, F) and (n, D)."""
        return {"encoder": x[:, : self.width], "embedding": x[:, self.width :]}


def _final_stages(cfg: CfgNode, precision: Precision) -> _Stages:
    """The networks of ``model_final.pth``."""
    path = Path(cfg.OUTPUT_DIR) / "model_final.pth"
    method = build_method(cfg)
    method.load_state_dict(unpack(read_checkpoint(path), path).model)
    precision.prepare(method)
    return _Stages(method.encoder, method.projector)


def _features(
    cfg: CfgNode, stages: _Stages, precision: Precision
) -> tuple[dict[str, Tensor], dict[str, tuple[Tensor, Tensor]]]:
    """Of the images as a probe sees them, and of two random views of each."""
    images, _ = measured_images(cfg)
    widths = (stages.width, cfg.MODEL.PROJECTOR.OUT)
    check_enough(cfg, len(images), widths)

    def of(transform: Transform) -> dict[str, Tensor]:
        features, _ = extract_features(
            stages,
            ProbeImages(_Unlabelled(images), transform, max_unreadable=len(images)),
            normalize=build_normalize(cfg, precision.device),
            batch_size=cfg.EVAL.BATCH_SIZE,
            num_workers=0,  # the random views draw from this process's generator
            device=precision.device,
            autocast=precision.autocast(),
        )
        check_enough(cfg, len(features), widths)  # without those that cannot be read
        return stages.split(features.cpu())

    plain = of(probe_transform(cfg, "bicubic"))
    with forked_generator(derive_seed(Stream.PROBE_VIEW, 0)):
        first, second = (of(build_view_transform(spec)) for spec in build_specs(cfg)[:2])
    return plain, {stage: (first[stage], second[stage]) for stage in plain}


class _Unlabelled(ImageSubset):
    """The same images as if all had a label: features are kept of those that have one."""

    def __init__(self, images: LabelledImages) -> None:
        super().__init__(images, range(len(images)))
        self.labels = self.labels.clip(0)
