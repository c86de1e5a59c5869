"""The model card of a published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from cwrgp.checkpoints.encoder import Encoder


def model_card(
    file: str, content: Mapping[str, Any], encoder: Encoder, sha256: str, licence: str
) -> str:
    """The card as Markdown: contents, metrics, use and configuration.

    Args:
        file: name of the checkpoint.
        content: of the checkpoint, see `cwrgp.commands.publish`.
        encoder: the ResNet in it.
        sha256: of the checkpoint.
        licence: of the weights.
    """
    config = yaml.safe_load(content["config"])
    whole = any(not key.startswith("encoder.") for key in content["model"])
    method = (config.get("METHOD") or {}).get("NAME", "not stated")
    versions = ", ".join(f"{package} {v}" for package, v in content["versions"].items())
    rows = {
        "architecture": f"{encoder.arch}, {encoder.stem} stem",
        "method": f"{method}, pretrained without labels",
        "contents": "the encoder and its heads" if whole else "the encoder",
        "input": str(encoder.pixels or "not stated"),
        "iterations": content["iteration"] + 1,
        "trained with": f"torch {content['torch_version']}",
        "published with": versions,
        "sha256": sha256,
        "licence": " ".join(licence.split()),
    }
    rows |= {f"metric {key}": f"{value:g}" for key, value in content["metrics"].items()}
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    convert = f"    cwrgp-convert {file} encoder.pkl"
    if encoder.stem != "imagenet":
        convert = "Detectron2 has no 3x3 stem; this encoder cannot be transferred to it."
    return f"""# {file.removesuffix(".pth")}

| | |
|---|---|
{table}

## Use

For Detectron2 (`MODEL.WEIGHTS encoder.pkl`):

{convert}

Under torchvision's names:

    from cwrgp.checkpoints.extract import extract_encoder
    from cwrgp.checkpoints.reader import read_checkpoint

    tensors = extract_encoder(read_checkpoint("{file}")).state_dict

## Configuration

```yaml
{content["config"].strip()}
```
"""
