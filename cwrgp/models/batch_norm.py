"""BatchNorm over all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from cwrgp.comm import get_world_size
from cwrgp.whitening import at_least_float32


class CPUSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the batches of all processes where torch's own, for GPUs only, cannot be used.

    Every process must hold as many samples as the others.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (B, C, ...) by its mean and biased variance over all but the channels."""
        self._check_input_dim(input)
        if not self.training or get_world_size() == 1:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = at_least_float32(input)
        # Two passes: the mean of squares less the square of the mean loses digits in fp32.
        mean = all_reduce(x.mean(axes)) / get_world_size()
        centred = x - mean.view(shape)
        var = all_reduce(centred.square().mean(axes)) / get_world_size()
        count = get_world_size() * x.numel() // x.shape[1]
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        y = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replaces every BatchNorm by one over all processes; one process keeps what it has.

    Args:
        module: changed in place where its children are replaced; names and values of the state
            stay.
        device: where it runs.
    """
    if get_world_size() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            assert child.running_mean is not None
            synced = CPUSyncBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            synced.to(child.running_mean.dtype).load_state_dict(child.state_dict())
            # The parameters themselves: a frozen network stays frozen.
            synced.weight, synced.bias = child.weight, child.bias
            setattr(module, name, synced)
        else:
            synchronize_batch_norm(child, device)
    return module
