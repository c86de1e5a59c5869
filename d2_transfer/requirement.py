"""Whether Detectron2 is installed."""

from __future__ import annotations

import importlib.util

from cwrgp.errors import MissingPackage


def require_detectron2() -> None:
    """Call it before Detectron2 is imported.

    Raises:
        MissingPackage: it is not installed; the message names the command that installs it.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise MissingPackage(
            "Detectron2 is needed and is not installed: run cwrgp-install-detectron2",
            name="detectron2",
        )
