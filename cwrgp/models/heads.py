"""Projection and prediction heads."""

from __future__ import annotations

from torch import nn


def build_projector(
    in_features: int,
    *,
    hidden_features: int,
    out_features: int,
    num_layers: int = 2,
    hidden_bias: bool = True,
    last_bn: bool = False,
) -> nn.Sequential:
    """One Linear-BN-ReLU per hidden layer, then Linear: (B, F) -> (B, D).

    Args:
        in_features: F, the encoder's.
        hidden_features: width of the hidden layers.
        out_features: D, width of the embedding.
        num_layers: number of linear layers.
        hidden_bias: give the hidden linear layers a bias, which the BatchNorm after them cancels.
        last_bn: end with a BatchNorm without parameters. The last linear layer then has no bias,
            since that BatchNorm would cancel it.

    Raises:
        ValueError: fewer than one layer.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers {num_layers} is below 1")
    layers: list[nn.Module] = []
    for _ in range(num_layers - 1):
        layers += [
            nn.Linear(in_features, hidden_features, bias=hidden_bias),
            nn.BatchNorm1d(hidden_features),
            nn.ReLU(inplace=True),
        ]
        in_features = hidden_features
    layers.append(nn.Linear(in_features, out_features, bias=not last_bn))
    if last_bn:
        layers.append(nn.BatchNorm1d(out_features, affine=False))
    return nn.Sequential(*layers)


def build_predictor(
    features: int, *, hidden_features: int, hidden_bias: bool = True
) -> nn.Sequential:
    """Linear-BN-ReLU-Linear from embedding to embedding, (B, D) -> (B, D), for BYOL and SimSiam.

    Args:
        features: D.
        hidden_features: width of the hidden layer.
        hidden_bias: give the first linear layer a bias.
    """
    return build_projector(
        features, hidden_features=hidden_features, out_features=features, hidden_bias=hidden_bias
    )
