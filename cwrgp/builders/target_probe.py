"""The fixed batch of which a run records how far its whitened targets move."""

from __future__ import annotations

from cwrgp.builders.data import build_normalize
from cwrgp.builders.run import Run
from cwrgp.comm import get_world_size
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import StepSampler
from cwrgp.engine.target_probe import TargetProbe
from cwrgp.models.methods import JointEmbedding


def build_target_probe(run: Run) -> TargetProbe | None:
    """A view of samples of the first batch of the run, so that a resumed run has the same ones.

    Args:
        run: its images are read here, in this process.

    Returns:
        None where MONITOR.TARGET_VOLATILITY is off.

    Raises:
        ValueError: it is on, and the method inverts no covariance.
    """
    cfg, method = run.cfg, run.method
    if not cfg.MONITOR.TARGET_VOLATILITY:
        return None
    if not isinstance(method, JointEmbedding) or not method.loss.inverts_covariance:
        raise ValueError(
            "MONITOR.TARGET_VOLATILITY is for methods that whiten by a covariance (cwrgp, wmse, "
            f"pca, zca_bw, zca_cw); METHOD.NAME {cfg.METHOD.NAME} does not"
        )
    section = cfg.METHOD.CWRGP if cfg.METHOD.NAME == "cwrgp" else cfg.METHOD.WHITENING
    size = section.SUBBATCH_SIZE or cfg.SOLVER.BATCH_SIZE // get_world_size()
    sampler = StepSampler(
        len(run.views), size, start_step=0, total_steps=1, seed=cfg.SEED, rank=0, world_size=1
    )
    views = next(iterate_views(run.views, sampler, num_workers=0, pin_memory=False))
    return TargetProbe(
        views[0], normalize=build_normalize(cfg, run.precision.device), precision=run.precision
    )
