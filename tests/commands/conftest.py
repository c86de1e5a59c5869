"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from colour_probe import CLASSES, CONFIG, TEST, TRAIN
from encoders import own_checkpoint
from PIL import Image


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Images of seven colours in train and val, a config, and weights."""
    root = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    tints = rng.integers(60, 200, (CLASSES, 3))
    for split, count in (("train", TRAIN), ("val", TEST)):
        for label, tint in enumerate(tints):
            folder = root / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(tint, 25, (36, 36, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(folder / f"{i}.png")
    (root / "config.yaml").write_text(CONFIG)
    torch.manual_seed(0)
    torch.save(own_checkpoint(), root / "weights.pth")
    return root
