"""Transfer of self-supervised ResNets to Detectron2.

The commands as functions, each imported when it is first used:

- `convert`: a checkpoint's encoder in Detectron2's names, with a numerical proof;
- `train`: fine-tunes and evaluates a detector;
- `predict`: finds objects in images with a trained detector;
- `run_trials`: several backbones, several seeds, and whether they differ;
- `score`: AP of a file of detections;
- `compare`: the difference of two files of detections, with an interval;
- `check_data`: what is in a data set and what is wrong with it.

``import d2_transfer`` is cheap and works without Detectron2, so it registers nothing. A script of
your own that builds a model with Detectron2 imports `d2_transfer.modeling` first: it registers the
ROI heads and ``cwrgp://NAME``.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2_transfer.checking.check import check_data
    from d2_transfer.commands.convert import convert
    from d2_transfer.commands.predict import predict
    from d2_transfer.commands.trials import run_trials
    from d2_transfer.scoring.compare import compare
    from d2_transfer.scoring.score import score
    from d2_transfer.train_net import train

__all__ = ["check_data", "compare", "convert", "predict", "run_trials", "score", "train"]

# Detectron2 calls torch.jit.script when it is imported, and its users cannot change that. The
# filter must be in place before any module of this package imports Detectron2.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

# What is exported, and the module that it is in. No module of this package may have such a name:
# importing it would put the module in the function's place.
_EXPORTS = {
    "check_data": "d2_transfer.checking.check",
    "compare": "d2_transfer.scoring.compare",
    "convert": "d2_transfer.commands.convert",
    "predict": "d2_transfer.commands.predict",
    "run_trials": "d2_transfer.commands.trials",
    "score": "d2_transfer.scoring.score",
    "train": "d2_transfer.train_net",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
