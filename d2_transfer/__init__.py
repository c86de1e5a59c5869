"""Transfer of self-supervised ResNets to Detectron2. Importing it registers everything it adds."""

from __future__ import annotations

import importlib.util

from cwrgp import cli as _cli  # noqa: F401  (before Detectron2, whose import it keeps quiet)

if importlib.util.find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "d2_transfer needs Detectron2: run python tools/install_detectron2.py", name="detectron2"
    )

from d2_transfer import roi_heads as _roi_heads  # noqa: E402, F401  (registers the ROI heads)
from d2_transfer import zoo as _zoo  # noqa: E402, F401  (registers cwrgp://NAME)
