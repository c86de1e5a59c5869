"""What auto becomes, and what a resumed run keeps."""

from __future__ import annotations

import pytest

from cwrgp.builders import automatic
from cwrgp.config import get_cfg
from cwrgp.config.aliases import upgrade_saved
from cwrgp.errors import MissingPackage


def resolve(saved=None, *, packages=True, monkeypatch, **values):
    monkeypatch.setattr(automatic, "has_fast_packages", lambda: packages)
    cfg = get_cfg()
    cfg.DATA.NAME = values.pop("NAME", "imagefolder")
    for key, value in values.items():
        cfg.AUGMENT[key] = value
    automatic.resolve_augmentation(cfg, saved)
    return cfg.AUGMENT.BACKEND, cfg.AUGMENT.DEVICE


@pytest.mark.parametrize(
    ("values", "packages", "expected"),
    [
        ({}, True, ("fast", "workers")),
        ({}, False, ("reference", "workers")),
        ({"NAME": "cifar10"}, True, ("fast", "training")),
        ({"NAME": "cifar10"}, False, ("fast", "training")),  # it needs no package
        ({"NAME": "cifar10", "BACKEND": "reference"}, True, ("reference", "workers")),
        ({"NAME": "cifar10", "DEVICE": "workers"}, True, ("fast", "workers")),
        ({"NAME": "webdataset"}, True, ("fast", "workers")),
        ({"DEVICE": "training"}, False, ("fast", "training")),
    ],
)
def test_a_new_run(monkeypatch, values, packages, expected):
    assert resolve(packages=packages, monkeypatch=monkeypatch, **values) == expected


def test_a_resumed_run_keeps_what_it_had(monkeypatch):
    saved = {"AUGMENT": {"BACKEND": "reference", "DEVICE": "workers"}}
    assert resolve(saved, monkeypatch=monkeypatch, NAME="cifar10") == ("reference", "workers")
    saved = {"AUGMENT": {"BACKEND": "fast", "DEVICE": "training"}}
    assert resolve(saved, monkeypatch=monkeypatch) == ("fast", "training")
    # What the user sets counts; resuming warns of it, as of every change.
    assert resolve(saved, monkeypatch=monkeypatch, DEVICE="workers") == ("fast", "workers")


def test_a_checkpoint_that_does_not_say_used_the_reference(monkeypatch):
    assert resolve({}, monkeypatch=monkeypatch, NAME="cifar10") == ("reference", "workers")
    saved = upgrade_saved({"AUGMENT": {"CROP_SCALE": [0.2, 1.0]}})
    assert resolve(saved, monkeypatch=monkeypatch, NAME="cifar10") == ("reference", "workers")


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="^AUGMENT.DEVICE training: the reference makes views in"):
        resolve(monkeypatch=monkeypatch, BACKEND="reference", DEVICE="training")
    with pytest.raises(MissingPackage, match="pip install 'cwrgp\\[fast\\]'$"):
        resolve(packages=False, monkeypatch=monkeypatch, BACKEND="fast")


@pytest.mark.parametrize(
    ("num_images", "batch_size", "expected"),
    [
        (64, 64, 800),  # 50,000 epochs would give 50,000 iterations
        (5_000, 256, 800),  # 19 iterations in an epoch
        (50_000, 256, 257),  # 195
        (105_000, 256, 122),  # 410
        (105_000, 512, 244),  # 205
        (1_281_167, 256, 10),  # 5004
        (1_281_167, 512, 20),  # 2502: 19.98
    ],
)
def test_epochs_from_the_number_of_images(num_images, batch_size, expected):
    assert automatic.automatic_epochs(num_images, batch_size) == expected
    cfg = get_cfg()
    cfg.SOLVER.EPOCHS, cfg.SOLVER.BATCH_SIZE = 0, batch_size
    automatic.resolve_epochs(cfg, None, num_images)
    assert expected == cfg.SOLVER.EPOCHS


def test_the_formula_of_the_epochs_is_said():
    cfg = get_cfg()
    cfg.SOLVER.EPOCHS = 257
    assert automatic.describe_epochs(cfg, 50_000) == (
        "SOLVER.EPOCHS 0: 50000 iterations / 195 in an epoch, rounded up, at least 10 and at most "
        "800, are 257 epochs"
    )


def test_epochs_that_are_set_or_were_chosen_before_are_kept():
    cfg = get_cfg()
    automatic.resolve_epochs(cfg, {"SOLVER": {"EPOCHS": 7}}, 1000)
    assert cfg.SOLVER.EPOCHS == 100
    cfg.SOLVER.EPOCHS = 0
    automatic.resolve_epochs(cfg, {"SOLVER": {"EPOCHS": 7}}, 1000)
    assert cfg.SOLVER.EPOCHS == 7
