"""MODEL.WEIGHTS: a new run starts from the encoder of a checkpoint."""

from __future__ import annotations

import copy
import logging
import re
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.builders.errors import config_key
from cwrgp.checkpoints.load import RANDOM, Origin, load_encoder
from cwrgp.checkpoints.pixel_statistics import from_unit_range
from cwrgp.models.methods import Method
from cwrgp.models.momentum_methods import MomentumMethod

logger = logging.getLogger("cwrgp")

# Largest difference of the features in float64, relative to the largest feature. Both networks do
# the same operations, so that anything above rounding means different weights.
TOLERANCE = 1e-9

_OPTION = re.compile(r"\b(?:prefix='|unsafe=True)")  # which the configuration does not have


@dataclass(frozen=True)
class LoadedWeights:
    """The weights that a run starts from.

    Attributes:
        origin: where they come from.
        difference: the largest difference of the features, see `feature_difference`.
    """

    origin: Origin
    difference: float


def load_weights(cfg: CfgNode, method: Method) -> LoadedWeights:
    """Fills the encoder of a method, and its momentum encoder, from MODEL.WEIGHTS. Heads stay.

    Args:
        cfg: validated; its MODEL.WEIGHTS is not empty.
        method: newly built, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds another network than the configuration describes.
    """
    with config_key("MODEL.WEIGHTS"):
        if cfg.MODEL.WEIGHTS == RANDOM:
            raise ValueError(f"{RANDOM} names no file; leave it empty for random weights")
        try:
            encoder, origin = load_encoder(
                cfg.MODEL.WEIGHTS,
                cfg.MODEL.ARCH,
                cfg.MODEL.STEM,
                keys=("MODEL.ARCH", "MODEL.STEM"),
            )
        except ValueError as error:
            if not _OPTION.search(str(error)):
                raise
            raise ValueError(
                f"{error}; that is an option of cwrgp-convert, whose OUTPUT.pkl MODEL.WEIGHTS takes"
            ) from error
        targets = [method.encoder]
        if isinstance(method, MomentumMethod):
            targets.append(method.momentum_encoder)
        for target in targets:
            target.load_state_dict(encoder.state_dict(), strict=True)
        difference = max(feature_difference(encoder, target) for target in targets)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"the features of the encoder differ from those of the file by {difference:.1e} "
                f"(relative, float64; at most {TOLERANCE:.0e} is allowed)"
            )
    return LoadedWeights(origin, difference)


@torch.no_grad()
def feature_difference(first: nn.Module, second: nn.Module) -> float:
    """The largest difference of two encoders' features, relative to the largest feature.

    Both are copied, and run in float64 and evaluation mode on a seeded random image of 96 x 64
    pixels.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 96, 64, generator=generator, dtype=torch.float64)
    a, b = (copy.deepcopy(network).double().eval()(images) for network in (first, second))
    return float((a - b).abs().max() / a.abs().max())


def report_weights(cfg: CfgNode, loaded: LoadedWeights) -> None:
    """Logs where the weights come from, the proof, and what the user should know about them."""
    where, origin = f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS}", loaded.origin
    logger.info(
        "%s: %s%s, SHA-256 %s; the features of the encoder equal those of the file's "
        "network (largest relative difference in float64: %.1e)",
        where,
        f"{origin.branch} branch of " if origin.branch else "",
        origin.source,
        origin.sha256,
        loaded.difference,
    )
    for warning in origin.warnings:
        logger.warning("%s: %s", where, warning)
    own = from_unit_range(cfg.DATA.MEAN, cfg.DATA.STD)
    if origin.pixels is not None and not origin.pixels.agrees_with(own):
        logger.warning(
            "%s: its network was trained with %s; DATA.MEAN and DATA.STD give %s",
            where,
            origin.pixels,
            own,
        )
