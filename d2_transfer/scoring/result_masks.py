"""Masks of results: which of them can be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from d2_transfer.data.rles import size_of_rle
from d2_transfer.data.values import as_id, as_numbers
from d2_transfer.scoring.truth import Truth


def plain_mask(mask: Any) -> Any:
    """An RLE with a size and counts in integers, and with a text in place of pycocotools' bytes."""
    if not isinstance(mask, Mapping):
        return mask
    mask = dict(mask)
    if isinstance(mask.get("counts"), bytes):
        mask["counts"] = mask["counts"].decode("ascii", errors="replace")
    runs = as_numbers(mask.get("counts"))
    if runs is not None and all(float(run).is_integer() for run in runs):
        mask["counts"] = [int(run) for run in runs]
    if size_of_rle(mask) is not None:
        mask["size"] = [as_id(side) for side in mask["size"]]
    return mask


def are_plain_masks(truth: Truth, images: list[Any], masks: list[Any]) -> bool:
    """Whether all are compressed RLEs of the size of their image."""
    by_number = {i["id"]: [i["height"], i["width"]] for i in truth.content["images"]}
    sizes = {image: by_number[number] for image, number in truth.image_numbers.items()}
    return all(
        type(mask) is dict and type(mask["counts"]) is str and mask["size"] == sizes[image]
        for image, mask in zip(images, masks, strict=True)
    ) and {int}.issuperset(map(type, chain.from_iterable(mask["size"] for mask in masks)))


def check_runs(masks: Sequence[Any], where: str) -> None:
    """Refuses an RLE with counts that are not the runs of all pixels of its image.

    Raises:
        ValueError: names the entry.
    """
    import hotcoco

    runs = [(index, mask) for index, mask in enumerate(masks) if isinstance(mask, dict)]
    try:
        hotcoco.mask.area([mask for _, mask in runs])
    except (ValueError, TypeError, OverflowError):
        for index, mask in runs:
            try:
                hotcoco.mask.area([mask])
            except (ValueError, TypeError, OverflowError) as error:
                raise ValueError(
                    f"{where}: entry {index}: its mask is a damaged RLE: {error}"
                ) from None
    for index, mask in runs:
        # hotcoco refuses counts of more pixels than the size has, but not of fewer.
        pixels = mask["size"][0] * mask["size"][1]
        try:
            hotcoco.mask.area({"size": [1, pixels - 1], "counts": mask["counts"]})
        except ValueError:
            continue
        raise ValueError(
            f"{where}: entry {index}: its mask is a damaged RLE: its counts cover fewer than the "
            f"{pixels} pixels of its image"
        )
