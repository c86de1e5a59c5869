"""When things happen in a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When things happen, in steps; a period of 0 means never.

    Attributes:
        num_images: images in an epoch, including those that do not fill its last batch.
        total_steps: steps in the run.
        steps_per_epoch: steps in an epoch.
        log_period: between records of the losses; only then the loop waits for the GPU.
        checkpoint_period: between checkpoints.
        eval_period: between evaluations; the first is before the first step.
    """

    num_images: int
    total_steps: int
    steps_per_epoch: int
    log_period: int
    checkpoint_period: int
    eval_period: int

    def due(self, period: int, step: int) -> bool:
        """Whether what has this period happens after this step; after the last one it does."""
        return period > 0 and ((step + 1) % period == 0 or self.is_last(step))

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after this step."""
        return self.is_last(step) or self.due(self.checkpoint_period, step)

    def is_last(self, step: int) -> bool:
        """Whether the run ends with this step."""
        return step + 1 == self.total_steps
