"""A whole step of training: against fp32, contiguous memory and the obvious loss."""

from __future__ import annotations

import torch

from benchmark_rows.losses import looped_loss
from benchmark_rows.timing import Pair, Row
from cwrgp.engine.precision import Precision
from cwrgp.launch import local_device
from cwrgp.losses.cwrgp import CWRGPLoss
from cwrgp.models.encoders import build_encoder
from cwrgp.models.heads import build_projector
from cwrgp.models.methods import JointEmbedding


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
            name="activation checkpointing: ResNet-50, 2 x 8 views of 224 px",
            against="without, for the memory",
            prepare=_recomputed_step,
            amount=2 * 8,
            unit="views",
        ),
    ]


def _step() -> Pair:
    device = local_device()
    views = [torch.randn(64, 3, 32, 32, device=device) for _ in range(4)]

    def make(fast: bool) -> JointEmbedding:
        encoder = build_encoder("resnet18", stem="small")
        projector = build_projector(512, hidden_features=1024, out_features=512)
        method = JointEmbedding(encoder, projector, CWRGPLoss(4, 64)).to(device)
        if not fast:
            method.loss.forward = lambda h: looped_loss(h, 4, 64, 1)
        return method

    precision = Precision.choose(device, enabled=True)
    ours, theirs = make(True), make(False)
    precision.prepare(ours)
    adam = {method: torch.optim.Adam(method.parameters(), fused=True) for method in (ours, theirs)}

    def a() -> None:
        inputs = [view.to(memory_format=precision.memory_format) for view in views]
        with precision.ieee_fp32():
            with precision.autocast():
                output = ours(inputs)
            output.losses["loss_cwrgp"].backward()
        adam[ours].step()
        adam[ours].zero_grad()

    def b() -> None:
        theirs(views).losses["loss_cwrgp"].backward()
        adam[theirs].step()
        adam[theirs].zero_grad()

    return a, b


def _recomputed_step() -> Pair:
    device = local_device()
    views = [torch.randn(8, 3, 224, 224, device=device) for _ in range(2)]

    def step(activation_checkpointing: bool) -> None:
        # Made anew each time: in the process that measures the memory, one of the two runs alone.
        encoder = build_encoder(activation_checkpointing=activation_checkpointing).to(device)
        torch.cat([encoder(view) for view in views]).square().mean().backward()

    return lambda: step(True), lambda: step(False)
