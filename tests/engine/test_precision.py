"""The number format, and what fp32 is."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import cwrgp.engine.precision
from cwrgp.engine.precision import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("fast", "enabled", "dtype", "expected", "memory_format"),
    [
        (True, True, "bf16", "bf16 autocast, channels_last", torch.channels_last),
        (False, True, "bf16", "fp32 (no bf16 instructions)", torch.contiguous_format),
        (False, True, "fp16", "fp16 autocast, channels_last", torch.channels_last),
        (True, True, "fp32", "fp32", torch.contiguous_format),
        (True, False, "bf16", "fp32", torch.contiguous_format),
        (True, False, "fp16", "fp32", torch.contiguous_format),
    ],
)
def test_the_format_is_that_of_the_hardware(
    monkeypatch, fast, enabled, dtype, expected, memory_format
):
    monkeypatch.setattr(cwrgp.engine.precision, "has_fast_bf16", lambda device: fast)
    precision = Precision.choose(CPU, enabled=enabled, dtype=dtype)
    assert precision.describe() == expected
    assert precision.memory_format == memory_format
    assert precision.scaler().is_enabled() == expected.startswith("fp16")
    with precision.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == precision.dtype


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match=r"^dtype 'fp8' is unknown; choose one of \['fp32', "):
        Precision.choose(CPU, enabled=True, dtype="fp8")
    with pytest.raises(ValueError, match=r"^layout 'nhwc' is unknown; choose one of \['auto', "):
        Precision.choose(CPU, enabled=True, layout="nhwc")


def test_the_memory_format_can_be_fixed_in_any_format():
    fp32 = Precision.choose(CPU, enabled=False, layout="channels_last")
    assert fp32.memory_format == torch.channels_last
    assert fp32.describe() == "fp32, channels_last"
    bf16 = Precision.choose(CPU, enabled=True, dtype="fp16", layout="contiguous", reason="a test")
    assert bf16.memory_format == torch.contiguous_format
    assert bf16.describe() == "fp16 autocast (a test)"


def settings() -> list[str]:
    b = torch.backends
    operations = (b.cudnn.conv, b.cuda.matmul, b.mkldnn.conv, b.mkldnn.matmul)
    return [operation.fp32_precision for operation in operations]


def test_fp32_is_fp32_whatever_the_process_has_been_told():
    torch.manual_seed(0)
    a, b = torch.randn(2, 256, 256)
    images, kernel = torch.randn(4, 16, 16, 16), torch.randn(16, 16, 3, 3)

    def errors() -> tuple[float, float]:
        exact = F.conv2d(images.double(), kernel.double()), a.double() @ b.double()
        got = F.conv2d(images, kernel), a @ b
        return tuple(float((x - y).abs().max()) for x, y in zip(got, exact, strict=True))

    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        told = settings()
        assert "bf16" in told and "ieee" not in told
        # Otherwise the numbers below show nothing. Without AMX the CPU keeps to fp32 anyway.
        assert min(errors()) > 1e-2 or not torch.cpu.get_capabilities().get("amx_bf16")
        with Precision(CPU, torch.float32).ieee_fp32():
            assert settings() == ["ieee"] * 4
            assert max(errors()) < 1e-3
        assert settings() == told
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.conv.fp32_precision = "none"
