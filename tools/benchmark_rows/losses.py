"""CW-RGP's loss, forward and backward: against a loop over views and sub-batches with SVDs."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import torch
from torch import Tensor

from benchmark_rows.timing import Pair, Row
from cwrgp.launch import local_device
from cwrgp.losses.base import pair_loss
from cwrgp.losses.cwrgp import CWRGPLoss


def rows() -> list[Row]:
    """Two recipes' losses, and the import of the losses."""
    shapes = {
        "loss: V 4, B 128, D 1024, N 128, G 2": ((4, 128, 1024), 2, 128, 1, 2.0),
        "loss: V 2, B 512, D 512, N 64, G 4, K 4": ((2, 512, 512), 4, 64, 4, 3.0),
    }
    losses = [
        Row(
            name=name,
            against="a loop of SVDs",
            prepare=partial(_loss, shape, groups, size, draws),
            target=target,
        )
        for name, (shape, groups, size, draws, target) in shapes.items()
    ]
    imported = Row(
        name="import cwrgp.losses",
        against="import torch; the target is a ratio of 1/1.05 or more",
        prepare=lambda: (partial(_import, "cwrgp.losses"), partial(_import, "torch")),
        target=0.95,
    )
    return [*losses, imported]


def looped_loss(views: Tensor, num_groups: int, subbatch_size: int, num_draws: int) -> Tensor:
    """The same loss in the obvious way: an SVD for each view, sub-batch and group."""
    losses = []
    for _ in range(num_draws):
        num_views, batch, channels = views.shape
        whitened = torch.empty_like(views)
        for members in torch.randperm(batch, device=views.device).split(subbatch_size):
            for v in range(num_views):
                h = views[v, members]
                h = h - h.mean(1, keepdim=True)
                for group in torch.randperm(channels, device=views.device).chunk(num_groups):
                    x = h[:, group]
                    u, s, _ = torch.linalg.svd(x @ x.T / (len(group) - 1))
                    whitened[v, members.unsqueeze(1), group] = u @ torch.diag(s.rsqrt()) @ u.T @ x
        losses.append(pair_loss(whitened))
    return torch.stack(losses).mean()


def _loss(shape: tuple[int, int, int], groups: int, size: int, draws: int) -> Pair:
    h = torch.randn(shape, device=local_device(), requires_grad=True)
    loss = CWRGPLoss(groups, size, num_draws=draws)
    return (
        lambda: loss(h).backward(),
        lambda: looped_loss(h, groups, size, draws).backward(),
    )


def _import(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
