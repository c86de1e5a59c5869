"""The probes by name: each trains and tests a classifier as its protocol has it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict

from fvcore.common.config import CfgNode
from torch import nn

from cwrgp.builders.data import root_of
from cwrgp.builders.errors import config_key, config_section
from cwrgp.builders.probes import ProbeResult, knn_probe, labelled_features, probe_transform
from cwrgp.comm import get_rank, get_world_size
from cwrgp.data.augment.reference import build_classifier_transform
from cwrgp.data.base import LabelledImages
from cwrgp.data.samplers import EpochSampler
from cwrgp.data.subsets import class_balanced_subset
from cwrgp.evaluation.accuracy import Accuracy, classifier_accuracy
from cwrgp.evaluation.finetune import fine_tune
from cwrgp.evaluation.linear import (
    build_classifier,
    cosine,
    exponential,
    stepwise,
    train_on_features,
    train_on_images,
)
from cwrgp.evaluation.logistic import fit_logistic_regression
from cwrgp.evaluation.probe_data import ProbeData
from cwrgp.evaluation.supervised import TrainingSettings
from cwrgp.models.batch_norm import synchronize_batch_norm

logger = logging.getLogger("cwrgp")


def run_knn(cfg: CfgNode, data: ProbeData) -> ProbeResult:
    """k nearest neighbours; leave-one-out where there are no test images."""
    return knn_probe(data, probe_transform(cfg, "bicubic"), cfg.EVAL.KNN_K)


def run_linear(cfg: CfgNode, data: ProbeData) -> ProbeResult:
    """A linear classifier: Adam on features, or SGD or LARC on augmented images."""
    c = cfg.EVAL.LINEAR
    if c.OPTIMIZER != "adam":
        return _linear_on_images(cfg, data)
    if c.FINAL_LR == 0:
        raise ValueError(
            "EVAL.LINEAR.FINAL_LR 0.0 is not positive; 0 is for OPTIMIZER sgd and larc only"
        )
    test_images = _held_out(cfg, data)
    train = labelled_features(data, data.train, probe_transform(cfg, "bicubic"))
    test = labelled_features(data, test_images, probe_transform(cfg, "bicubic"))
    classifier = _classifier(cfg, data)
    with config_key("EVAL.LINEAR.LR", (FloatingPointError,)):
        train_on_features(
            classifier,
            *train,
            epochs=c.EPOCHS,
            batch_size=c.BATCH_SIZE,
            learning_rate=exponential(c.LR, c.FINAL_LR, c.EPOCHS),
            weight_decay=c.WEIGHT_DECAY,
            seed=cfg.SEED,
            report=lambda epoch, loss: _report(epoch, c.EPOCHS, loss),
        )
    accuracy = classifier_accuracy(classifier, *test)
    return ProbeResult("linear", accuracy, len(train[0]), len(test[0]))


def _linear_on_images(cfg: CfgNode, data: ProbeData) -> ProbeResult:
    c = cfg.EVAL.LINEAR
    if list(c.STEPS) != sorted({step for step in c.STEPS if 0 < step < c.EPOCHS}):
        raise ValueError(
            f"EVAL.LINEAR.STEPS {c.STEPS} must be in ascending order between 0 and "
            f"EVAL.LINEAR.EPOCHS {c.EPOCHS}"
        )
    # The encoder does not change, so these features are extracted once.
    test = labelled_features(data, _held_out(cfg, data), probe_transform(cfg, "bilinear"))
    classifier = _classifier(cfg, data, std=0.01)
    accuracies: list[Accuracy] = []

    def after_epoch(epoch: int, loss: float) -> None:
        accuracies.append(classifier_accuracy(classifier, *test))
        _report(epoch, c.EPOCHS, loss, accuracies[-1])

    sampler = _sampler(cfg, "LINEAR", list(range(len(data.train))), equal_parts=False)
    rate = stepwise(c.LR, c.STEPS, c.EPOCHS) if c.STEPS else cosine(c.LR, c.FINAL_LR, c.EPOCHS)
    transform = build_classifier_transform(cfg.DATA.IMAGE_SIZE)
    diverged = config_key("EVAL.LINEAR.LR", (FloatingPointError,))
    with data.batches(sampler, transform) as batches, diverged:
        train_on_images(
            data.encoder,
            classifier,
            batches,
            optimizer=c.OPTIMIZER,
            learning_rate=rate,
            weight_decay=c.WEIGHT_DECAY,
            settings=_training_settings(cfg, data, sampler, after_epoch),
        )
    best = max(range(c.EPOCHS), key=lambda epoch: accuracies[epoch].top1)
    return ProbeResult(
        "linear",
        accuracies[-1],
        len(data.train),
        len(test[0]),
        {"best": {"epoch": best + 1, **asdict(accuracies[best])}},
    )


def run_lbfgs(cfg: CfgNode, data: ProbeData) -> ProbeResult:
    """Logistic regression to the optimum."""
    test_images = _held_out(cfg, data)
    train = labelled_features(data, data.train, probe_transform(cfg, "bicubic"))
    test = labelled_features(data, test_images, probe_transform(cfg, "bicubic"))
    classifier, converged = fit_logistic_regression(*train, data.num_classes)
    if not converged:
        logger.warning("L-BFGS did not converge; the accuracy is that of its last iteration")
    accuracy = classifier_accuracy(classifier, test[0].double(), test[1])
    return ProbeResult("lbfgs", accuracy, len(train[0]), len(test[0]), {"converged": converged})


def run_finetune(cfg: CfgNode, data: ProbeData) -> ProbeResult:
    """Encoder and classifier on a class-balanced part of the labels."""
    c = cfg.EVAL.FINETUNE
    test_images = _held_out(cfg, data)
    with config_section(cfg, "EVAL.FINETUNE"):
        indices = class_balanced_subset(
            data.train.labels, c.FRACTION, cfg.SEED, equal_counts=c.EQUAL_COUNTS
        )
    sampler = _sampler(cfg, "FINETUNE", indices, equal_parts=True)
    synchronize_batch_norm(data.encoder, data.device)
    classifier = _classifier(cfg, data, std=0.01)
    transform = build_classifier_transform(cfg.DATA.IMAGE_SIZE)
    rates = "EVAL.FINETUNE.LR_CLASSIFIER and EVAL.FINETUNE.LR_ENCODER"
    diverged = config_key(rates, (FloatingPointError,))
    with data.batches(sampler, transform) as batches, diverged:
        fine_tune(
            data.encoder,
            classifier,
            batches,
            lr_encoder=c.LR_ENCODER,
            lr_classifier=c.LR_CLASSIFIER,
            weight_decay=c.WEIGHT_DECAY,
            settings=_training_settings(
                cfg, data, sampler, lambda epoch, loss: _report(epoch, c.EPOCHS, loss)
            ),
        )
    test = labelled_features(data, test_images, probe_transform(cfg, "bilinear"))
    root = os.path.join(os.path.expanduser(root_of(cfg, "train")[1]), "")
    # Relative to the data set, so that the lists of two machines can be compared.
    names = [data.train.name(i).removeprefix(root) for i in indices]
    accuracy = classifier_accuracy(classifier, *test)
    details = {"fraction": c.FRACTION}
    return ProbeResult("finetune", accuracy, len(indices), len(test[0]), details, names)


PROBES = {"knn": run_knn, "linear": run_linear, "lbfgs": run_lbfgs, "finetune": run_finetune}


def _held_out(cfg: CfgNode, data: ProbeData) -> LabelledImages:
    if data.test is None:
        key, root = root_of(cfg, "test")
        raise ValueError(
            f"{key} {root} has no held-out images (train with val or test beside it); only knn "
            "works without them"
        )
    return data.test


def _classifier(cfg: CfgNode, data: ProbeData, *, std: float | None = None) -> nn.Linear:
    width = int(data.encoder.inplanes)  # type: ignore[arg-type]
    classifier = build_classifier(width, data.num_classes, seed=cfg.SEED, std=std)
    return classifier.to(data.device)


def _sampler(cfg: CfgNode, section: str, indices: list[int], *, equal_parts: bool) -> EpochSampler:
    c = cfg.EVAL[section]
    with config_key(f"EVAL.{section}.BATCH_SIZE"):
        return EpochSampler(
            indices,
            c.BATCH_SIZE,
            c.EPOCHS,
            seed=cfg.SEED,
            rank=get_rank(),
            world_size=get_world_size(),
            equal_parts=equal_parts,
        )


def _training_settings(
    cfg: CfgNode,
    data: ProbeData,
    sampler: EpochSampler,
    after_epoch: Callable[[int, float], None],
) -> TrainingSettings:
    return TrainingSettings(
        sampler.sizes,
        sampler.epochs,
        data.normalize,
        data.device,
        data.precision.autocast(),
        data.precision.scaler(),
        after_epoch,
    )


def _report(epoch: int, epochs: int, loss: float, accuracy: Accuracy | None = None) -> None:
    if (epoch + 1) % max(1, epochs // 20) == 0 or epoch + 1 == epochs:
        found = (
            "" if accuracy is None else f"  top-1 {accuracy.top1:.2f}  top-5 {accuracy.top5:.2f}"
        )
        logger.info("epoch %d/%d  loss %.4f%s", epoch + 1, epochs, loss, found)
