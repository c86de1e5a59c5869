"""Losses that a refactoring must reproduce: three steps of each method in float64.

A change that alters them on purpose records them again, and its message says why:

    python tests/test_golden_losses.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cwrgp.builders.methods import METHODS, build_method
from cwrgp.config import get_cfg
from cwrgp.seeding import Stream, derive_seed

RECORD = Path(__file__).with_name("golden_losses.json")
# Not PCA whitening: its value depends on the signs of eigenvectors, which LAPACK chooses.
CASES = [*(method for method in METHODS if method != "pca"), "intl with momentum"]
STEPS, BATCH, SIDE = 3, 16, 32


def losses_of(case: str) -> list[float]:
    """The sum of the losses of each step, with plain SGD on random images."""
    cfg = get_cfg()
    narrow = case in ("wmse", "pca", "zca_bw", "bn", "plain")
    values = [
        *(
            "METHOD.NAME",
            case.split()[0],
            "METHOD.EMA",
            0.9 if case in ("byol", CASES[-1]) else 0.0,
        ),
        *("MODEL.ARCH", "resnet18", "MODEL.PROJECTOR.HIDDEN", 32),
        *("MODEL.PREDICTOR.HIDDEN", 32, "MODEL.PROJECTOR.OUT", 8 if narrow else 64),
        *("SOLVER.BATCH_SIZE", BATCH, "METHOD.CWRGP.SUBBATCH_SIZE", 8),
    ]
    cfg.merge_from_list(values)
    method = build_method(cfg).double().train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(STEPS):
        shape = (2, BATCH, 3, SIDE, SIDE)
        views = torch.randn(shape, generator=generator, dtype=torch.float64)
        torch.manual_seed(derive_seed(Stream.STEP, cfg.SEED, step, 0))
        method.set_progress(step=step, total_steps=STEPS, steps_per_epoch=1)
        optimizer.zero_grad()
        loss = torch.stack(list(method(list(views)).losses.values())).sum()
        loss.backward()
        optimizer.step()
        method.update_target()
        losses.append(loss.item())
    return losses


def test_every_method_is_recorded():
    assert json.loads(RECORD.read_text()).keys() == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_losses_are_as_recorded(case):
    assert losses_of(case) == pytest.approx(json.loads(RECORD.read_text())[case], rel=1e-9)


if __name__ == "__main__":
    RECORD.write_text(json.dumps({case: losses_of(case) for case in CASES}, indent=1) + "\n")
