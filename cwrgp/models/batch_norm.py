"""BatchNorm over all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from cwrgp.comm import get_world_size
from cwrgp.whitening import at_least_float32


class CPUSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the batches of all processes, for CPUs; torch's SyncBatchNorm needs GPUs.

    The processes may hold different numbers of samples.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (B, C, ...) by the mean and biased variance over all dimensions but C.

        Raises:
            ValueError: the input has no channels, or the processes together hold less than two
                values per channel.
        """
        self._check_input_dim(input)
        if not self.training or get_world_size() == 1:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = at_least_float32(input)
        # Two passes: the mean of squares minus the square of the mean loses digits in fp32.
        sums = all_reduce(torch.cat([x.sum(axes), x.new_tensor([x.numel() // x.shape[1]])]))
        count = sums[-1].detach()
        if count < 2:
            raise ValueError(
                "BatchNorm needs two values per channel or more, got "
                f"{count:.0f} over all processes"
            )
        mean = sums[:-1] / count
        centred = x - mean.view(shape)
        var = all_reduce(centred.square().sum(axes)) / count
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
    """Replaces every BatchNorm by one over all processes; a single process keeps its own.

    Args:
        module: a network. Its children are replaced in place; the names and values in its state
            dict stay the same.
        device: where the network runs.

    Returns:
        The network; another module only where ``module`` is itself a BatchNorm.
    """
    if get_world_size() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        assert module.running_mean is not None
        synced = CPUSyncBatchNorm(module.num_features, module.eps, module.momentum, module.affine)
        synced.to(module.running_mean.dtype).load_state_dict(module.state_dict())
        # The same parameter objects: what is frozen stays frozen.
        synced.weight, synced.bias = module.weight, module.bias
        return synced.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, synchronize_batch_norm(child, device))
    return module
