"""METHOD and MODEL: encoder, heads and loss."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.builders.errors import config_section
from cwrgp.builders.solver import local_batch_size
from cwrgp.losses.barlow_twins import BarlowTwinsLoss
from cwrgp.losses.batch_whitening import WhiteningLoss
from cwrgp.losses.contrastive import NTXentLoss
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.losses.intl import INTLLoss
from cwrgp.losses.vicreg import VICRegLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_predictor, build_projector
from cwrgp.models.methods import JointEmbedding, Method, SimSiam
from cwrgp.models.momentum_methods import BYOL, MomentumINTL
from cwrgp.seeding import Stream, derive_seed


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
            cfg.MODEL.ARCH,
            stem=cfg.MODEL.STEM,
            zero_init_residual=cfg.MODEL.ZERO_INIT_RESIDUAL,
            activation_checkpointing=cfg.MODEL.ACTIVATION_CHECKPOINTING,
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


def build_method(cfg: CfgNode) -> Method:
    """Builds the method that ``METHOD.NAME`` names, with weights drawn from ``SEED``.

    Raises:
        ValueError: values that cannot work together.
    """
    local_batch_size(cfg)  # raises where the batch cannot be divided, whatever the method
    torch.manual_seed(derive_seed(Stream.WEIGHTS, cfg.SEED))
    return METHODS[cfg.METHOD.NAME](cfg)
