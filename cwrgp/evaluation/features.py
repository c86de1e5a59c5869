"""Features of a data set under a frozen encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from cwrgp.comm import gather, get_rank, get_world_size
from cwrgp.data.loaders import leave_signals_to_the_run


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

    Whole batches are shared, not images: a batch holds the same images however many processes there
    are, so that on one kind of hardware the features are the same to the bit.

    Args:
        encoder: (B, 3, H, W) -> (B, F); its mode is restored.
        images: gives (uint8 (3, H, W), label); label -1 (none, or unreadable) is left out.
        normalize: uint8 batch -> network input.
        batch_size: images at a time.
        num_workers: processes that load.
        device: where the encoder is.
        autocast: the context of the forward pass.

    Returns:
        fp32 features (n, F) and int64 labels (n,) on ``device``, each image once, in the order of
        ``images``, complete on every process.
    """
    size: int = len(images)  # type: ignore[arg-type]
    world, rank = get_world_size(), get_rank()
    owner = torch.arange(size) // batch_size % world  # the process of each image
    mine = (owner == rank).nonzero().flatten().tolist()
    # A process without a batch learns F from the first image.
    loader = DataLoader(
        Subset(images, mine or [0]),
        batch_size=batch_size,
        num_workers=num_workers,
        worker_init_fn=leave_signals_to_the_run,
    )
    training = encoder.training
    encoder.eval()
    features, labels = [], []
    for batch, label in loader:
        with autocast:
            output = encoder(normalize(batch.to(device, non_blocking=True)))
        features.append(output.float()[: len(mine)])
        labels.append(label.to(device)[: len(mine)])
    encoder.train(training)
    all_features = gather(torch.cat(features))
    all_labels = gather(torch.cat(labels))
    # Gathered by owner, within it by number: what argsort undoes.
    order = owner.argsort(stable=True).argsort().to(device)
    order = order[all_labels[order] >= 0]
    return all_features[order], all_labels[order]
