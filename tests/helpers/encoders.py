"""ResNet encoders for tests: torchvision's, with every tensor different from its initial value."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor


def make_encoder(depth: int | str = 18, seed: int = 0) -> dict[str, Tensor]:
    """A ResNet's state dict without ``fc``; BatchNorm's tensors are random, as after training.

    Args:
        depth: or torchvision's name of the architecture.
        seed: of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    arch = f"resnet{depth}" if isinstance(depth, int) else depth
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)(weights=None)
    state = {}
    for name, tensor in network.state_dict().items():
        if name.startswith("fc."):
            continue
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif tensor.ndim == 4:
            fan_in = tensor[0].numel()
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5
        elif name.endswith(("weight", "running_var")):
            state[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
        else:
            state[name] = 0.1 * torch.randn(tensor.shape, generator=generator)
    return state


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with ``prefix`` before their names."""
    return {prefix + name: tensor for name, tensor in state.items()}


def own_checkpoint(depth: int = 18) -> dict[str, object]:
    """In the layout of this project's ``model_final.pth``."""
    projector = {"projector.0.weight": torch.randn(8, 8), "projector.0.bias": torch.zeros(8)}
    model = {**under("encoder.", make_encoder(depth)), **projector}
    return {"model": model, "iteration": 12, "config": "SEED: 0\n"}


def authors_checkpoint(depth: int = 18) -> dict[str, object]:
    """In the layout of the CW-RGP authors' ImageNet code: DDP around a model and a head."""
    encoder = under("module.model.", make_encoder(depth))
    head = under("module.head.", {"0.weight": torch.randn(8, 8), "1.running_mean": torch.zeros(8)})
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {
        "epoch": 200,
        "arch": f"resnet{depth}",
        "state_dict": {**encoder, **head},
        "optimizer": momentum,
    }
