"""METHOD and MODEL: encoder, heads and loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.builders.solver import local_batch_size
from cwrgp.losses.barlow_twins import BarlowTwinsLoss
from cwrgp.losses.batch_whitening import WhiteningLoss
from cwrgp.losses.contrastive import NTXentLoss
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.losses.intl import INTLLoss, trace_weight
from cwrgp.losses.vicreg import VICRegLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_predictor, build_projector
from cwrgp.models.methods import BYOL, JointEmbedding, Method, MomentumINTL, SimSiam
from cwrgp.seeding import Stream, derive_seed


def build_cwrgp(cfg: CfgNode) -> JointEmbedding:
    """Channel whitening with random group partition."""
    c = cfg.METHOD.CWRGP
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


def build_whitening(cfg: CfgNode, *, axis: str, method: str) -> JointEmbedding:
    """One of the other whitening losses."""
    c = cfg.METHOD.WHITENING
    loss = WhiteningLoss(axis, method, c.SUBBATCH_SIZE, c.NUM_DRAWS, eps=c.EPS)
    loss.check(local_batch_size(cfg), cfg.MODEL.PROJECTOR.OUT)
    return JointEmbedding(*build_networks(cfg), loss, cfg.METHOD.NAME)


def build_wmse(cfg: CfgNode) -> JointEmbedding:
    """W-MSE."""
    return build_whitening(cfg, axis="batch", method="cholesky")


def build_zero_icl(cfg: CfgNode) -> JointEmbedding:
    """The instance part of Zero-CL: channel whitening in one group, without random partition."""
    return build_whitening(cfg, axis="channel", method="zca")


def build_plain(cfg: CfgNode) -> JointEmbedding:
    """No whitening: it collapses."""
    return build_whitening(cfg, axis="batch", method="none")


def build_bn(cfg: CfgNode) -> JointEmbedding:
    """Each channel standardised over the batch."""
    return build_whitening(cfg, axis="batch", method="standardize")


def build_pca(cfg: CfgNode) -> JointEmbedding:
    """Batch whitening along the principal axes."""
    return build_whitening(cfg, axis="batch", method="pca")


def build_zca_bw(cfg: CfgNode) -> JointEmbedding:
    """Batch whitening with the symmetric root."""
    return build_whitening(cfg, axis="batch", method="zca")


def build_intl(cfg: CfgNode) -> Method:
    """IterNorm with trace loss; with a momentum network where METHOD.EMA is positive."""
    c = cfg.METHOD.INTL
    weight = None if c.TRACE_WEIGHT < 0 else c.TRACE_WEIGHT
    if weight is None:
        trace_weight(cfg.SOLVER.BATCH_SIZE // cfg.SOLVER.ACCUMULATE)
    loss = INTLLoss(c.ITERATIONS, weight)
    if cfg.METHOD.EMA:
        return MomentumINTL(*build_networks(cfg), loss, cfg.METHOD.EMA)
    return JointEmbedding(*build_networks(cfg), loss, joint_projector=False)


def build_simclr(cfg: CfgNode) -> JointEmbedding:
    """SimCLR."""
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
        raise ValueError("METHOD.EMA 0 leaves byol without a momentum network; set it, as to 0.996")
    return BYOL(*build_networks(cfg), _predictor(cfg), cfg.METHOD.EMA)


def build_simsiam(cfg: CfgNode) -> SimSiam:
    """SimSiam."""
    return SimSiam(*build_networks(cfg), _predictor(cfg))


def build_networks(cfg: CfgNode) -> tuple[nn.Module, nn.Sequential]:
    """Encoder and projector of MODEL."""
    encoder = build_encoder(
        cfg.MODEL.ARCH, stem=cfg.MODEL.STEM, zero_init_residual=cfg.MODEL.ZERO_INIT_RESIDUAL
    )
    c = cfg.MODEL.PROJECTOR
    projector = build_projector(
        encoder.inplanes,
        hidden_features=c.HIDDEN,
        out_features=c.OUT,
        num_layers=c.LAYERS,
        hidden_bias=c.HIDDEN_BIAS,
        last_bn=c.LAST_BN,
    )
    return encoder, projector


def _predictor(cfg: CfgNode) -> nn.Sequential:
    return build_predictor(
        cfg.MODEL.PROJECTOR.OUT,
        hidden_features=cfg.MODEL.PREDICTOR.HIDDEN,
        hidden_bias=cfg.MODEL.PROJECTOR.HIDDEN_BIAS,
    )


METHODS: dict[str, Callable[[CfgNode], Method]] = {
    "cwrgp": build_cwrgp,
    "wmse": build_wmse,
    "intl": build_intl,
    "simclr": build_simclr,
    "byol": build_byol,
    "simsiam": build_simsiam,
    "barlow_twins": build_barlow_twins,
    "vicreg": build_vicreg,
    "zero_icl": build_zero_icl,
    "plain": build_plain,
    "bn": build_bn,
    "pca": build_pca,
    "zca_bw": build_zca_bw,
}


def build_method(cfg: CfgNode) -> Method:
    """The method that ``METHOD.NAME`` names, with weights drawn from ``SEED``.

    Raises:
        ValueError: unknown name, or values that cannot work together.
    """
    name, ema = cfg.METHOD.NAME, cfg.METHOD.EMA
    if name not in METHODS:
        raise ValueError(f"METHOD.NAME {name!r} is unknown; choose one of {list(METHODS)}")
    if not 0 <= ema < 1:
        raise ValueError(f"METHOD.EMA {ema} is outside [0, 1)")
    if ema and name not in ("byol", "intl"):
        raise ValueError(f"METHOD.EMA {ema}: {name} has no momentum network; leave it at 0")
    local_batch_size(cfg)  # says whether it divides, for the methods that do not ask
    torch.manual_seed(derive_seed(Stream.WEIGHTS, cfg.SEED))
    return METHODS[name](cfg)
