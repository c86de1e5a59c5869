"""Trains the layers of a detector in bf16: losses, and what makes boxes of outputs, stay in fp32.

Detectron2's own mixed precision puts the whole detector under autocast, on a GPU. Here only the
layers are, so that it needs neither a GPU nor a loss scaler. Evaluation is in fp32.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from detectron2 import layers
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import Tensor, nn

from cwrgp.convolution import conv2d, is_plain, use_fast_gradients
from cwrgp.number_format import MEMORY_FORMATS, NumberFormat

# Modules of Detectron2's architectures whose method runs layers and nothing else.
_LAYERS = (
    ("backbone", "forward"),
    ("proposal_generator.rpn_head", "forward"),
    ("roi_heads.res5", "forward"),
    ("roi_heads.box_head", "forward"),
    ("roi_heads.mask_head", "layers"),
    ("roi_heads.keypoint_head", "layers"),
    ("sem_seg_head", "layers"),
    ("head", "forward"),  # of RetinaNet and FCOS
)


def use_number_format(detector: nn.Module, number_format: NumberFormat) -> nn.Module:
    """Makes a detector train in a number format, in place.

    Parameters, and with them the names of a checkpoint, stay the same.

    Args:
        detector: of Detectron2.
        number_format: its dtype "bf16" puts the layers under autocast; "fp16" changes nothing
            here, since Detectron2's ``AMPTrainer`` puts the whole detector under autocast.

    Returns:
        The detector.
    """
    if number_format.dtype == "bf16":
        use_fast_gradients(detector)
        for module in detector.modules():
            if type(module) in _IN_BF16:
                module.__class__ = _IN_BF16[type(module)]
        modules = dict(detector.named_modules())
        for name, method in _LAYERS:
            if name not in modules:
                continue
            stages = modules[name]
            for module in stages if isinstance(stages, nn.ModuleList) else [stages]:
                _autocast(module, method)
    return detector.to(memory_format=MEMORY_FORMATS[number_format.memory_format])


def _autocast(module: nn.Module, name: str) -> None:
    """Runs a method of a module in bf16, with outputs in fp32, while the module is in training."""

    def call(self: nn.Module, *args: Any) -> Any:
        method = getattr(type(self), name)
        if not self.training:
            return method(self, *args)
        with torch.autocast(next(self.parameters()).device.type, torch.bfloat16):
            output = method(self, *args)
        return _in_fp32(output)

    # A bound method, since a copy of the module must call its own.
    setattr(module, name, types.MethodType(call, module))


def _in_fp32(output: Any) -> Any:
    """Tensors, or dictionaries and lists of them, in fp32."""
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {key: _in_fp32(value) for key, value in output.items()}
    return type(output)(_in_fp32(value) for value in output)


class _Conv2d(layers.Conv2d):
    """Detectron2's convolution with the gradient of `cwrgp.convolution.conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None or not is_plain(self):
            return super().forward(x)
        x = conv2d(x, self.weight, self.stride, self.padding)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class _SyncBatchNorm(NaiveSyncBatchNorm):
    """Detectron2's, which computes the variance over several processes in the input's dtype.

    It makes an exception for fp16. In bf16 the difference of the moments would have 8 bits.
    """

    def forward(self, input: Tensor) -> Tensor:
        if comm.get_world_size() == 1 or not self.training:
            return super().forward(input)
        return super().forward(input.float()).to(input.dtype)


_IN_BF16: dict[type[nn.Module], type[nn.Module]] = {
    layers.Conv2d: _Conv2d,
    NaiveSyncBatchNorm: _SyncBatchNorm,
}
