"""Linear probes against loops written by hand in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cwrgp.data.samplers import epoch_batches
from cwrgp.engine.precision import Precision
from cwrgp.evaluation.finetune import fine_tune
from cwrgp.evaluation.linear import (
    build_classifier,
    cosine,
    exponential,
    stepwise,
    train_on_features,
    train_on_images,
)
from cwrgp.evaluation.supervised import TrainingSettings

CPU = torch.device("cpu")


def samples(size: int = 50, width: int = 6, classes: int = 4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, width, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (size,), generator=generator)


def gradient(weight, bias, x, y):
    """Of the mean cross-entropy: (softmax - onehot)^T x / n."""
    error = (x @ weight.T + bias).softmax(1) - F.one_hot(y, len(weight))
    return error.T @ x / len(x), error.mean(0)


def test_schedules_have_their_end_points():
    rate = exponential(1e-2, 1e-6, 500)
    assert rate(0) == 1e-2 and rate(499) == pytest.approx(1e-6, rel=1e-12)
    assert rate(101) / rate(100) == pytest.approx(1e-4 ** (1 / 499), rel=1e-12)
    assert exponential(1e-2, 1e-6, 1)(0) == 1e-2
    rate = cosine(0.4, 0.0, 100)
    assert rate(0) == 0.4 and rate(50) == pytest.approx(0.2)
    assert rate(99) == pytest.approx(0.2 * (1 + math.cos(0.99 * math.pi)), rel=1e-9)
    assert cosine(0.4, 0.1, 10)(5) == pytest.approx(0.25)
    rate = stepwise(0.4, [60, 80], 100)
    found = [rate(epoch) for epoch in range(100)]
    assert found == pytest.approx([0.4] * 60 + [0.04] * 20 + [0.004] * 20, rel=1e-12)


def test_adam_on_features_equals_a_loop_in_which_the_last_batch_is_smaller():
    x, y = samples()
    rate, decay, losses = exponential(1e-2, 1e-6, 7), 0.02, []
    classifier = build_classifier(6, 4, seed=3).double()
    state = [[p.detach().clone(), 0.0, 0.0] for p in (classifier.weight, classifier.bias)]
    train_on_features(
        classifier, x, y, epochs=7, batch_size=15, learning_rate=rate, weight_decay=decay, seed=5,
        report=lambda epoch, loss: losses.append(loss),
    )  # fmt: skip
    step, expected = 0, []
    for epoch in range(7):
        batches = epoch_batches(50, 15, seed=5, epoch=epoch)
        assert sorted(torch.cat(batches).tolist()) == list(range(50)) and len(batches[-1]) == 5
        total = 0.0
        for batch in batches:
            step += 1
            scores = x[batch] @ state[0][0].T + state[1][0]
            total += float(-scores.log_softmax(1)[range(len(batch)), y[batch]].sum())
            for row, g in zip(state, gradient(state[0][0], state[1][0], x[batch], y[batch]),
                              strict=True):  # fmt: skip
                g = g + decay * row[0]
                row[1] = 0.9 * row[1] + 0.1 * g
                row[2] = 0.999 * row[2] + 0.001 * g**2
                first, second = row[1] / (1 - 0.9**step), row[2] / (1 - 0.999**step)
                row[0] = row[0] - rate(epoch) * first / (second.sqrt() + 1e-8)
        expected.append(total / 50)
    torch.testing.assert_close(classifier.weight.detach(), state[0][0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(classifier.bias.detach(), state[1][0], rtol=1e-9, atol=1e-12)
    assert losses == pytest.approx(expected, rel=1e-9) and losses[-1] < losses[0]


def test_separable_features_reach_100_percent_and_another_seed_is_another_classifier():
    y = torch.arange(40) % 5
    x = F.one_hot(y, 5).float() + 0.01 * torch.randn(40, 5)
    results = []
    for seed in (0, 0, 1):
        classifier = build_classifier(5, 5, seed=seed)
        train_on_features(
            classifier, x, y, epochs=60, batch_size=16, seed=seed, weight_decay=5e-6,
            learning_rate=exponential(0.1, 1e-3, 60),
        )  # fmt: skip
        assert (classifier(x).argmax(1) == y).all()
        results.append(classifier.weight.detach())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_the_start_of_a_classifier():
    small, usual = build_classifier(400, 50, seed=0, std=0.01), build_classifier(400, 50, seed=0)
    assert small.weight.std().item() == pytest.approx(0.01, rel=0.05) and not small.bias.any()
    assert usual.weight.abs().max() <= 0.05 and usual.weight.std().item() == pytest.approx(
        0.05 / 3**0.5, rel=0.05
    )
    torch.manual_seed(9)
    assert torch.equal(build_classifier(400, 50, seed=0).weight, usual.weight)


class Encoder(nn.Module):
    """Linear, with BatchNorm whose mode shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 5, dtype=torch.float32)
        self.norm = nn.BatchNorm1d(5)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, x):
        return self.norm(self.linear(x))


def make_settings(sizes, epochs, after_epoch=lambda epoch, loss: None):
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    autocast = Precision(CPU, torch.float32).autocast()
    return TrainingSettings(sizes, epochs, lambda x: x, CPU, autocast, scaler, after_epoch)


def batches_of(x, y, epochs):
    for epoch in range(epochs):
        for batch in epoch_batches(len(x), 20, seed=1, epoch=epoch):
            yield [x[batch], y[batch]]


def momentum_sgd(parameters, gradients, buffers, rates, decay):
    for i, (p, g, rate) in enumerate(zip(parameters, gradients, rates, strict=True)):
        buffers[i] = 0.9 * buffers[i] + g + decay * p
        parameters[i] = p - rate * buffers[i]


def test_sgd_on_images_equals_a_loop_and_leaves_the_encoder_alone():
    x, y = samples()
    x = x.float()
    encoder, classifier = Encoder().train(), build_classifier(5, 4, seed=0, std=0.01)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    parameters = [p.detach().double() for p in classifier.parameters()]
    seen = []
    train_on_images(
        encoder, classifier, batches_of(x, y, 3), optimizer="sgd",
        learning_rate=cosine(0.4, 0.0, 3), weight_decay=0.01,
        settings=make_settings([20, 20, 10], 3, lambda epoch, loss: seen.append((epoch, loss))),
    )  # fmt: skip
    assert not encoder.training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    with torch.no_grad():
        features = encoder(x).double()
    buffers, means = [0.0, 0.0], []
    for epoch in range(3):
        rate, total = 0.2 * (1 + math.cos(math.pi * epoch / 3)), 0.0
        for batch in epoch_batches(50, 20, seed=1, epoch=epoch):
            f = features[batch]
            total += F.cross_entropy(
                f @ parameters[0].T + parameters[1], y[batch], reduction="sum"
            ).item()
            grads = gradient(*parameters, f, y[batch])
            momentum_sgd(parameters, grads, buffers, [rate, rate], 0.01)
        means.append(total / 50)
    for got, want in zip(classifier.parameters(), parameters, strict=True):
        torch.testing.assert_close(got.detach().double(), want, rtol=1e-4, atol=1e-6)
    assert seen == [(e, pytest.approx(mean, rel=1e-5)) for e, mean in enumerate(means)]


def test_larc_on_images_takes_steps_of_its_own_length():
    x, y = samples()
    classifier = build_classifier(5, 4, seed=0, std=0.01)
    before = classifier.weight.detach().clone()
    train_on_images(
        Encoder(), classifier, iter([[x.float(), y]]), optimizer="larc",
        learning_rate=cosine(0.4, 0.0, 1), weight_decay=0.0, settings=make_settings([50], 1),
    )  # fmt: skip
    moved = (classifier.weight.detach() - before).norm()
    torch.testing.assert_close(moved, 0.4 * 0.001 * before.norm(), rtol=1e-3, atol=0)


def test_fine_tuning_equals_a_loop_with_two_rates():
    x, y = samples()
    x = x.float()
    encoder, classifier = Encoder().eval(), build_classifier(5, 4, seed=0, std=0.01)
    reference = Encoder().double().train()
    head = build_classifier(5, 4, seed=0, std=0.01).double()
    fine_tune(
        encoder, classifier, batches_of(x, y, 2), lr_encoder=0.04, lr_classifier=0.2,
        weight_decay=0.01, settings=make_settings([20, 20, 10], 2),
    )  # fmt: skip
    networks = [*head.parameters(), *reference.parameters()]
    buffers = [0.0] * len(networks)
    for epoch in range(2):
        share = (1 + math.cos(math.pi * epoch / 2)) / 2
        rates = [0.2 * share] * 2 + [0.04 * share] * (len(networks) - 2)
        for batch in epoch_batches(50, 20, seed=1, epoch=epoch):
            loss = F.cross_entropy(head(reference(x[batch].double())), y[batch])
            grads = torch.autograd.grad(loss, networks)
            values = [p.detach() for p in networks]
            momentum_sgd(values, grads, buffers, rates, 0.01)
            for p, value in zip(networks, values, strict=True):
                p.data = value
    got = {**encoder.state_dict(), "w": classifier.weight.detach()}
    want = {**reference.state_dict(), "w": head.weight.detach()}
    for name, value in want.items():
        torch.testing.assert_close(got[name].to(value.dtype), value, rtol=1e-3, atol=1e-5)
    assert not torch.equal(got["linear.weight"], Encoder().linear.weight)


def test_samples_without_label_do_not_count():
    x, y = samples()
    x, results = x.float(), []
    for extra in (0, 3):
        classifier = build_classifier(5, 4, seed=0)
        part = [torch.cat([x, x[:extra]]), torch.cat([y, torch.full((extra,), -1)])]
        train_on_images(
            Encoder(), classifier, iter([part]), optimizer="sgd",
            learning_rate=cosine(0.4, 0.0, 1), weight_decay=0.0, settings=make_settings([50], 1),
        )  # fmt: skip
        results.append(classifier.weight.detach())
    torch.testing.assert_close(*results)


def test_a_loss_that_is_no_number_is_an_error_with_the_rate():
    x, y = samples()
    x[0, 0] = torch.nan
    with pytest.raises(
        FloatingPointError, match="is nan in epoch 1; lower the learning rate, now 0.5"
    ):
        train_on_features(
            build_classifier(6, 4, seed=0).double(), x, y, epochs=2, batch_size=50, seed=0,
            weight_decay=0.0, learning_rate=cosine(0.5, 0.0, 2),
        )  # fmt: skip
    with pytest.raises(FloatingPointError, match="lower the learning rate, now 0.4"):
        train_on_images(
            Encoder(), build_classifier(5, 4, seed=0), iter([[x.float(), y]]), optimizer="sgd",
            learning_rate=cosine(0.4, 0.0, 1), weight_decay=0.0, settings=make_settings([50], 1),
        )  # fmt: skip
    with pytest.raises(FloatingPointError, match="lower the learning rate, now 0.2, 0.04"):
        fine_tune(
            Encoder(), build_classifier(5, 4, seed=0), iter([[x.float(), y]]), lr_encoder=0.04,
            lr_classifier=0.2, weight_decay=0.0, settings=make_settings([50], 1),
        )  # fmt: skip
