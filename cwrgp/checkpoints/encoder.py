"""What is read from a checkpoint: one ResNet."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from cwrgp.checkpoints.pixel_statistics import PixelStatistics
from cwrgp.models.resnet import Stem


@dataclass(frozen=True)
class Encoder:
    """A ResNet without its classifier, complete and checked.

    Attributes:
        arch: torchvision's name of the architecture, a key of `resnet.ARCHITECTURES`.
        state_dict: its tensors under torchvision's names, without ``fc``; the counters
            ``num_batches_tracked`` are there for every BatchNorm layer or for none.
        source: names of the rows of `SOURCES` that describe the file, since several publishers may
            write the same structure; "transformers"; or where it was found, such as
            "one ResNet under 'net.'".
        branch: "online" or "momentum"; None where the file is of no known format and the network
            has no partner.
        stem: ``"imagenet"`` (7x7, stride 2) or ``"small"`` (3x3, stride 1).
        dropped: key in the file -> why it was dropped.
        warnings: remarks on the weights for the user.
        pixels: normalisation of the input in pretraining; None if it is not known.
        from_transformers: whether its names in the file are those of Hugging Face's transformers.
        stride_in_1x1: whether a bottleneck block strides in its first convolution, as in Detectron2
            with STRIDE_IN_1X1, and not in the 3x3 one, as in torchvision.
    """

    arch: str
    state_dict: dict[str, Tensor]
    source: str
    branch: str | None
    stem: Stem
    dropped: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pixels: PixelStatistics | None = None
    from_transformers: bool = False
    stride_in_1x1: bool = False
