"""METHOD and MODEL: encoder, heads and loss."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator

import torch
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.builders.solver import local_batch_size
from cwrgp.losses.barlow_twins import BarlowTwinsLoss
from cwrgp.losses.batch_whitening import WhiteningLoss
from cwrgp.losses.contrastive import NTXentLoss
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.losses.intl import INTLLoss
from cwrgp.losses.vicreg import VICRegLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_predictor, build_projector
from cwrgp.models.methods import BYOL, JointEmbedding, Method, MomentumINTL, SimSiam
from cwrgp.seeding import derive_seed

logger = logging.getLogger("cwrgp")


@contextlib.contextmanager
def config_section(cfg: CfgNode, name: str) -> Iterator[None]:
    """Turns an error that names an argument into one that names the key, or at least the section.

    Nothing below the builders knows the configuration, so errors there name the arguments of
    functions and classes.

    Args:
        cfg: the configuration.
        name: the section that the arguments come from, such as "METHOD.CWRGP".

    Raises:
        ValueError: "METHOD.CWRGP.EPS 2 is ..." for "eps 2 is ..."; "METHOD.CWRGP: " and the message
            where it does not start with the name of a key.
    """
    try:
        yield
    except ValueError as error:
        section = functools.reduce(getattr, name.split("."), cfg)
        argument, _, rest = str(error).partition(" ")
        if argument.upper() in section:
            raise ValueError(f"{name}.{argument.upper()} {rest}") from error
        raise ValueError(f"{name}: {error}") from error


def build_cwrgp(cfg: CfgNode) -> JointEmbedding:
    """CW-RGP."""
    c = cfg.METHOD.CWRGP
    with config_section(cfg, "METHOD.CWRGP"):
        loss = CWRGPLoss(
            num_groups=c.NUM_GROUPS,
            subbatch_size=c.SUBBATCH_SIZE,
            num_draws=c.NUM_DRAWS,
            random_partition=c.RANDOM_PARTITION,
            normalize=c.NORMALIZE,
            eps=c.EPS,
            covariance_weight=c.COVARIANCE_WEIGHT,
            covariance_epochs=c.COVARIANCE_EPOCHS,
        )
        loss.check(local_batch_size(cfg), cfg.MODEL.PROJECTOR.OUT)
    return JointEmbedding(*build_networks(cfg), loss, "cwrgp")


def build_whitening(cfg: CfgNode, *, name: str, axis: str, method: str) -> JointEmbedding:
    """One of the other whitening losses."""
    c = cfg.METHOD.WHITENING
    with config_section(cfg, "METHOD.WHITENING"):
        loss = WhiteningLoss(axis, method, c.SUBBATCH_SIZE, c.NUM_DRAWS, eps=c.EPS)
        loss.check(local_batch_size(cfg), cfg.MODEL.PROJECTOR.OUT)
    return JointEmbedding(*build_networks(cfg), loss, name)


def build_intl(cfg: CfgNode) -> Method:
    """INTL; with a momentum network where METHOD.EMA is positive."""
    c = cfg.METHOD.INTL
    with config_section(cfg, "METHOD.INTL"):
        loss = INTLLoss(c.ITERATIONS, None if c.TRACE_WEIGHT < 0 else c.TRACE_WEIGHT)
        loss.check(local_batch_size(cfg), cfg.MODEL.PROJECTOR.OUT)
    if cfg.METHOD.EMA:
        return MomentumINTL(*build_networks(cfg), loss, cfg.METHOD.EMA)
    return JointEmbedding(*build_networks(cfg), loss, joint_projector=False)


def build_simclr(cfg: CfgNode) -> JointEmbedding:
    """SimCLR."""
    with config_section(cfg, "METHOD.SIMCLR"):
        loss = NTXentLoss(cfg.METHOD.SIMCLR.TEMPERATURE)
    return JointEmbedding(*build_networks(cfg), loss, "simclr")


def build_barlow_twins(cfg: CfgNode) -> JointEmbedding:
    """Barlow Twins."""
    c = cfg.METHOD.BARLOW_TWINS
    loss = BarlowTwinsLoss(c.OFF_DIAGONAL, c.SCALE)
    return JointEmbedding(*build_networks(cfg), loss, "barlow_twins", joint_projector=False)


def build_vicreg(cfg: CfgNode) -> JointEmbedding:
    """VICReg."""
    c = cfg.METHOD.VICREG
    loss = VICRegLoss(c.INVARIANCE, c.VARIANCE, c.COVARIANCE)
    return JointEmbedding(*build_networks(cfg), loss, "vicreg", joint_projector=False)


def build_byol(cfg: CfgNode) -> BYOL:
    """BYOL."""
    if cfg.METHOD.EMA == 0:
        raise ValueError("METHOD.EMA 0 gives byol no momentum network; set it to 0.996, say")
    return BYOL(*build_networks(cfg), _build_predictor(cfg), cfg.METHOD.EMA)


def build_simsiam(cfg: CfgNode) -> SimSiam:
    """SimSiam."""
    return SimSiam(*build_networks(cfg), _build_predictor(cfg))


def build_networks(cfg: CfgNode) -> tuple[nn.Module, nn.Sequential]:
    """Encoder and projector of MODEL."""
    with config_section(cfg, "MODEL"):
        encoder = build_encoder(
            cfg.MODEL.ARCH, stem=cfg.MODEL.STEM, zero_init_residual=cfg.MODEL.ZERO_INIT_RESIDUAL
        )
    c = cfg.MODEL.PROJECTOR
    with config_section(cfg, "MODEL.PROJECTOR"):
        projector = build_projector(
            encoder.inplanes,
            hidden_features=c.HIDDEN,
            out_features=c.OUT,
            num_layers=c.LAYERS,
            hidden_bias=c.HIDDEN_BIAS,
            last_bn=c.LAST_BN,
        )
    return encoder, projector


def _build_predictor(cfg: CfgNode) -> nn.Sequential:
    return build_predictor(
        cfg.MODEL.PROJECTOR.OUT,
        hidden_features=cfg.MODEL.PREDICTOR.HIDDEN,
        hidden_bias=cfg.MODEL.PROJECTOR.HIDDEN_BIAS,
    )


# Whitening losses besides CW-RGP: name -> axis, method. All but W-MSE are for the analysis.
_WHITENING = {
    "wmse": ("batch", "cholesky"),
    "plain": ("batch", "none"),
    "bn": ("batch", "standardize"),
    "pca": ("batch", "pca"),
    "zca_bw": ("batch", "zca"),
    "zca_cw": ("channel", "zca"),
}

METHODS: dict[str, Callable[[CfgNode], Method]] = {
    "cwrgp": build_cwrgp,
    "intl": build_intl,
    "simclr": build_simclr,
    "byol": build_byol,
    "simsiam": build_simsiam,
    "barlow_twins": build_barlow_twins,
    "vicreg": build_vicreg,
    **{
        name: functools.partial(build_whitening, name=name, axis=axis, method=method)
        for name, (axis, method) in _WHITENING.items()
    },
}

# Names in older configurations.
_RENAMED = {"zero_icl": "zca_cw"}


def _method_name(cfg: CfgNode) -> str:
    """``METHOD.NAME``; for one that was renamed the new name, with a warning."""
    name: str = cfg.METHOD.NAME
    if name not in _RENAMED:
        return name
    logger.warning("METHOD.NAME %s is now called %s; set it to that", name, _RENAMED[name])
    return _RENAMED[name]


def build_method(cfg: CfgNode) -> Method:
    """Builds the method that ``METHOD.NAME`` names, with weights drawn from ``SEED``.

    Raises:
        ValueError: unknown name, or values that cannot work together.
    """
    name, ema = _method_name(cfg), cfg.METHOD.EMA
    if name not in METHODS:
        raise ValueError(f"METHOD.NAME {name!r} is unknown; choose one of {list(METHODS)}")
    if not 0 <= ema < 1:
        raise ValueError(f"METHOD.EMA {ema} is outside [0, 1)")
    if ema and name not in ("byol", "intl"):
        raise ValueError(f"METHOD.EMA {ema}: {name} has no momentum network; set it to 0")
    local_batch_size(cfg)  # raises where the batch cannot be divided, whatever the method
    torch.manual_seed(derive_seed(cfg.SEED))
    return METHODS[name](cfg)
