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
