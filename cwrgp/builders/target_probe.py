"""The fixed batch of which a run records how far its whitened targets move."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from cwrgp.builders.data import build_normalize
from cwrgp.builders.run import Run
from cwrgp.builders.solver import local_batch_size
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import StepSampler
from cwrgp.engine.target_probe import TargetProbe
from cwrgp.models.methods import JointEmbedding, Method


def check_target_volatility(cfg: CfgNode, method: Method) -> None:
    """Checks that the method has whitened targets, if their movement is to be recorded.

    Raises:
        ValueError: MONITOR.TARGET_VOLATILITY is on, and the method inverts no covariance.
    """
    inverts = isinstance(method, JointEmbedding) and method.loss.inverts_covariance
    if cfg.MONITOR.TARGET_VOLATILITY and not inverts:
        raise ValueError(
            "MONITOR.TARGET_VOLATILITY is for methods that whiten by a covariance (cwrgp, wmse, "
            f"pca, zca_bw, zca_cw); METHOD.NAME {cfg.METHOD.NAME} does not"
        )


def build_target_probe(run: Run) -> TargetProbe | None:
    """A view of samples of the first batch of the run, so that a resumed run has the same ones.

    Args:
        run: its images are read here, in this process.

    Returns:
        None where MONITOR.TARGET_VOLATILITY is off.

    Raises:
        ValueError: it is on, and the method inverts no covariance.
    """
    cfg = run.cfg
    if not cfg.MONITOR.TARGET_VOLATILITY:
        return None
    check_target_volatility(cfg, run.method)
    section = cfg.METHOD.CWRGP if cfg.METHOD.NAME == "cwrgp" else cfg.METHOD.WHITENING
    size = section.SUBBATCH_SIZE or local_batch_size(cfg)
    sampler = StepSampler(
        len(run.views), size, start_step=0, total_steps=1, seed=cfg.SEED, rank=0, world_size=1
    )
    views = next(iterate_views(run.views, sampler, num_workers=0, pin_memory=False))
    return TargetProbe(
        views[0], normalize=build_normalize(cfg, run.precision.device), precision=run.precision
    )
