"""A fixed batch that is embedded before and after an update, to see how far its targets move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cwrgp.engine.precision import Precision
from cwrgp.models.methods import Method
from cwrgp.profiling import part
from cwrgp.whitening import at_least_float32


class TargetProbe:
    """Embeds its images with the networks of a method, and leaves everything else as it is.

    In evaluation mode, which neither changes BatchNorm's statistics nor exchanges them between
    processes, and draws no random numbers.

    Args:
        images: uint8 (N, 3, H, W), samples that are whitened together.
        normalize: uint8 images -> network input.
        precision: number format, and the device of the method.
    """

    def __init__(
        self, images: Tensor, *, normalize: Callable[[Tensor], Tensor], precision: Precision
    ) -> None:
        self._images, self._normalize, self._precision = images, normalize, precision
        self._before: Tensor | None = None

    def before_update(self, method: Method) -> None:
        """Embeds the images before an update of the weights."""
        self._before = self._embed(method)

    def after_update(self, method: Method) -> dict[str, float]:
        """The volatility of the targets over the update since :meth:`before_update`.

        Returns:
            "monitor/whitening_volatility" and "monitor/target_volatility", see
            :class:`cwrgp.volatility.Volatility`; {} for methods that invert no covariance.
        """
        assert self._before is not None
        found = method.target_volatility(self._before, self._embed(method))
        self._before = None
        if found is None:
            return {}
        return {
            "monitor/whitening_volatility": float(found.matrix),
            "monitor/target_volatility": float(found.target),
        }

    @torch.no_grad()
    def _embed(self, method: Method) -> Tensor:
        precision = self._precision
        modes = {module: module.training for module in method.modules()}
        method.eval()
        try:
            with part("logging"), precision.autocast():
                images = self._normalize(self._images.to(precision.device))
                features = method.encoder(images.to(memory_format=precision.memory_format))
                return at_least_float32(method.projector(features))
        finally:
            _restore(modes)


def _restore(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training
