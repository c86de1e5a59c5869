"""Momentum (exponential moving average) of networks."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def momentum_at(step: int, total_steps: int, *, first: float) -> float:
    """m_t = 1 - (1 - m_0) (1 + cos(pi t / T)) / 2: from m_0 to 1 along a cosine (Grill et al.,
    2020; Weng et al., 2024).

    Args:
        step: t, from 0 to T.
        total_steps: T.
        first: m_0.

    Returns:
        m_t, in [m_0, 1].
    """
    return 1 - (1 - first) * (1 + math.cos(math.pi * step / total_steps)) / 2


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy whose parameters get no gradient."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def move_towards(target: nn.Module, online: nn.Module, *, momentum: float) -> None:
    """theta_target <- m theta_target + (1 - m) theta_online, of all parameters, in place.

    Args:
        target: the network that moves.
        online: a network of the same architecture.
        momentum: m.
    """
    average = get_ema_multi_avg_fn(momentum)
    average(list(target.parameters()), list(online.parameters()), 0)
