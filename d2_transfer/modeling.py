"""Registers what this package adds to Detectron2, by being imported.

- the ROI heads of `d2_transfer.roi_heads`, for ``MODEL.ROI_HEADS.NAME``;
- ``cwrgp://NAME``, a published checkpoint, for ``MODEL.WEIGHTS``.

The commands of this package import what they need themselves.

Raises:
    MissingPackage: Detectron2 is not installed.
"""

from __future__ import annotations

from d2_transfer.requirement import require_detectron2

require_detectron2()

# isort: split
import d2_transfer.model_zoo  # noqa: E402
import d2_transfer.roi_heads  # noqa: E402, F401
