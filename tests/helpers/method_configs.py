"""Small methods of every kind, as the configuration builds them."""

from __future__ import annotations

import torch
from torch import nn

from cwrgp.builders.methods import METHODS
from cwrgp.config import get_cfg

NAMES = [*METHODS, "intl with momentum"]
MOMENTUM = ["byol", "intl with momentum"]
BATCH = 16


def make_cfg(name, *opts):
    cfg = get_cfg()
    cfg.MODEL.ARCH = "resnet18"
    cfg.MODEL.PROJECTOR.HIDDEN = cfg.MODEL.PREDICTOR.HIDDEN = 16
    cfg.MODEL.PROJECTOR.OUT = 8 if name in ("wmse", "pca", "zca_bw", "bn", "plain") else 64
    cfg.SOLVER.BATCH_SIZE = BATCH
    cfg.METHOD.CWRGP.SUBBATCH_SIZE = 8
    cfg.METHOD.NAME = name.split()[0]
    cfg.METHOD.EMA = 0.9 if name in MOMENTUM else 0.0
    cfg.merge_from_list(list(opts))
    return cfg


def draw_images(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(BATCH, 3, size, size, generator=generator) for size in sizes]


def total(method, views):
    return torch.stack(list(method(views).losses.values())).sum()


def is_momentum(name):
    return name.startswith("momentum_")


class Linear(nn.Module):
    """An encoder that a hand can follow."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6, bias=False, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x.flatten(1))


def draw_doubles(num_views):
    return list(torch.randn(num_views, 10, 3, 2, 2, dtype=torch.float64))
