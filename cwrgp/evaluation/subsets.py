"""Class-balanced parts of a labelled data set, for semi-supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cwrgp.seeding import derive_seed


def class_balanced_subset(labels: Sequence[int], fraction: float, seed: int) -> list[int]:
    """Draws the same share of every class.

    A class of n images gives round(fraction * n) of them and at least one. For one seed, a smaller
    fraction's images are among a larger one's.

    Args:
        labels: of all images; -1 (none) is left out.
        fraction: in (0, 1].
        seed: of the draw.

    Returns:
        Numbers of the images, rising.

    Raises:
        ValueError: the fraction is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"EVAL.FINETUNE.FRACTION {fraction} is outside (0, 1]")
    of = torch.tensor(labels, dtype=torch.long)
    chosen: list[int] = []
    for label in of[of >= 0].unique().tolist():
        members = (of == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed(seed, label))
        order = torch.randperm(len(members), generator=generator)
        chosen += members[order[: max(1, round(fraction * len(members)))]].tolist()
    return sorted(chosen)
