"""Activation checkpointing: layers keep only their input, and compute the rest again in the
backward pass (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import ResNet


class RecomputedResNet(ResNet):
    """torchvision's ResNet, which keeps only the inputs of its stem and of its residual blocks."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> what ``fc`` makes of (B, F)."""
        x = recomputed(self.bn1, self._stem, x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = recomputed(block, block, x)
        return self.fc(torch.flatten(self.avgpool(x), 1))

    def _stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))


def recomputed(module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``forward(x)``; where gradients are wanted, without keeping what lies between.

    The buffers of the module, such as BatchNorm's running statistics, change in the forward pass
    only. The recomputation is exact if ``forward`` is deterministic: random numbers are not
    repeated.

    Args:
        module: the one with buffers.
        forward: of one tensor.
        x: its input.
    """
    if not torch.is_grad_enabled():
        return forward(x)
    return checkpoint(
        forward,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), keeping_buffers(module)),
    )


@contextlib.contextmanager
def keeping_buffers(module: nn.Module) -> Iterator[None]:
    """Inside the block, the module works on copies of its buffers."""
    buffers = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    # Copies, not None: autograd also stores them, and a recomputation must store as many tensors.
    for owner, name, buffer in buffers:
        setattr(owner, name, buffer.clone())
    try:
        yield
    finally:
        for owner, name, buffer in buffers:
            setattr(owner, name, buffer)
