"""Which kinds of mistakes the detections have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from d2_transfer.scoring.truth import Truth

# TIDE's kinds (Bolya et al., ECCV 2020), as hotcoco names them, and what they mean.
KINDS = {
    "Cls": "class",
    "Loc": "place",
    "Both": "class and place",
    "Dupe": "found twice",
    "Bkg": "background",
    "Miss": "missed",
}


def box_errors(truth: Truth, entries: Sequence[Any]) -> dict[str, float]:
    """Points of box AP50 that mending each kind of mistake alone would add, by COCO's metric.

    Args:
        truth: the annotations.
        entries: checked detections.
    """
    import hotcoco

    if not entries:
        return dict.fromkeys(KINDS, 0.0)
    evaluation = hotcoco.COCOeval(truth.hotcoco, truth.hotcoco.load_res(list(entries)), "bbox")
    evaluation.evaluate()
    gains = evaluation.tide_errors()["delta_ap"]
    return {kind: 100 * gains[kind] for kind in KINDS}
