"""The loop against hand calculation: rates, draws, hooks, the scaler; two processes with parts."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from two_processes import WORLD, in_two_processes

from cwrgp.config import get_cfg
from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.loop import train
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.plan import Plan
from cwrgp.engine.precision import Precision
from cwrgp.engine.resume import restore
from cwrgp.engine.step import StepConfig
from cwrgp.models.methods import Method, Output
from cwrgp.preemption import StopRequest
from cwrgp.seeding import Stream, derive_seed

CONFIG = get_cfg().dump()
CPU = torch.device("cpu")
STEPS, SEED = 4, 3
RATES = [0.1, 0.2, 0.05, 0.4]
IMAGES = torch.arange(1.0, 1 + STEPS * 8).view(STEPS, 8, 1, 1, 1)


class Product(Method):
    """The loss is weight x mean of the images; it notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.draws: list[float] = []
        self.told: list[tuple[int, int, int]] = []
        self.targets: list[float] = []

    def set_progress(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        self.told.append((step, total_steps, steps_per_epoch))

    def update_target(self) -> None:
        self.targets.append(self.weight.item())

    def forward(self, views: list[Tensor]) -> Output:
        self.draws.append(float(torch.rand(())))
        loss = self.weight * torch.stack(views).mean()
        return Output({"loss_product": loss}, torch.randn(2, 8, 4))


def run(rank: int = 0, world: int = 1, *, parts: int = 1, dtype=torch.float32, checkpoints=None):
    method, scaler = Product(), Precision(CPU, dtype).scaler()
    local = 8 // world
    mine = IMAGES[:, rank * local : (rank + 1) * local]
    train(
        method,
        torch.optim.SGD(method.parameters(), lr=100.0),
        iter([[batch, 2 * batch] for batch in mine]),
        plan=Plan(
            num_images=16, total_steps=STEPS, steps_per_epoch=2, log_period=0,
            checkpoint_period=0, eval_period=0,
        ),
        step_config=StepConfig(
            learning_rate=lambda step: RATES[step],
            normalize=lambda images: images,
            precision=Precision(CPU, torch.float32),
            scaler=scaler,
            accumulate=parts,
            seed=SEED,
        ),
        start_step=0,
        checkpoints=checkpoints,
        config=CONFIG,
        writer=None,
        monitor=TrainingMonitor(),
        evaluate=dict,
        stop=StopRequest(),
    )  # fmt: skip
    return method, scaler


def by_hand() -> list[float]:
    """SGD: the gradient of a step is the mean of the images and of their doubles."""
    steps = (-rate * 1.5 * float(x.mean()) for rate, x in zip(RATES, IMAGES, strict=True))
    return list(itertools.accumulate(steps))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_step_has_its_rate_its_draws_and_its_hooks(parts, dtype):
    method, scaler = run(parts=parts, dtype=dtype)
    assert method.targets == pytest.approx(by_hand(), rel=1e-6)  # after the optimizer
    assert method.told == [(step, STEPS, 2) for step in range(STEPS)]
    draws = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(derive_seed(Stream.STEP, SEED, step, 0))
        for _ in range(parts):  # the method draws once for itself and 64 numbers to return
            draws.append(float(torch.rand((), generator=generator)))
            torch.randn(2, 8, 4, generator=generator)
    assert method.draws == draws
    if dtype == torch.float16:
        assert scaler.state_dict()["_growth_tracker"] == STEPS


def test_the_loss_scale_is_saved_and_restored(tmp_path):
    run(dtype=torch.float16, checkpoints=Checkpoints(tmp_path))
    state = Checkpoints(tmp_path).load_last()
    state["scaler"]["scale"] = 8.0
    method, scaler = Product(), Precision(CPU, torch.float16).scaler()
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    assert restore(state, method, optimizer, scaler, config=CONFIG, num_images=16) == STEPS
    assert scaler.state_dict()["scale"] == 8.0
    assert method.weight.item() == pytest.approx(by_hand()[-1], rel=1e-6)


def work(rank: int, parts: int) -> dict[str, list[float]]:
    method, _ = run(rank, WORLD, parts=parts)
    return {"weights": method.targets, "draws": method.draws}


@pytest.mark.dist
@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_take_the_steps_of_one_with_draws_of_their_own(tmp_path, parts):
    first, second = in_two_processes(tmp_path, work, parts)
    assert first["weights"] == second["weights"] == pytest.approx(by_hand(), rel=1e-6)
    assert not set(first["draws"]) & set(second["draws"])
