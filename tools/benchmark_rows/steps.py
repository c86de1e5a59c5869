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
    """ResNet-18 at 32 pixels."""
    return [
        Row(
            name="step: ResNet-18, 4 x 64 views of 32 px",
            against="fp32, contiguous, a loop of SVDs",
            prepare=_step,
            amount=4 * 64,
            unit="views",
            target=2.6,
        )
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
