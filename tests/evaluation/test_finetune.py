"""Fine-tuning in two processes is fine-tuning in one: batches, BatchNorm, gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from two_processes import in_two_processes

from cwrgp.data.samplers import EpochSampler
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.finetune import fine_tune
from cwrgp.evaluation.supervised import TrainingSettings
from cwrgp.models.batch_norm import synchronize_batch_norm

CPU = torch.device("cpu")
EPOCHS = 3


def tuned(rank: int, world: int) -> dict[str, torch.Tensor]:
    """22 samples in batches of 8, 8 and 6; the classifier works in fp32, as it always does."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(22, 6, generator=generator)
    y = torch.randint(0, 4, (22,), generator=generator)
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5))
    synchronize_batch_norm(encoder, CPU)
    classifier = nn.Linear(5, 4)
    sampler = EpochSampler(
        range(22), 8, EPOCHS, seed=0, rank=rank, world_size=world, equal_parts=True
    )  # fmt: skip
    losses: list[float] = []
    fine_tune(
        encoder,
        classifier,
        ([x[[i for _, i in step]], y[[i for _, i in step]]] for step in sampler),
        lr_encoder=0.05,
        lr_classifier=0.2,
        weight_decay=0.01,
        settings=TrainingSettings(
            sampler.sizes,
            EPOCHS,
            lambda images: images,
            CPU,
            Precision(CPU, torch.float32).autocast(),
            torch.amp.GradScaler("cpu", enabled=False),
            lambda epoch, loss: losses.append(loss),
        ),
    )
    state = {**encoder.state_dict(), **classifier.state_dict(prefix="classifier.")}
    return {**state, "losses": torch.tensor(losses)}


@pytest.mark.dist
def test_two_processes_end_where_one_ends(tmp_path: Path):
    first, second = in_two_processes(tmp_path, tuned, 2)
    expected = tuned(0, 1)
    assert expected["losses"][-1] < expected["losses"][0] and len(expected["losses"]) == EPOCHS
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
