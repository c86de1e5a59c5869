"""The parts of a step: accumulated gradients and the loss scaler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cwrgp.engine.precision import Precision
from cwrgp.engine.step import StepConfig, forward_backward
from cwrgp.losses.base import GatheredLoss
from cwrgp.losses.cwrgp import cwrgp_loss
from cwrgp.models.methods import JointEmbedding

CPU = torch.device("cpu")


def make_method() -> nn.Module:
    """Without BatchNorm, whose statistics are those of a part; and without random draws."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 16), nn.Tanh())

    def loss(views: Tensor) -> Tensor:
        return cwrgp_loss(views, num_groups=2, subbatch_size=4)

    return JointEmbedding(encoder, nn.Linear(16, 32), GatheredLoss(loss)).double()


def make_config(accumulate: int, dtype: torch.dtype = torch.float32) -> StepConfig:
    return StepConfig(
        learning_rate=lambda step: 0.1,
        normalize=lambda images: images,
        precision=Precision(CPU, torch.float32),
        scaler=Precision(CPU, dtype).scaler(),
        accumulate=accumulate,
        seed=0,
    )


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts):
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(16, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    found = {}
    for accumulate in (1, parts):
        method = make_method()
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        output, losses = forward_backward(method, views, optimizer, make_config(accumulate))
        assert output.embeddings.shape == (3, 16 // accumulate, 32)
        found[accumulate] = losses["loss_cwrgp"], [p.grad for p in method.parameters()]
    torch.testing.assert_close(found[1], found[parts], rtol=1e-10, atol=1e-12)


def test_the_scaler_scales_and_its_state_comes_back():
    method = make_method()
    views = [torch.rand(8, 3, 4, 4, dtype=torch.float64) for _ in range(2)]
    gradients = {}
    for dtype in (torch.float32, torch.float16):
        step = make_config(1, dtype)
        forward_backward(method, views, torch.optim.SGD(method.parameters(), lr=0.1), step)
        gradients[dtype] = method.projector.weight.grad.clone()
    scale = step.scaler.get_scale()
    assert scale == 2.0**16
    torch.testing.assert_close(gradients[torch.float16], gradients[torch.float32] * scale)
    state = step.scaler.state_dict() | {"scale": 8.0}
    other = Precision(CPU, torch.float16).scaler()
    other.load_state_dict(state)
    assert other.state_dict()["scale"] == 8.0
