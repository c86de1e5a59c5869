"""What a conversion did, as a table for the terminal and as JSON."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
import torchvision

from cwrgp.checkpoints.encoder import Encoder
from d2_transfer.conversion import Conversion
from d2_transfer.proof import resnet_config

_UNKNOWN_PIXELS = (
    "mean and std unknown: set MODEL.PIXEL_MEAN and MODEL.PIXEL_STD to those of the pretraining"
)


def as_table(conversion: Conversion) -> str:
    """A line for each thing that was found or done."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for key, reason in conversion.dropped.items():
        reasons[reason].append(key)
    encoder, proof = conversion.encoder, conversion.verification
    rows = [
        ("source", encoder.source + (f" ({encoder.branch} branch)" if encoder.branch else "")),
        ("architecture", encoder.arch),
        ("MODEL.RESNETS", " ".join(f"{k} {v}" for k, v in _resnets(encoder).items())),
        ("pixels", str(conversion.pixels or _UNKNOWN_PIXELS)),
        ("tensors in", str(conversion.num_tensors_in)),
        ("tensors used", f"{conversion.num_tensors_out}, each once"),
        *(
            (f"dropped {len(keys)}", f"{reason}: {_examples(keys)}")
            for reason, keys in reasons.items()
        ),
        *(("warning", warning) for warning in conversion.warnings),
    ]
    if proof is None:
        rows.append(("proof", "none (--no-verify)"))
    else:
        what = "largest difference of res2..res5"
        rows.append(("proof float64", f"{what}: {proof.float64:.1e} (relative)"))
        rows.append(("proof float32", f"{what}: {proof.float32:.1e} (relative)"))
    rows += [
        ("sha256 in", conversion.sha256_in),
        ("sha256 out", conversion.sha256_out),
        ("written", str(conversion.output)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def as_json(conversion: Conversion, input_file: str) -> dict[str, Any]:
    """The same, complete: every dropped key with its reason."""
    encoder, proof, pixels = conversion.encoder, conversion.verification, conversion.pixels
    return {
        "input": input_file,
        "output": str(conversion.output),
        "source": encoder.source.split(", "),
        "branch": encoder.branch,
        "architecture": encoder.arch,
        "resnets": _resnets(encoder),
        "pixel_mean": pixels and list(pixels.mean),
        "pixel_std": pixels and list(pixels.std),
        "tensors_in": conversion.num_tensors_in,
        "tensors_used": conversion.num_tensors_out,
        "dropped": conversion.dropped,
        "warnings": conversion.warnings,
        "largest_relative_difference": proof
        and {"float64": proof.float64, "float32": proof.float32},
        "sha256_in": conversion.sha256_in,
        "sha256_out": conversion.sha256_out,
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }


def _resnets(encoder: Encoder) -> dict[str, Any]:
    return resnet_config(encoder.arch, stride_in_1x1=encoder.stride_in_1x1)


def _examples(keys: list[str], limit: int = 3) -> str:
    # Escaped: a key may hold anything, a line of this table too.
    shown = [repr(key)[1:-1] for key in keys[:limit]]
    return ", ".join(shown) + (", ..." if len(keys) > limit else "")
