"""Profiles steps of a fine-tuning: marks the parts of Detectron2's step, which has no marks."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase, hooks
from torch import nn
from torch.profiler import record_function

from cwrgp.profiling import StepProfiler, part


class ProfileSteps(HookBase):
    """Writes what `StepProfiler` writes; to be registered after all other hooks.

    Detectron2's own `hooks.TorchProfiler` writes a file for each step, in which the parts of the
    step cannot be told apart. Nothing is marked without this hook.

    Args:
        folder: where to.
        device: of the training.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._profiler = StepProfiler(folder, device, logging.getLogger(__name__))
        self._running = contextlib.ExitStack()
        self._backward: record_function | None = None

    def before_train(self) -> None:
        """Marks the parts of a step, and starts."""
        loop = self.trainer._trainer
        loop._data_loader_iter_obj = _waiting(loop._data_loader_iter)
        loop.model.register_forward_pre_hook(self._forward_begins)
        loop.model.register_forward_hook(self._forward_ends)
        for module in loop.model.modules():
            _mark_losses(module)
        loop._write_metrics = self._backward_ends_before(loop._write_metrics)
        loop.optimizer.step = _marked("optimizer", loop.optimizer.step)
        for hook in self.trainer._hooks:
            if isinstance(hook, hooks.PeriodicWriter):
                hook.after_step = _marked("logging", hook.after_step)
            elif isinstance(hook, hooks.EvalHook | hooks.PeriodicCheckpointer | hooks.PreciseBN):
                hook.after_step = _marked("evaluation, saving", hook.after_step)
        self._running.enter_context(self._profiler.running())

    def after_step(self) -> None:
        """A step is done."""
        self._profiler.step()

    def after_train(self) -> None:
        """Stops, also where the training failed."""
        self._running.close()

    def _forward_begins(self, *_: object) -> None:
        self._forward = part("forward")
        self._forward.__enter__()

    def _forward_ends(self, *_: object) -> None:
        self._forward.__exit__(None, None, None)
        # What comes next is the sum of the losses and their backward pass.
        self._backward = part("backward")
        self._backward.__enter__()

    def _backward_ends_before(self, write_metrics: Callable[..., None]) -> Callable[..., None]:
        write = _marked("logging", write_metrics)

        @functools.wraps(write_metrics)
        def call(*args: Any, **kwargs: Any) -> None:
            if self._backward is not None:
                self._backward.__exit__(None, None, None)
                self._backward = None
            write(*args, **kwargs)

        return call


def _marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with part(name):
            return function(*args, **kwargs)

    return call


def _waiting(batches: Iterator[Any]) -> Iterator[Any]:
    while True:
        with part("data"):
            batch = next(batches)
        yield batch


def _mark_losses(module: nn.Module) -> None:
    """The RPN and the box heads compute theirs in a method; the masks' count as forward."""
    if callable(losses := getattr(module, "losses", None)):
        module.losses = _marked("loss", losses)  # type: ignore[assignment]
