"""Number format of the training step, chosen by what the hardware does fast."""

from __future__ import annotations

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices with instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Ask for the instructions: bf16 works without them too, but slower than fp32.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def chosen_dtype(device: torch.device, enabled: bool, dtype: str = "bf16") -> torch.dtype:
    """The format of the forward pass: bf16 where the device has it, fp16 where asked for, or fp32.

    Args:
        device: where the step runs.
        enabled: ``SOLVER.AMP.ENABLED``.
        dtype: ``SOLVER.AMP.DTYPE``.

    Raises:
        ValueError: unknown dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"SOLVER.AMP.DTYPE {dtype!r} is unknown; choose one of {list(DTYPES)}")
    if not enabled or (dtype == "bf16" and not has_fast_bf16(device)):
        return torch.float32
    return DTYPES[dtype]


def autocast(device: torch.device, enabled: bool, dtype: str = "bf16") -> torch.autocast:
    """The context of the forward pass in the format of :func:`chosen_dtype`."""
    chosen = chosen_dtype(device, enabled, dtype)
    if chosen == torch.float32:
        return torch.autocast(device.type, torch.bfloat16, enabled=False)
    return torch.autocast(device.type, chosen)


def build_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Scales fp16 losses so that small gradients survive; does nothing in other formats."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
