"""bf16 convolutions with small outputs on a CPU, where oneDNN's are slow.

oneDNN adds up the gradient of the weights image by image. Where an image's output is small, as in
the last stage of a ResNet or on the regions of a detector, that moves all weights through memory
for a few positions: on a Xeon with AMX, 512 channels on 4 x 4 positions took six times as long as
the forward pass and the gradient of the input together. Those are slow as well if the batch is
small, since the weights are reordered in every call. One matrix product over the positions of all
images gives the same sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Pair = tuple[int, int]


def conv2d(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """``F.conv2d`` without bias, which is fast for small bf16 outputs on a CPU.

    Args:
        x: (B, C, H, W).
        weight: (O, C, K, L).
        stride: vertical and horizontal.
        padding: likewise, with zeros.

    Returns:
        (B, O, H', W'), as ``F.conv2d`` has it, also in its dtype under autocast.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, strict=True)
    height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
    in_bf16 = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    if in_bf16 and is_small(height * width, len(weight)) and x.numel():
        return _Conv2d.apply(x, weight, stride, padding)
    return F.conv2d(x, weight, None, stride, padding)


def is_small(positions: int, out_channels: int) -> bool:
    """Whether the matrix product is faster than oneDNN's sum over images.

    For each image the product copies ``positions`` rows of all inputs of a filter, and oneDNN reads
    and writes ``out_channels`` of them in fp32. The factor between was measured.

    Args:
        positions: of an output image.
        out_channels: filters.
    """
    return 8 * positions <= out_channels


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        inputs = _inputs(x, weight.shape, stride, padding)
        output = inputs.flatten(3).flatten(0, 2) @ _filters(weight).t()
        return output.view(*inputs.shape[:3], len(weight)).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        batch, out_channels, height, width = grad.shape
        if ctx.needs_input_grad[0] and batch * height * width <= 2 * out_channels:
            grad_x = _input_gradient(grad, weight, x.shape, ctx.stride, ctx.padding)
        elif ctx.needs_input_grad[0]:
            # With many positions, adding up the shifted gradients takes longer; measured.
            grad_x = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1),
                (True, False, False),
            )[0]
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(grad, x, weight.shape, ctx.stride, ctx.padding)
        return grad_x, grad_weight, None, None


def _weight_gradient(
    grad: Tensor, x: Tensor, shape: torch.Size, stride: Pair, padding: Pair
) -> Tensor:
    out_channels, channels, *kernel = shape
    rows = _inputs(x, shape, stride, padding).flatten(3).flatten(0, 2)
    filters = grad.permute(1, 0, 2, 3).reshape(out_channels, -1) @ rows
    return filters.view(out_channels, *kernel, channels).permute(0, 3, 1, 2)


def _input_gradient(
    grad: Tensor, weight: Tensor, shape: torch.Size, stride: Pair, padding: Pair
) -> Tensor:
    batch, channels, rows, columns = shape
    _, out_channels, height, width = grad.shape
    kernel = weight.shape[2:]
    shares = grad.permute(0, 2, 3, 1).reshape(-1, out_channels) @ _filters(weight)
    shares = shares.view(batch, height, width, *kernel, channels)
    total = grad.new_zeros(
        (batch, rows + 2 * padding[0], columns + 2 * padding[1], channels), dtype=torch.float32
    )
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            below, right = i + stride[0] * height, j + stride[1] * width
            total[:, i : below : stride[0], j : right : stride[1]] += shares[:, :, :, i, j]
    inner = total[:, padding[0] : padding[0] + rows, padding[1] : padding[1] + columns]
    return inner.permute(0, 3, 1, 2).to(grad.dtype)


def _inputs(x: Tensor, shape: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """What the filters see at each position: (B, H', W', K, L, C), overlapping."""
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    padded = padded.permute(0, 2, 3, 1).contiguous()
    batch, height, width, channels = padded.shape
    kernel = shape[2:]
    image, row, column, channel = padded.stride()
    positions = ((height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1)
    return padded.as_strided(
        (batch, *positions, *kernel, channels),
        (image, row * stride[0], column * stride[1], row, column, channel),
    )


def _filters(weight: Tensor) -> Tensor:
    """Weights as a matrix (O, K L C); a view where they are channels_last."""
    return weight.permute(0, 2, 3, 1).flatten(1)


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` with the gradient of `conv2d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None or not is_plain(self):
            return super()._conv_forward(input, weight, bias)
        return conv2d(input, weight, self.stride, self.padding)  # type: ignore[arg-type]


def is_plain(conv: nn.Conv2d) -> bool:
    """Whether `conv2d` has all that a convolution needs, but for the bias."""
    return (
        conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def use_fast_gradients(network: nn.Module) -> None:
    """Makes every ``nn.Conv2d`` of a network a `Conv2d`, in place.

    Parameters, names and hooks stay the same objects; classes derived from ``nn.Conv2d`` stay.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2d
