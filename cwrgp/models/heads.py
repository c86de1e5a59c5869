"""Projection heads."""

from __future__ import annotations

from torch import nn


def build_projector(
    in_features: int, *, hidden_features: int, out_features: int, num_layers: int = 2
) -> nn.Sequential:
    """Linear-BN-ReLU as often as there are hidden layers, then Linear: (B, F) -> (B, D).

    Args:
        in_features: F, the encoder's.
        hidden_features: width of the hidden layers.
        out_features: D, width of the embedding.
        num_layers: linear layers in all.

    Raises:
        ValueError: fewer than one layer.
    """
    if num_layers < 1:
        raise ValueError(f"MODEL.PROJECTOR.LAYERS {num_layers} is below 1")
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers += [
            nn.Linear(in_features, hidden_features),
            nn.BatchNorm1d(hidden_features),
            nn.ReLU(inplace=True),
        ]
        in_features = hidden_features
    return nn.Sequential(*layers, nn.Linear(in_features, out_features))
