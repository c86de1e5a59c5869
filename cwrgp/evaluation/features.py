"""Features of a data set under a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cwrgp.engine import distributed


@torch.no_grad()
def extract_features(
    encoder: nn.Module,
    images: Dataset[tuple[Tensor, int]],
    *,
    normalize: Callable[[Tensor], Tensor],
    batch_size: int,
    num_workers: int,
    device: torch.device,
    autocast: torch.autocast,
) -> tuple[Tensor, Tensor]:
    """Runs the encoder in evaluation mode over all labelled images, shared among the processes.

    Args:
        encoder: (B, 3, H, W) -> (B, F); its mode is restored.
        images: gives (uint8 (3, H, W), label); label -1 (none, or unreadable) is left out.
        normalize: uint8 batch -> network input.
        batch_size: images at a time.
        num_workers: processes that load.
        device: where the encoder is.
        autocast: the context of the forward pass.

    Returns:
        fp32 features (n, F) and int64 labels (n,) on ``device``, complete on every process, in an
        order that depends on the number of processes.
    """
    mine = range(distributed.rank(), len(images), distributed.world_size())  # type: ignore[arg-type]
    loader = DataLoader(
        torch.utils.data.Subset(images, mine), batch_size=batch_size, num_workers=num_workers
    )
    training = encoder.training
    encoder.eval()
    features, labels = [], []
    for batch, label in loader:
        with autocast:
            output = encoder(normalize(batch.to(device, non_blocking=True)))
        features.append(output.float())
        labels.append(label.to(device))
    encoder.train(training)
    all_features = distributed.gather(torch.cat(features))
    all_labels = distributed.gather(torch.cat(labels))
    known = all_labels >= 0
    return all_features[known], all_labels[known]
