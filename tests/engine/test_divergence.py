"""What a run leaves behind when a step is not finite: nothing spoilt, and the state before it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_processes import in_two_processes

from cwrgp.engine.checkpoint import Checkpoints
from cwrgp.engine.loop import train
from cwrgp.engine.monitor import TrainingMonitor
from cwrgp.engine.plan import Plan
from cwrgp.engine.precision import Precision
from cwrgp.engine.step import StepConfig
from cwrgp.models.methods import Method, Output
from cwrgp.models.momentum_methods import BYOL
from cwrgp.preemption import Preempted, StopRequest

CPU = torch.device("cpu")


class Root(Method):
    """The loss is sqrt(w x): finite at x = 0, where its gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(4.0))

    def forward(self, views: list[Tensor]) -> Output:
        loss = (self.weight * views[0].mean()).sqrt()
        return Output({"loss_root": loss}, torch.randn(2, 8, 4))


class Momentum(BYOL):
    """The loss is the encoder's weight times the image; its gradient can be any number."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 1, bias=False), nn.Linear(1, 1), nn.Identity(), 0.5)

    def forward(self, views: list[Tensor]) -> Output:
        loss = (self.encoder.weight * views[0].mean()).sum()
        return Output({"loss_momentum": loss}, torch.randn(2, 8, 4))


def run(
    method: Method,
    images: list[float],
    *,
    checkpoints: Checkpoints | None = None,
    lr: float = 0.1,
    dtype: torch.dtype = torch.float32,
    period: int = 1,
    stop: StopRequest | None = None,
) -> torch.amp.GradScaler:
    """A step for each image, whose pixels have this value."""
    scaler = Precision(CPU, dtype).scaler()
    train(
        method,
        torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr, fused=True),
        iter([[torch.full((8, 1, 1, 1), value)] * 2 for value in images]),
        plan=Plan(
            num_images=8, total_steps=len(images), steps_per_epoch=1, log_period=0,
            checkpoint_period=period, eval_period=0,
        ),
        step_config=StepConfig(
            learning_rate=lambda step: lr,
            normalize=lambda images: images,
            precision=Precision(CPU, torch.float32),
            scaler=scaler,
            accumulate=1,
            seed=0,
        ),
        start_step=0,
        checkpoints=checkpoints,
        config="",
        writer=None,
        monitor=TrainingMonitor(),
        evaluate=dict,
        stop=stop or StopRequest(),
    )  # fmt: skip
    return scaler


@pytest.mark.parametrize("images", [[1.0, 0.0], [1.0, 0.0, 1.0]])
def test_a_gradient_that_is_not_finite_reaches_no_checkpoint(tmp_path, images):
    with pytest.raises(FloatingPointError, match="^the gradient is nan at iteration 1; diagnostic"):
        run(Root(), images, checkpoints=Checkpoints(tmp_path))
    assert {p.name for p in tmp_path.glob("*.pth")} == {"model_0000000.pth", "diagnostic.pth"}
    last = Checkpoints(tmp_path).load_last()
    before = torch.load(tmp_path / "diagnostic.pth", weights_only=True)
    assert last["model"]["weight"].isfinite()
    assert before["model"]["weight"] == last["model"]["weight"] and before["iteration"] == 1
    assert before["views"][0].eq(0).all()


def test_weights_that_an_update_has_spoilt_are_not_saved(tmp_path):
    message = "^the weights are not finite after iteration 0 and are not saved. Try a smaller"
    with pytest.raises(FloatingPointError, match=message):
        run(Root(), [1.0, 1.0], lr=math.inf, checkpoints=Checkpoints(tmp_path))
    assert list(tmp_path.glob("*.pth")) == []


def test_a_momentum_network_stays_in_a_step_that_the_scaler_skips():
    method = Momentum()
    start = method.encoder.weight.item()
    with torch.no_grad():
        method.momentum_encoder.weight.fill_(start + 8)
    # The gradient of the first step overflows when it is scaled; that of the second does not.
    scaler = run(method, [1e37, 1.0], dtype=torch.float16, period=0)
    assert scaler.get_scale() == 2.0**15
    assert method.encoder.weight.item() == pytest.approx(start - 0.1)
    # One average with the momentum of step 1 of 2, which is 0.75.
    expected = 0.75 * (start + 8) + 0.25 * (start - 0.1)
    assert method.momentum_encoder.weight.item() == pytest.approx(expected)


def test_fp16_gradients_that_are_never_finite_stop_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="down to a loss scale of 0.125; diagnostic"):
        run(Root(), [0.0] * 40, dtype=torch.float16, period=10, checkpoints=Checkpoints(tmp_path))
    assert Checkpoints(tmp_path).load_last()["model"]["weight"] == 4.0


def one_of_two(rank: int, folder: str) -> str:
    """The gradient of the second step is not finite on one process."""
    checkpoints = Checkpoints(folder) if rank == 0 else None
    try:
        run(Root(), [1.0, 1.0 - rank, 1.0], checkpoints=checkpoints, period=3)
    except FloatingPointError as error:
        return str(error)
    return "finished"


class SlowCheckpoints(Checkpoints):
    """Takes its time."""

    def save_aside(self, state: dict[str, Any], name: str) -> Path:
        time.sleep(2)
        return super().save_aside(state, name)


class Told(Root):
    """Is told to stop in its first step."""

    def __init__(self, stop: StopRequest) -> None:
        super().__init__()
        self.stop = stop

    def forward(self, views: list[Tensor]) -> Output:
        self.stop.received = True
        return super().forward(views)


def leave(rank: int, folder: str) -> list[Any]:
    """What is there once a process leaves, by a gradient and by a signal."""
    checkpoints, found, stop = SlowCheckpoints(folder) if rank == 0 else None, [], StopRequest()
    for method, images in ((Root(), [0.0]), (Told(stop), [1.0] * 3)):
        try:
            run(method, images, checkpoints=checkpoints, period=0, stop=stop)
        except (Preempted, FloatingPointError):
            found.append(sorted(p.name for p in Path(folder).glob("*.pth")))
    return found


@pytest.mark.dist
def test_no_process_leaves_before_the_file_is_complete(tmp_path):
    (tmp_path / "run").mkdir()
    for found in in_two_processes(tmp_path, leave, str(tmp_path / "run")):
        assert found == [["diagnostic.pth"], ["diagnostic.pth", "model_0000001.pth"]]


@pytest.mark.dist
def test_two_processes_stop_at_the_same_step(tmp_path):
    (tmp_path / "run").mkdir()
    first, second = in_two_processes(tmp_path, one_of_two, str(tmp_path / "run"))
    assert first == second and first.startswith("the gradient is nan at iteration 1;")
    assert [p.name for p in (tmp_path / "run").glob("*.pth")] == ["diagnostic.pth"]
