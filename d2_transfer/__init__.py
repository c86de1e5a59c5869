"""Transfer of self-supervised ResNets to Detectron2. Importing it registers everything it adds."""

from __future__ import annotations

import importlib.util

import cwrgp.cli  # noqa: F401  (before Detectron2, whose import it keeps quiet)

if importlib.util.find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "d2_transfer needs Detectron2: run python tools/install_detectron2.py", name="detectron2"
    )

import d2_transfer.model_zoo  # noqa: E402, F401  (registers cwrgp://NAME)
import d2_transfer.roi_heads  # noqa: E402, F401  (registers the ROI heads)
