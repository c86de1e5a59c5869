"""Number format of the training step, chosen by what the hardware does fast."""

from __future__ import annotations

import torch


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices with instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Ask for the instructions: bf16 works without them too, but slower than fp32.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """The context of the forward pass: bf16 where it is enabled and the device has it, otherwise
    none.

    Args:
        device: where the step runs.
        enabled: ``SOLVER.AMP.ENABLED``.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_fast_bf16(device))
