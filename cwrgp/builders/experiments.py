"""The experiments of the analysis: which runs each has, as values over a config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode

from cwrgp.builders.solver import local_batch_size
from cwrgp.config.checks import value_of
from cwrgp.config_files import merge_values
from cwrgp.suggestions import suggest


@dataclass(frozen=True)
class Arm:
    """A setting that is run with several seeds.

    Attributes:
        series: its line or row in the figures.
        x: its place on the horizontal axis; None: the experiment has none.
        values: keys of the config that it sets.
    """

    series: str
    x: float | None
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its folders."""
        words = self.series if self.x is None else f"{self.series} {self.x:g}"
        return re.sub(r"[^\w.+]+", "-", words).strip("-").lower()


# Batch whitening inverts a (D, D) covariance of the N samples, so D must be well below N.
_BATCH_WHITENING_WIDTH = 64
_EPS = "METHOD.WHITENING.EPS"
# Computed eigenvalues of PCA and ZCA are raised to EPS. Without one, rounding left a negative one,
# and a loss of NaN, beside a largest of 2,000. It is small, to leave the whitening as it is.
_SHRINKAGE = 1e-6
# For batches that leave this covariance singular: without it nothing can be computed.
_SINGULAR_SHRINKAGE = 0.01
_BATCH_WHITENING = {"PCA": "pca", "ZCA": "zca_bw", "Cholesky": "wmse"}
_GROUP_SAMPLES = 64  # N of CW-RGP; a group of C channels needs C >= N


def _narrow(method: str, **more: Any) -> dict[str, Any]:
    return {"METHOD.NAME": method, "MODEL.PROJECTOR.OUT": _BATCH_WHITENING_WIDTH, **more}


def _whitening() -> list[Arm]:
    volatility = {"MONITOR.TARGET_VOLATILITY": True}  # of methods that have whitened targets
    return [
        Arm("plain", None, _narrow("plain")),
        Arm("BN", None, _narrow("bn")),
        *(
            Arm(series, None, _narrow(name, **volatility))
            for series, name in _BATCH_WHITENING.items()
        ),
        Arm("CW-RGP", None, {"METHOD.NAME": "cwrgp", **volatility}),
    ]


def _penalty() -> list[Arm]:
    weights = (0.0, 0.01, 0.1, 1.0)
    key = "METHOD.CWRGP.COVARIANCE_WEIGHT"
    return [Arm("CW-RGP", weight, {"METHOD.NAME": "cwrgp", key: weight}) for weight in weights]


def _batch_size() -> list[Arm]:
    arms = []
    shrinkage = {_EPS: _SINGULAR_SHRINKAGE}  # at every size, so that nothing but the batch differs
    for size in (32, 64, 256):
        batch = {"SOLVER.BATCH_SIZE": size}
        subbatch = {"METHOD.CWRGP.SUBBATCH_SIZE": min(size, _GROUP_SAMPLES)}
        arms += [
            Arm("CW-RGP", size, {"METHOD.NAME": "cwrgp", **subbatch, **batch}),
            Arm("batch whitening", size, _narrow("wmse", **batch, **shrinkage)),
            Arm("BN", size, _narrow("bn", **batch)),
        ]
    return arms


def _groups() -> list[Arm]:
    arms = []
    for groups in (1, 2, 4, 8):
        values = {"METHOD.NAME": "cwrgp", "METHOD.CWRGP.NUM_GROUPS": groups}
        random = {**values, "METHOD.CWRGP.RANDOM_PARTITION": True}
        fixed = {**values, "METHOD.CWRGP.RANDOM_PARTITION": False}
        # One group is the same under every partition.
        arms.append(Arm("fixed", groups, fixed))
        if groups > 1:
            arms.append(Arm("random", groups, random))
    return arms


EXPERIMENTS = {
    "whitening": _whitening,
    "penalty": _penalty,
    "batch-size": _batch_size,
    "groups": _groups,
}


def experiment_arms(name: str) -> Sequence[Arm]:
    """The arms of an experiment.

    Raises:
        ValueError: an unknown name.
    """
    if name not in EXPERIMENTS:
        known = f"choose one of {', '.join(EXPERIMENTS)}"
        raise ValueError(f"experiment {name!r} is unknown; {suggest(name, EXPERIMENTS, known)}")
    return EXPERIMENTS[name]()


def set_keys(name: str) -> set[str]:
    """The keys of a config that an experiment sets.

    Raises:
        ValueError: an unknown name.
    """
    keys = {key for arm in experiment_arms(name) for key in arm.values}
    return keys | {"SEED", "OUTPUT_DIR", "DATA.ROOT"}


def check_overrides(name: str, before: CfgNode, after: CfgNode) -> None:
    """Refuses to change what an experiment sets: the change would reach some of its runs or none.

    Args:
        name: of the experiment.
        before: config of all runs without the user's changes.
        after: with them.

    Raises:
        ValueError: an unknown experiment, or a changed key that it sets.
    """
    for key in sorted(set_keys(name)):
        if value_of(before, key) != value_of(after, key):
            raise ValueError(f"experiment {name!r} sets {key} itself: omit it")


def arm_config(base: CfgNode, arm: Arm, seed: int, output_dir: str) -> CfgNode:
    """The config of a run.

    Args:
        base: of all runs; not changed. Without an EPS, batch whitening gets a small one.
        arm: over it.
        seed: of the run.
        output_dir: its folder.
    """
    cfg = base.clone()
    cfg.defrost()
    merge_values(cfg, {**arm.values, "SEED": seed, "OUTPUT_DIR": output_dir})
    whitening = cfg.METHOD.WHITENING
    if cfg.METHOD.NAME in _BATCH_WHITENING.values() and whitening.EPS == 0:
        samples = whitening.SUBBATCH_SIZE or local_batch_size(cfg)
        singular = samples <= cfg.MODEL.PROJECTOR.OUT
        whitening.EPS = _SINGULAR_SHRINKAGE if singular else _SHRINKAGE
    return cfg
