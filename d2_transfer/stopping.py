"""A stop signal ends a fine-tuning after its step, with a checkpoint to go on from."""

from __future__ import annotations

from detectron2.engine import HookBase

from cwrgp.preemption import Preempted, StopRequest


class StopWhenAsked(HookBase):
    """Saves and raises `Preempted` after the step in which a signal came; registered last.

    Args:
        request: of this process; the processes of a run agree on the step.
    """

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    def after_step(self) -> None:
        """A step and all other hooks are done."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or not self._request.agreed():
            return
        self.trainer.checkpointer.save(f"model_{done - 1:07d}", iteration=done - 1)
        raise Preempted(f"stop requested: saved after iteration {done - 1}")
