"""Features of a data set under a frozen encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor, nn

from cwrgp.comm import gather, gather_objects, get_rank, get_world_size
from cwrgp.data.loaders import iterate_views
from cwrgp.data.views import ProbeImages

logger = logging.getLogger("cwrgp")


@torch.no_grad()
def extract_features(
    encoder: nn.Module,
    images: ProbeImages,
    *,
    normalize: Callable[[Tensor], Tensor],
    batch_size: int,
    num_workers: int,
    device: torch.device,
    autocast: torch.autocast,
    report: Callable[[int], object] = lambda _: None,
) -> tuple[Tensor, Tensor]:
    """Runs the encoder in evaluation mode over all images, divided among the processes.

    Whole batches are divided, not images. A batch holds the same images for any number of
    processes, so that on one kind of hardware the features are the same to the bit.

    Args:
        encoder: (B, 3, H, W) -> (B, F); its mode is restored.
        images: labelled; unreadable ones are omitted.
        normalize: uint8 batch -> network input.
        batch_size: images at a time.
        num_workers: processes that load.
        device: where the encoder is.
        autocast: the context of the forward pass.
        report: called with the number of images of each batch, once it is done.

    Returns:
        fp32 features (n, F) and int64 labels (n,) on ``device``: each readable image once, in the
        order of ``images``, complete on every process.

    Raises:
        ValueError: more images are unreadable than tolerated, counted over all processes.
    """
    size = len(images)
    owner = torch.arange(size) // batch_size % get_world_size()  # the process of each image
    mine = (owner == get_rank()).nonzero().flatten()
    # A process without a batch learns F from the first image.
    batches = [
        part.tolist() for part in (mine if len(mine) else torch.tensor([0])).split(batch_size)
    ]
    loader = iterate_views(
        images, batches, num_workers=num_workers, pin_memory=device.type == "cuda"
    )
    training = encoder.training
    encoder.eval()
    features, labels = [], []
    with closing(loader):
        for batch, label in loader:
            with autocast:
                output = encoder(normalize(batch.to(device, non_blocking=True)))
            features.append(output.float()[: len(mine)])
            labels.append(label.to(device)[: len(mine)])
            report(len(batch))
    encoder.train(training)
    all_features = gather(torch.cat(features))
    all_labels = gather(torch.cat(labels))
    # They are gathered by process and within it by index: the inverse permutation.
    order = owner.argsort(stable=True).argsort().to(device)
    all_features, all_labels = all_features[order], all_labels[order]
    readable = all_labels >= 0
    for reasons in gather_objects(images.reader.reasons()):
        images.reader.mark_reasons(reasons)
    images.reader.check()
    if (omitted := size - int(readable.sum())) and get_rank() == 0:
        logger.warning("%d of %d images cannot be read and are omitted", omitted, size)
    return all_features[readable], all_labels[readable]


def check_finite(features: Tensor) -> None:
    """Raises FloatingPointError where a feature is NaN or infinite."""
    if not bool(torch.isfinite(features).all()):
        raise FloatingPointError(
            "the encoder's features are not finite; compute them in float32 to see whether the "
            "number format is too small for these weights"
        )
