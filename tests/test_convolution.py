"""bf16 convolutions with small outputs against fp32 and against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cwrgp.convolution import Conv2d, conv2d, is_small, use_fast_gradients
from cwrgp.models.encoders import build_encoder


def gradients(convolve, x, weight, grad, dtype):
    x = x.to(dtype).requires_grad_()
    weight = weight.to(dtype).requires_grad_()
    y = convolve(x, weight)
    y.backward(grad.to(dtype))
    return [t.detach().float() for t in (y, x.grad, weight.grad)]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((4, 4), (3, 3), (1, 1), (1, 1)),
        ((8, 6), (3, 3), (2, 2), (1, 1)),
        ((4, 4), (1, 1), (1, 1), (0, 0)),
        ((7, 5), (1, 1), (2, 2), (0, 0)),
        ((5, 7), (3, 1), (2, 1), (0, 2)),
        ((2, 2), (3, 3), (1, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_torch(size, kernel, stride, padding, memory_format):
    torch.manual_seed(0)
    x = torch.randn(6, 24, *size).to(memory_format=memory_format)
    weight = torch.randn(320, 24, *kernel).to(memory_format=memory_format)
    expected = F.conv2d(x.double(), weight.double(), None, stride, padding)
    assert is_small(expected[0, 0].numel(), 320)
    grad = torch.randn(expected.shape)
    arguments = (x.bfloat16().float(), weight.bfloat16().float(), grad.bfloat16().float())
    exact = gradients(lambda a, w: F.conv2d(a, w, None, stride, padding), *arguments, torch.float64)
    for value, reference in zip(
        gradients(lambda a, w: conv2d(a, w, stride, padding), *arguments, torch.bfloat16),
        exact,
        strict=True,
    ):
        assert value.shape == reference.shape
        assert (value - reference).norm() / reference.norm() < 3e-3


def test_a_frozen_weight_or_input_gets_no_gradient():
    x = torch.randn(2, 8, 2, 2, dtype=torch.bfloat16)
    weight = torch.randn(64, 8, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    conv2d(x, weight, (1, 1), (0, 0)).sum().backward()
    assert x.grad is None and weight.grad is not None
    x, weight = x.clone().requires_grad_(), weight.detach()
    conv2d(x, weight, (1, 1), (0, 0)).sum().backward()
    assert x.grad is not None and weight.grad is None
    empty = conv2d(x[:0], weight, (1, 1), (0, 0))
    assert empty.shape == (0, 64, 2, 2)


def test_a_network_has_the_same_outputs_and_gradients():
    torch.manual_seed(0)
    plain = build_encoder("resnet18", stem="small", zero_init_residual=False)
    exact, fast = copy.deepcopy(plain), copy.deepcopy(plain)
    use_fast_gradients(fast)
    assert all(type(m) is Conv2d for m in fast.modules() if isinstance(m, nn.Conv2d))
    assert plain.state_dict().keys() == fast.state_dict().keys()
    images = torch.randn(8, 3, 32, 32)
    in_fp32 = [network(images) for network in (plain, fast)]
    assert torch.equal(*in_fp32)
    outputs = []
    for network in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(network(images).float())
        outputs[-1].square().sum().backward()
    assert (outputs[0] - outputs[1]).norm() / outputs[0].norm() < 5e-3  # half a unit of bf16
    exact(images).square().sum().backward()
    # Rounding adds up over the layers: the fast gradients are as close to fp32's as torch's are.
    for (name, x), a, b in zip(
        exact.named_parameters(), plain.parameters(), fast.parameters(), strict=True
    ):
        assert b.grad.dtype == torch.float32
        assert (b.grad - x.grad).norm() < 1.1 * (a.grad - x.grad).norm(), name


def test_what_the_product_does_not_cover_is_left_to_torch():
    x = torch.randn(2, 64, 2, 2)
    for options in ({"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect"}, {"bias": True}):
        conv = nn.Conv2d(64, 64, 3, padding=1 if "dilation" not in options else 2, **options)
        fast = copy.deepcopy(conv)
        use_fast_gradients(fast)
        with torch.autocast("cpu", torch.bfloat16):
            expected, got = conv(x), fast(x)
        assert torch.equal(expected, got)
        assert type(got.grad_fn) is type(expected.grad_fn)
