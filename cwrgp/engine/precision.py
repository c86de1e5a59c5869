"""The number format of a process: autocast, loss scaler, memory format, and what fp32 means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from cwrgp.convolution import use_fast_gradients
from cwrgp.number_format import MEMORY_FORMATS, has_fast_bf16

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16 autocast", torch.float16: "fp16 autocast"}


@dataclass(frozen=True)
class Precision:
    """The number format in which a process trains and evaluates.

    Attributes:
        device: where the networks are.
        dtype: of the forward pass: fp32, or bf16 or fp16 under autocast.
        layout: the memory format of networks and images: "contiguous", "channels_last", or "auto".
        reason: why it is this format, for the log; "" where it was requested.
    """

    device: torch.device
    dtype: torch.dtype
    layout: str = "auto"
    reason: str = ""

    @classmethod
    def choose(
        cls,
        device: torch.device,
        *,
        enabled: bool,
        dtype: str = "bf16",
        layout: str = "auto",
        reason: str = "",
    ) -> Precision:
        """The format for a device: fp32, unless mixed precision is enabled and supported there.

        Args:
            device: where the networks are.
            enabled: whether to use mixed precision.
            dtype: "fp32", "bf16", which becomes fp32 on devices without bf16 instructions, or
                "fp16".
            layout: as the attribute.
            reason: as the attribute.

        Raises:
            ValueError: unknown dtype or layout.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is unknown; choose one of {list(DTYPES)}")
        if layout not in ("auto", *MEMORY_FORMATS):
            raise ValueError(
                f"layout {layout!r} is unknown; choose one of {['auto', *MEMORY_FORMATS]}"
            )
        if not enabled:
            return cls(device, torch.float32, layout)
        if dtype == "bf16" and not has_fast_bf16(device):
            return cls(device, torch.float32, layout, "no bf16 instructions")
        return cls(device, DTYPES[dtype], layout, reason)

    @property
    def memory_format(self) -> torch.memory_format:
        """Of networks and images; "auto" is channels_last in half precision, whose convolutions
        are faster with it, and contiguous in fp32."""
        if self.layout == "auto":
            half = self.dtype != torch.float32
            return torch.channels_last if half else torch.contiguous_format
        return MEMORY_FORMATS[self.layout]

    def prepare(self, network: nn.Module) -> nn.Module:
        """Moves a network to the device and into the memory format, in place."""
        if self.device.type == "cpu" and self.dtype == torch.bfloat16:
            use_fast_gradients(network)
        return network.to(self.device).to(memory_format=self.memory_format)

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
        """For the log, such as "bf16 autocast, channels_last" or "fp32 (no bf16 instructions)"."""
        name = _NAMES[self.dtype]
        if self.memory_format == torch.channels_last:
            name += ", channels_last"
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
