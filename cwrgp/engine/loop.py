"""The training loop: steps, losses and a schedule; it knows neither the method nor the config."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cwrgp.checkpoints.own import pack
from cwrgp.comm import gather, get_rank, get_world_size, wait_for_all
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.finite import FiniteGuard, NonFinite, check_scale, check_weights
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.plan import Plan
from cwrgp.engine.progress import MetricWriter
from cwrgp.engine.step import (
    StepConfig,
    distributed,
    forward_backward,
    gradients_to_check,
    update,
)
from cwrgp.engine.target_probe import TargetProbe
from cwrgp.engine.timer import StepTimer
from cwrgp.models.methods import Method, Output
from cwrgp.preemption import Preempted, StopRequest
from cwrgp.profiling import StepProfiler, part
from cwrgp.seeding import Stream, derive_seed


def train(
    method: Method,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Tensor]],
    *,
    plan: Plan,
    step_config: StepConfig,
    start_step: int,
    checkpoints: Checkpoints | None,
    config: str,
    writer: MetricWriter | None,
    monitor: TrainingMonitor,
    evaluate: Callable[[], dict[str, float]],
    stop: StopRequest,
    probe: TargetProbe | None = None,
    profiler: StepProfiler | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Trains from ``start_step`` to the end of the plan and leaves ``model_final.pth``.

    A step is a pure function of the weights, the optimizer's state, the seed and the step's
    number, so a run that was killed continues bit for bit on a CPU.

    Args:
        method: views -> :class:`Output`; not wrapped.
        optimizer: over the method's parameters.
        batches: V uint8 views for each step, from ``start_step`` on.
        plan: when things happen.
        step_config: how a step is computed.
        start_step: the first step.
        checkpoints: where to save; None on all but the main process.
        config: the configuration as YAML, for the checkpoint.
        writer: where to report; None on all but the main process.
        monitor: computes statistics of the embeddings and gives warnings and advice.
        evaluate: gives named numbers; called on every process.
        stop: asked after every step, and before the first.
        probe: asked, with a record, how far targets move in that step; None: that is not recorded.
        profiler: told of the end of every step; None: the steps are not profiled.
        clock: gives seconds.

    Raises:
        FloatingPointError: a loss, gradient or weight is not finite, on every process; nothing of
            it is saved but ``diagnostic.pth``.
        Preempted: a signal asked the run to stop; a checkpoint of what was trained is saved.
    """
    run = _Run(
        *(method, optimizer, plan, step_config, checkpoints, config, writer, monitor, evaluate),
        *(probe, profiler, clock),
    )
    method.train()
    if start_step == 0 and plan.eval_period:
        run.report(0, "before training")
    if stop.agreed():
        raise Preempted(f"stop requested before iteration {start_step + 1}")
    run.timer.reset()
    with contextlib.nullcontext() if profiler is None else profiler.running():
        for step in range(start_step, plan.total_steps):
            run.iteration(step, batches, stop)


class _Result(NamedTuple):
    """What a step leaves for its record.

    Attributes:
        output: of the method, for the last part of the batch.
        losses: over the whole batch of this process.
        mean_loss: since the last look, over all processes; None if this step had no look.
    """

    output: Output
    losses: dict[str, Tensor]
    mean_loss: float | None


@dataclass
class _Run:
    """The arguments of :func:`train`, and the pieces of its loop that work on them."""

    method: Method
    optimizer: torch.optim.Optimizer
    plan: Plan
    step_config: StepConfig
    checkpoints: Checkpoints | None
    config: str
    writer: MetricWriter | None
    monitor: TrainingMonitor
    evaluate: Callable[[], dict[str, float]]
    probe: TargetProbe | None
    profiler: StepProfiler | None
    clock: InitVar[Callable[[], float]]

    def __post_init__(self, clock: Callable[[], float]) -> None:
        self.device = self.step_config.precision.device
        self.model = distributed(self.method, self.device)
        self.guard, self.timer = FiniteGuard(self.device), StepTimer(clock)

    def iteration(self, step: int, batches: Iterator[list[Tensor]], stop: StopRequest) -> None:
        """A step, and what is due after it: a record, an evaluation, a checkpoint."""
        plan = self.plan
        with self.timer.waiting(), part("data"):
            views = next(batches)
        stopping = not plan.is_last(step) and stop.agreed()
        logged, saved = plan.due(plan.log_period, step), stopping or plan.saves(step)
        evaluated = plan.due(plan.eval_period, step)
        result = self.forward_backward(step, views, look=logged or saved)
        probe = self.probe if logged and self.writer is not None else None
        if probe is not None:
            probe.before_update(self.method)
        with part("optimizer"):
            update(self.method, self.optimizer, self.step_config.scaler, self.guard)
        self.timer.count()
        volatility = {} if probe is None else probe.after_update(self.method)
        if saved:
            self.check_weights(step, result.output)
        if logged:
            with part("logging"):
                self.record(step, result, volatility)
        if saved or evaluated:
            with self.paused(), part("evaluation, saving"):
                if evaluated:
                    self.report(step, f"after iteration {step + 1}")
                if saved:
                    self.save(step)
        if self.writer is not None:
            self.writer.step()
        if self.profiler is not None:
            with self.timer.paused():  # for the time in which it writes
                self.profiler.step()
        if stopping:
            wait_for_all()  # the checkpoint is complete before the first process leaves
            raise Preempted(f"stop requested: saved after iteration {step + 1}")

    def forward_backward(self, step: int, views: list[Tensor], *, look: bool) -> _Result:
        """Losses and gradients of a step, checked before the update.

        Args:
            step: its number.
            views: its batch.
            look: whether to wait for the GPU and look at the losses since the last look.

        Raises:
            FloatingPointError: a loss or gradient is not finite.
        """
        plan, config = self.plan, self.step_config
        torch.manual_seed(derive_seed(Stream.STEP, config.seed, step, get_rank()))
        with part("optimizer"):  # a momentum network may move here
            self.method.set_progress(
                step=step, total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch
            )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(step)
        output, losses = forward_backward(self.model, views, self.optimizer, config)
        if step == 0:
            self.monitor.start(output.embeddings)
        gradients, mean_loss = gradients_to_check(self.optimizer, config.scaler), None
        try:
            with part("logging"):
                self.guard.add(step, torch.stack(list(losses.values())).sum(), gradients)
                if look:
                    check_scale(config.scaler, step)
                    mean_loss = self.guard.mean_loss()
        except NonFinite as error:
            if self.checkpoints is not None:
                self.checkpoints.save_aside(self.state(step) | {"views": views}, "diagnostic")
            wait_for_all()  # the launcher stops the other processes once one has failed
            raise FloatingPointError(
                f"{error}; diagnostic.pth beside the checkpoints holds the state of iteration "
                f"{step}. {self.monitor.advice(self.method, output.embeddings)}"
            ) from error
        return _Result(output, losses, mean_loss)

    def check_weights(self, step: int, output: Output) -> None:
        """Raises FloatingPointError if the weights that would be saved are not finite."""
        try:
            check_weights(self.method, step)
        except NonFinite as error:
            advice = self.monitor.advice(self.method, output.embeddings)
            raise FloatingPointError(f"{error} and are not saved. {advice}") from error

    def record(self, step: int, result: _Result, volatility: dict[str, float]) -> None:
        """Writes the losses, the statistics and the times since the last record."""
        parts = {name: _mean_over_processes(part) for name, part in result.losses.items()}
        if self.writer is not None:
            assert result.mean_loss is not None
            embeddings = result.output.embeddings
            line, eta = self.writer.progress(step)
            values = {"total_loss": result.mean_loss, "lr": self.step_config.learning_rate(step)}
            values |= parts | self.monitor.statistics(self.method, *result.output[1:])
            values |= volatility
            num_views, batch_size, num_channels = embeddings.shape
            samples = batch_size * get_world_size()
            chance = self.method.chance_losses(
                samples, num_views=num_views, num_channels=num_channels
            )
            aligned = self.method.aligned_loss(samples, num_views=num_views)
            # The mean over the steps is known of the sum of the parts only.
            mean = {next(iter(parts)): result.mean_loss} if len(parts) == 1 else parts
            self.monitor.verdict(step, self.method, embeddings, values, mean, chance, aligned)
            values["time"], values["data_time"] = self.timer.means()
            self.monitor.timing(values["time"], values["data_time"])
            if self.device.type == "cuda":
                values["max_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
            self.writer.write(step, {**values, "eta_seconds": eta}, line=line)
        self.guard.clear()
        self.timer.reset()

    def report(self, step: int, when: str) -> None:
        """Evaluates on every process and writes the result on the main one."""
        values = self.evaluate()
        if self.writer is not None and values:
            self.writer.write(step, values, line=f"evaluation {when}")

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, on the main process."""
        if self.checkpoints is not None:
            name = "model_final" if self.plan.is_last(step) else f"model_{step:07d}"
            self.checkpoints.save(self.state(step), name)

    def state(self, step: int) -> dict[str, Any]:
        """The content of a checkpoint."""
        return pack(
            model=self.method.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.step_config.scaler.state_dict(),
            iteration=step,
            config=self.config,
            num_images=self.plan.num_images,
        )

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the block from the times of the steps, but not what the GPU still does."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        with self.timer.paused():
            yield


def _mean_over_processes(x: Tensor) -> float:
    return float(gather(x.detach().reshape(1)).mean())
