"""Self-supervised pretraining of ResNets with whitening losses (CW-RGP, Weng et al., 2022).

The commands as functions, each imported when it is first used, so that ``import cwrgp`` is cheap:

- `analyze`: what whitening does to embeddings;
- `pretrain`: trains an encoder without labels;
- `evaluate`: probes an encoder with labels;
- `embed`: features of images;
- `publish`: prepares a checkpoint for publication.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cwrgp.version import __version__

if TYPE_CHECKING:
    from cwrgp.commands.analyze import analyze
    from cwrgp.commands.embed import embed
    from cwrgp.commands.evaluate import evaluate
    from cwrgp.commands.pretrain import pretrain
    from cwrgp.commands.publish import publish

__all__ = ["__version__", "analyze", "embed", "evaluate", "pretrain", "publish"]

# What is exported, and the module that it is in. No module of this package may have such a name:
# importing it would put the module in the function's place.
_EXPORTS = {
    "analyze": "cwrgp.commands.analyze",
    "embed": "cwrgp.commands.embed",
    "evaluate": "cwrgp.commands.evaluate",
    "pretrain": "cwrgp.commands.pretrain",
    "publish": "cwrgp.commands.publish",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
