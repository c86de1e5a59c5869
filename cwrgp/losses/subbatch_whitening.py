"""What CW-RGP and the batch whitening losses share: whitening of random sub-batches.

Shapes: V views, B samples on this process, D channels of the embedding, N samples in a sub-batch,
S = B // N sub-batches, K draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from cwrgp.losses.base import Loss, stack_views
from cwrgp.volatility import Volatility, target_volatility
from cwrgp.whitening import check_whitening, smallest_eigenvalue


def cut_subbatches(views: Tensor, subbatch_size: int, split: Tensor | None = None) -> Tensor:
    """Cuts embeddings into sub-batches, the same samples for all views.

    Args:
        views: (V, B, D) embeddings.
        subbatch_size: N.
        split: int64 (K, B), for each draw an order of the samples; every N consecutive ones form
            a sub-batch. None: one draw, the samples in order.

    Returns:
        (V, K, S, N, D).
    """
    h = views.unsqueeze(1)  # (V, K, B, D)
    if split is not None:
        # As views[:, split], but faster, in the backward pass too.
        h = views.index_select(1, split.flatten()).unflatten(1, split.shape)
    return h.unflatten(2, (-1, subbatch_size))


def random_permutations(*shape: int, generator: Generator | None, device: torch.device) -> Tensor:
    """Independent random permutations along the last dimension, int64 of ``shape``.

    Sorting noise draws all of them at once, on the device.
    """
    return torch.rand(*shape, generator=generator, device=device).argsort(-1)


def check_subbatches(batch_size: int, subbatch_size: int) -> None:
    """Checks that the batch of a process can be cut into sub-batches.

    Raises:
        ValueError: it cannot; the message names the sizes that work.
    """
    if batch_size < 2:
        raise ValueError(f"a batch of {batch_size} sample(s) per process cannot be whitened")
    if subbatch_size < 1 or batch_size % subbatch_size:
        divisors = [n for n in range(2, batch_size + 1) if batch_size % n == 0]
        raise ValueError(
            f"a batch of {batch_size} samples per process does not divide into sub-batches of "
            f"{subbatch_size}; sub-batches of {', '.join(map(str, divisors))} would"
        )


class SubbatchWhiteningLoss(Loss, ABC):
    """Base class of the losses that whiten random sub-batches of the batch of this process.

    A subclass implements :meth:`compute`.

    Attributes:
        method: of the whitening, as for :func:`cwrgp.whitening.whiten`.
        random_partition: whether channels are permuted before they are cut into groups.

    Args:
        axis: "channel" or "batch", as for :func:`cwrgp.whitening.whiten`.
        num_groups: G, groups of channels that are whitened separately.
        subbatch_size: N; must divide the batch of this process; 0: the whole batch.
        num_draws: K, how often the sub-batches are drawn in a step; the loss is averaged over the
            draws.
        normalize: cosine form; otherwise the mean squared error.
        eps: S <- (1 - eps) S + eps I.

    Raises:
        ValueError: an argument is out of range.
    """

    inverts_covariance = True
    method = "zca"
    random_partition = False

    def __init__(
        self,
        *,
        axis: str,
        num_groups: int,
        subbatch_size: int,
        num_draws: int,
        normalize: bool,
        eps: float,
    ) -> None:
        super().__init__()
        if axis not in ("channel", "batch"):
            raise ValueError(f"axis {axis!r} is unknown; choose 'channel' or 'batch'")
        if num_draws < 1:
            raise ValueError(f"num_draws {num_draws} is below 1")
        if not 0 <= eps < 1:
            raise ValueError(f"eps {eps} is outside [0, 1)")
        self.axis = axis
        self.num_groups = num_groups
        self.subbatch_size = subbatch_size
        self.num_draws = num_draws
        self.normalize = normalize
        self.eps = eps

    @property
    def needs_full_rank(self) -> bool:
        """Whether batches whose channels are linearly dependent cannot be whitened."""
        return self.inverts_covariance and self.axis == "batch" and self.num_groups == 1

    def size(self, batch_size: int) -> int:
        """N, of a batch of this size on a process."""
        return self.subbatch_size or batch_size

    def check(self, batch_size: int, num_channels: int) -> None:
        """Checks that batches of this shape can be cut and whitened; see :meth:`Loss.check`."""
        size = self.size(batch_size)
        check_subbatches(batch_size, size)
        if self.inverts_covariance:
            check_whitening(
                size, num_channels, axis=self.axis, num_groups=self.num_groups, eps=self.eps
            )

    def smallest_eigenvalue(self, views: Tensor) -> Tensor | None:
        """Of sub-batches and groups cut in order; see :meth:`Loss.smallest_eigenvalue`."""
        if not self.inverts_covariance:
            return None
        h = cut_subbatches(views, self.size(views.shape[1]))
        return smallest_eigenvalue(h, axis=self.axis, num_groups=self.num_groups, eps=self.eps)

    def target_volatility(self, before: Tensor, after: Tensor) -> Volatility | None:
        """With one fixed partition of the channels; see :meth:`Loss.target_volatility`."""
        if not self.inverts_covariance:
            return None
        permutation = None
        if self.random_partition:
            generator = torch.Generator(before.device).manual_seed(0)
            permutation = random_permutations(
                before.shape[-1], generator=generator, device=before.device
            )
        return target_volatility(
            before,
            after,
            axis=self.axis,
            method=self.method,
            num_groups=self.num_groups,
            permutation=permutation,
            eps=self.eps,
        )

    def value_for_unrelated(
        self, num_samples: int, *, num_views: int = 2, num_channels: int | None = None
    ) -> float | None:
        """2 in the cosine form: whitening keeps the symmetry about zero; the mean cosine is 0."""
        return 2.0 if self.normalize else None

    def forward(
        self, views: Tensor | Sequence[Tensor], *, generator: Generator | None = None
    ) -> Tensor:
        """Computes the loss, in fp32 at least, with fresh random sub-batches.

        Args:
            views: (V, B, D), or V tensors of (B, D).
            generator: source of the randomness, on the device of ``views``; None: the default one.

        Returns:
            A scalar.

        Raises:
            ValueError: fewer than two views, or shapes that cannot be whitened.
        """
        h = stack_views(views, type(self).__name__)
        self.check(*h.shape[1:])
        split = random_permutations(
            self.num_draws, h.shape[1], generator=generator, device=h.device
        )
        return self.compute(h, split, generator)

    @abstractmethod
    def compute(self, views: Tensor, split: Tensor, generator: Generator | None) -> Tensor:
        """Computes the loss of embeddings (V, B, D) for a split of the samples, int64 (K, B)."""
