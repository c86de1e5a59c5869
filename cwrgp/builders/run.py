"""All objects of a pretraining run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode

from cwrgp.builders.data import build_views
from cwrgp.builders.methods import build_method
from cwrgp.builders.probes import build_probe
from cwrgp.builders.solver import build_learning_rate, build_plan, build_solver
from cwrgp.builders.weights import LoadedWeights, load_weights
from cwrgp.data.base import LabelledImages
from cwrgp.data.views import Views
from cwrgp.engine.plan import Plan
from cwrgp.engine.precision import Precision
from cwrgp.models.batch_norm import synchronize_batch_norm
from cwrgp.models.methods import Method


@dataclass(frozen=True, kw_only=True)
class Run:
    """The objects of a run.

    Attributes:
        cfg: frozen.
        precision: number format and device.
        views: the images, augmented.
        plan: when things happen.
        learning_rate: of a step.
        method: on its device.
        optimizer: over its parameters.
        scaler: of its losses.
        probe: the k-NN accuracy of its encoder; {} without labels.
        weights: those of MODEL.WEIGHTS; None where the run does not start from them.
    """

    cfg: CfgNode
    precision: Precision
    views: Views
    plan: Plan
    learning_rate: Callable[[int], float]
    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    probe: Callable[[], dict[str, float]]
    weights: LoadedWeights | None = None


def build_run(
    cfg: CfgNode,
    precision: Precision,
    images: LabelledImages,
    *,
    probe: bool,
    new: bool = True,
) -> Run:
    """Builds the objects of a run. Writes nothing.

    Args:
        cfg: validated.
        precision: number format and device.
        images: to pretrain on, from `cwrgp.builders.data.build_pretraining_images`.
        probe: whether the probe is used; its images are not opened otherwise.
        new: whether the run starts, and thus from MODEL.WEIGHTS where this is set.

    Raises:
        ValueError: a value that cannot work.
        FileNotFoundError: missing data or weights.
    """
    views = build_views(cfg, images)
    plan = build_plan(cfg, len(views))
    learning_rate = build_learning_rate(cfg, plan)
    method = build_method(cfg)
    weights = load_weights(cfg, method) if cfg.MODEL.WEIGHTS and new else None
    precision.prepare(method)
    synchronize_batch_norm(method, precision.device)
    return Run(
        cfg=cfg,
        precision=precision,
        views=views,
        plan=plan,
        learning_rate=learning_rate,
        method=method,
        optimizer=build_solver(cfg, method, learning_rate(0)),
        scaler=precision.scaler(),
        probe=build_probe(cfg, method.encoder, precision) if probe else dict,
        weights=weights,
    )
