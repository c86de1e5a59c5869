"""The number format of a process: autocast, loss scaler, memory format, and what fp32 means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16 autocast", torch.float16: "fp16 autocast"}


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bf16 matrices."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # bf16 also works without these instructions, but slower than fp32.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@dataclass(frozen=True)
class Precision:
    """The number format in which a process trains and evaluates.

    Attributes:
        device: where the networks are.
        dtype: of the forward pass: fp32, or bf16 or fp16 under autocast.
        reason: why it is not the requested format; "" where it is.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str = ""

    @classmethod
    def choose(cls, device: torch.device, *, enabled: bool, dtype: str = "bf16") -> Precision:
        """The format for a device: fp32, unless mixed precision is enabled and fast there.

        Args:
            device: where the networks are.
            enabled: whether to use mixed precision.
            dtype: "bf16", which becomes fp32 on devices without bf16 instructions, or "fp16".

        Raises:
            ValueError: unknown dtype.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is unknown; choose one of {list(DTYPES)}")
        if not enabled:
            return cls(device, torch.float32)
        if dtype == "bf16" and not has_fast_bf16(device):
            return cls(device, torch.float32, "no bf16 instructions")
        return cls(device, DTYPES[dtype])

    @property
    def memory_format(self) -> torch.memory_format:
        """Of networks and images: channels_last, which half-precision convolutions prefer."""
        half = self.dtype != torch.float32
        return torch.channels_last if half else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        if self.dtype == torch.float32:
            return torch.autocast(self.device.type, torch.bfloat16, enabled=False)
        return torch.autocast(self.device.type, self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A new loss scaler, which keeps small fp16 gradients from underflowing; disabled in other
        formats."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def describe(self) -> str:
        """For the log, such as "bf16 autocast" or "fp32 (no bf16 instructions)"."""
        name = _NAMES[self.dtype]
        return f"{name} ({self.reason})" if self.reason else name

    @contextlib.contextmanager
    def ieee_fp32(self) -> Iterator[None]:
        """Inside the block, fp32 convolutions and matrix products have 24 bits of precision.

        Otherwise PyTorch runs fp32 convolutions as TF32 (11 bits) on GPUs, and after
        ``torch.set_float32_matmul_precision`` matrix products as TF32 or bf16 on GPUs and CPUs.
        Under autocast this holds for what stays in fp32, such as whitening and losses.
        """
        backends = torch.backends
        # A setting of their own takes precedence over torch.backends.fp32_precision.
        operations = (
            backends.cudnn.conv,  # type: ignore[attr-defined]
            backends.cuda.matmul,
            backends.mkldnn.conv,  # type: ignore[attr-defined]
            backends.mkldnn.matmul,  # type: ignore[attr-defined]
        )
        before = [operation.fp32_precision for operation in operations]
        for operation in operations:
            operation.fp32_precision = "ieee"
        try:
            yield
        finally:
            for operation, value in zip(operations, before, strict=True):
                operation.fp32_precision = value
