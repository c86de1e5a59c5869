"""A whole step of training: against fp32, contiguous memory and the obvious loss; its monitor."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from benchmark_rows.losses import looped_loss
from benchmark_rows.timing import Pair, Row
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.precision import DTYPES, Precision
from cwrgp.engine.target_probe import TargetProbe
from cwrgp.launch import local_device
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_projector
from cwrgp.models.methods import JointEmbedding, Output
from cwrgp.number_format import NumberFormat, fastest, time_steps


def rows() -> list[Row]:
    """ResNet-18 at 32 pixels; ResNet-50 at 224 with and without activation checkpointing."""
    return [
        Row(
            name="step: ResNet-18, 4 x 64 views of 32 px",
            against="fp32, contiguous, a loop of SVDs",
            prepare=_step,
            amount=4 * 64,
            unit="views",
            target=2.6,
        ),
        Row(
            name="monitor: one record, ResNet-18, 4 x 64 views of 32 px",
            against="a step; with a record in 20 steps, a ratio of 5 is a share of 1 %",
            prepare=lambda: _record(_method(), _views()),
            target=5,
        ),
        Row(
            name="monitor: one record, ResNet-50, 2 x 256 views of 32 px",
            against="the same",
            prepare=lambda: _record(_wide_method(), _views(2, 256)),
            target=5,
        ),
        Row(
            name="monitor: movement of the targets, ResNet-18, 4 x 64 views of 32 px",
            against="a step; with a record in 20 steps, a ratio of 5 is a share of 1 %",
            prepare=_movement,
            target=5,
        ),
        Row(
            name="activation checkpointing: ResNet-50, 2 x 8 views of 224 px",
            against="without, for the memory",
            prepare=_recomputed_step,
            amount=2 * 8,
            unit="views",
        ),
    ]


def _method() -> JointEmbedding:
    encoder = build_encoder("resnet18", stem="small")
    projector = build_projector(512, hidden_features=1024, out_features=512)
    return JointEmbedding(encoder, projector, CWRGPLoss(4, 64)).to(local_device())


def _wide_method() -> JointEmbedding:
    """The widths of the ImageNet recipe, configs/pretrain/imagenet_cwrgp4_r50_100ep.yaml."""
    projector = build_projector(2048, hidden_features=2048, out_features=1024, num_layers=3)
    loss = CWRGPLoss(2, 128)
    return JointEmbedding(build_encoder("resnet50"), projector, loss).to(local_device())


def _views(num_views: int = 4, samples: int = 64) -> list[Tensor]:
    return [torch.randn(samples, 3, 32, 32, device=local_device()) for _ in range(num_views)]


def _our_step(
    method: JointEmbedding, views: list[Tensor], precision: Precision | None = None
) -> Callable[[], Output]:
    precision = precision or _fastest_precision(method, views)
    precision.prepare(method)
    adam = torch.optim.Adam(method.parameters(), fused=True)

    def step() -> Output:
        inputs = [view.to(memory_format=precision.memory_format) for view in views]
        with precision.ieee_fp32():
            with precision.autocast():
                output = method(inputs)
            output.losses["loss_cwrgp"].backward()
        adam.step()
        adam.zero_grad()
        return output

    return step


def _fastest_precision(method: JointEmbedding, views: list[Tensor]) -> Precision:
    """What ``SOLVER.AMP.DTYPE auto`` takes: on a CPU, the format whose step is the fastest."""
    device = local_device()
    if device.type != "cpu":
        return Precision.choose(device, enabled=True)

    def precision(chosen: NumberFormat) -> Precision:
        return Precision(device, DTYPES[chosen.dtype], chosen.memory_format)

    def make_step(chosen: NumberFormat) -> Callable[[int], object]:
        step = _our_step(copy.deepcopy(method), views, precision(chosen))
        return lambda _: step()

    return precision(fastest(time_steps(make_step, len(views[0]))))


def _step() -> Pair:
    views, theirs = _views(), _method()
    theirs.loss.forward = lambda h: looped_loss(h, 4, 64, 1)
    adam = torch.optim.Adam(theirs.parameters(), fused=True)

    def b() -> None:
        theirs(views).losses["loss_cwrgp"].backward()
        adam.step()
        adam.zero_grad()

    return _our_step(_method(), views), b


def _record(method: JointEmbedding, views: list[Tensor]) -> Pair:
    step, monitor = _our_step(method, views), TrainingMonitor()
    output, samples = step(), len(views[0])
    monitor.start(output.embeddings)
    losses = {name: float(value) for name, value in output.losses.items()}

    def record() -> None:
        values = monitor.statistics(method, output.embeddings, output.features)
        chance = method.chance_losses(samples, num_views=len(views))
        monitor.verdict(0, method, output.embeddings, values, losses, chance)

    return record, step


def _movement() -> Pair:
    method, views = _method(), _views()
    precision = _fastest_precision(method, views)
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    probe = TargetProbe(
        images, normalize=lambda x: x.float().div_(128).sub_(1), precision=precision
    )

    def record() -> None:
        probe.before_update(method)
        probe.after_update(method)

    return record, _our_step(method, views, precision)


def _recomputed_step() -> Pair:
    device = local_device()
    views = [torch.randn(8, 3, 224, 224, device=device) for _ in range(2)]

    def step(activation_checkpointing: bool) -> None:
        # Made anew each time: in the process that measures the memory, one of the two runs alone.
        encoder = build_encoder(activation_checkpointing=activation_checkpointing).to(device)
        torch.cat([encoder(view) for view in views]).square().mean().backward()

    return lambda: step(True), lambda: step(False)
