"""EVAL's sections: the probes by name."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from cwrgp.builders.labelled import Labelled, with_labels
from cwrgp.data.subsets import class_balanced_subset
from cwrgp.evaluation.accuracy import Accuracy, classifier_accuracy
from cwrgp.evaluation.finetune import fine_tune
from cwrgp.evaluation.knn import knn_accuracy
from cwrgp.evaluation.linear import (
    cosine,
    exponential,
    stepwise,
    train_on_features,
    train_on_images,
)
from cwrgp.evaluation.logistic import fit_logistic_regression
from cwrgp.models.batch_norm import synchronize_batch_norm

logger = logging.getLogger("cwrgp")


@dataclass
class Outcome:
    """What a probe found.

    Attributes:
        accuracy: of the test images, at the end.
        train_images: that were learnt from.
        test_images: that were asked.
        details: what else the result says, as plain values.
        subset: names of the training images, where they are a part.
    """

    accuracy: Accuracy
    train_images: int
    test_images: int
    details: dict[str, Any] = field(default_factory=dict)
    subset: list[str] | None = None


def run_knn(data: Labelled) -> Outcome:
    """k nearest neighbours; without test images every training image asks the others."""
    train = data.features(data.train)
    k = data.cfg.EVAL.KNN_K
    if data.test is None:
        top1 = knn_accuracy(*train, k=k)
        return Outcome(Accuracy(top1, None), len(train[0]), len(train[0]), {"leave_one_out": True})
    test = data.features(data.test)
    top1 = knn_accuracy(*train, *test, k=k)
    return Outcome(Accuracy(top1, None), len(train[0]), len(test[0]), {"leave_one_out": False})


def run_linear(data: Labelled) -> Outcome:
    """A linear classifier: Adam on features, or SGD or LARC on augmented images."""
    c = data.cfg.EVAL.LINEAR
    if c.OPTIMIZER != "adam":
        return _linear_on_images(data)
    test_images = data.held_out()
    train, test = data.features(data.train), data.features(test_images)
    classifier = data.classifier()
    train_on_features(
        classifier,
        *train,
        epochs=c.EPOCHS,
        batch_size=c.BATCH_SIZE,
        learning_rate=exponential(c.LR, c.FINAL_LR, c.EPOCHS),
        weight_decay=c.WEIGHT_DECAY,
        seed=data.cfg.SEED,
        report=lambda epoch, loss: _report(epoch, c.EPOCHS, loss),
    )
    return Outcome(classifier_accuracy(classifier, *test), len(train[0]), len(test[0]))


def _linear_on_images(data: Labelled) -> Outcome:
    c = data.cfg.EVAL.LINEAR
    test = data.features(data.held_out(), bilinear=True)  # the encoder never changes: once
    classifier = data.classifier(std=0.01)
    accuracies: list[Accuracy] = []

    def after_epoch(epoch: int, loss: float) -> None:
        accuracies.append(classifier_accuracy(classifier, *test))
        _report(epoch, c.EPOCHS, loss, accuracies[-1])

    indices = with_labels(data.train)
    sampler = data.sampler(indices, c, equal=False)
    rate = stepwise(c.LR, c.STEPS, c.EPOCHS) if c.STEPS else cosine(c.LR, c.FINAL_LR, c.EPOCHS)
    with data.batches(sampler) as batches:
        train_on_images(
            data.encoder,
            classifier,
            batches,
            optimizer=c.OPTIMIZER,
            learning_rate=rate,
            weight_decay=c.WEIGHT_DECAY,
            how=data.supervised(sampler, after_epoch),
        )
    best = max(range(c.EPOCHS), key=lambda epoch: accuracies[epoch].top1)
    return Outcome(
        accuracies[-1],
        len(indices),
        len(test[0]),
        {"best": {"epoch": best + 1, **asdict(accuracies[best])}},
    )


def run_lbfgs(data: Labelled) -> Outcome:
    """Logistic regression to the optimum."""
    test_images = data.held_out()
    train, test = data.features(data.train), data.features(test_images)
    classifier, converged = fit_logistic_regression(*train, data.num_classes)
    if not converged:
        logger.warning("L-BFGS has not converged; the accuracy is that of its last iteration")
    accuracy = classifier_accuracy(classifier, test[0].double(), test[1])
    return Outcome(accuracy, len(train[0]), len(test[0]), {"converged": converged})


def run_finetune(data: Labelled) -> Outcome:
    """Encoder and classifier on a class-balanced part of the labels."""
    c = data.cfg.EVAL.FINETUNE
    test_images = data.held_out()
    indices = class_balanced_subset(data.train.labels, c.FRACTION, data.cfg.SEED)
    sampler = data.sampler(indices, c, equal=True)
    synchronize_batch_norm(data.encoder, data.device)
    classifier = data.classifier(std=0.01)
    with data.batches(sampler) as batches:
        fine_tune(
            data.encoder,
            classifier,
            batches,
            lr_encoder=c.LR_ENCODER,
            lr_classifier=c.LR_CLASSIFIER,
            weight_decay=c.WEIGHT_DECAY,
            how=data.supervised(sampler, lambda epoch, loss: _report(epoch, c.EPOCHS, loss)),
        )
    test = data.features(test_images, bilinear=True)
    names = [_short(data.train.name(i), data.root) for i in indices]
    accuracy = classifier_accuracy(classifier, *test)
    return Outcome(accuracy, len(indices), len(test[0]), {"fraction": c.FRACTION}, names)


def _short(name: str, root: str) -> str:
    """Relative to the data set, so that lists of two machines can be compared."""
    base = os.path.join(os.path.expanduser(root), "")
    return name.removeprefix(base)


def _report(epoch: int, epochs: int, loss: float, accuracy: Accuracy | None = None) -> None:
    if (epoch + 1) % max(1, epochs // 20) == 0 or epoch + 1 == epochs:
        found = (
            "" if accuracy is None else f"  top-1 {accuracy.top1:.2f}  top-5 {accuracy.top5:.2f}"
        )
        logger.info("epoch %d/%d  loss %.4f%s", epoch + 1, epochs, loss, found)


PROBES = {"knn": run_knn, "linear": run_linear, "lbfgs": run_lbfgs, "finetune": run_finetune}
