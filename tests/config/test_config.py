"""Every key: type, range, choices; renamed keys; keys that had no effect."""

from __future__ import annotations

import copy
import pickle

import pytest
import yaml

from cwrgp.builders.methods import METHODS
from cwrgp.config import Config, get_cfg, unused_keys, validate_cfg
from cwrgp.config.aliases import RENAMED, upgrade
from cwrgp.config.checks import value_of
from cwrgp.config.defaults import KEYS
from cwrgp.config.keys import POSITIVE, Key, Range, at_least
from cwrgp.config.node import flatten
from cwrgp.data.augment.spec import INTERPOLATIONS
from cwrgp.data.datasets import DATASETS
from cwrgp.engine.optimizers import OPTIMIZERS
from cwrgp.engine.precision import DTYPES
from cwrgp.engine.schedule import SCHEDULES
from cwrgp.models.encoders import ENCODERS
from cwrgp.models.resnet import STEMS
from cwrgp.number_format import MEMORY_FORMATS


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.ROOT", "images"])
    return cfg


def test_the_defaults_are_valid_and_explained(cfg):
    validate_cfg(cfg)
    assert set(flatten(cfg)) == set(KEYS)
    for name, key in KEYS.items():
        assert key.doc[-1] in ".!" and len(key.doc) > 8, name


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("METHOD.NAME", METHODS),
        ("DATA.NAME", DATASETS),
        ("MODEL.ARCH", ENCODERS),
        ("MODEL.STEM", STEMS),
        ("AUGMENT.INTERPOLATION", INTERPOLATIONS),
        ("SOLVER.OPTIMIZER", OPTIMIZERS),
        ("SOLVER.SCHEDULE", SCHEDULES),
        ("SOLVER.AMP.DTYPE", {"auto", *DTYPES}),
        ("SOLVER.AMP.MEMORY_FORMAT", {"auto", *MEMORY_FORMATS}),
    ],
)
def test_the_choices_are_the_tables_keys(key, table):
    assert set(KEYS[key].choices) == set(table)


@pytest.mark.parametrize("name", [n for n, key in KEYS.items() if key.range != Range()])
def test_the_ends_of_every_range(cfg, name):
    key = KEYS[name]
    for end, is_open, beyond in (
        (key.range.low, key.range.open_low, -1),
        (key.range.high, key.range.open_high, 1),
    ):
        if abs(end) == float("inf"):
            continue
        kind = type(key.default[0] if isinstance(key.default, list) else key.default)
        for number, fits in ((kind(end), not is_open), (kind(end + beyond), False)):
            value = [number] * len(key.default) if isinstance(key.default, list) else number
            if fits:
                key.check(name, value)
            else:
                with pytest.raises(ValueError, match=f"^{name} "):
                    key.check(name, value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (Key(1, ""), 1.0, "K 1.0 must be of type int"),
        (Key(1, ""), True, "K True must be of type int"),
        (Key(1.0, ""), float("nan"), "K nan is not a finite number"),
        (Key("", ""), None, "K None must be of type str"),
        (Key(1, "", at_least(2)), 1, "K 1 is below 2"),
        (Key(1.0, "", POSITIVE), 0.0, "K 0.0 is not positive"),
        (Key(0.0, "", Range(low=0, high=1, open_high=True)), 1.0, "K 1.0 is outside [0, 1)"),
        (Key("a", "", choices=("a", "b")), "c", "K 'c' is unknown; choose one of a, b"),
        (Key([1.0], "", length=1), [1, 2], "K [1, 2] must be a list of 1 numbers"),
        (Key([], "", items=dict), [1], "K [1] must be a list of dictionaries"),
        (Key([], "", items=str), "ab", "K ab must be a list of texts"),
        (Key(["a"], "", items=str, choices=("a",)), ["b"], "K 'b' is unknown; choose one of a"),
        (Key([0.5], "", at_least(0)), [-1.0], "K [-1.0] is below 0"),
    ],
)
def test_what_is_said_of_a_wrong_value(key, value, message):
    with pytest.raises(ValueError) as error:
        key.check("K", value)
    assert str(error.value) == message


def test_keys_set_as_attributes_count_as_given(cfg):
    cfg.METHOD.CWRGP.NUM_DRAWS = 3
    assert unused_keys(cfg) == ["DATA.ROOT", "METHOD.CWRGP.NUM_DRAWS"]


def test_yaml_may_write_a_whole_number_without_a_point(cfg, tmp_path):
    (tmp_path / "a.yaml").write_text("SOLVER: {WEIGHT_DECAY: 0, WARMUP_EPOCHS: 2, EPOCHS: 3}")
    cfg.merge_from_file(str(tmp_path / "a.yaml"))
    values = (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WARMUP_EPOCHS, cfg.SOLVER.EPOCHS)
    assert values == (0.0, 2.0, 3) and [type(v) for v in values] == [float, float, int]
    with pytest.raises(ValueError, match="'SEED' has no value"):
        cfg.merge_from_list(["SEED"])


def test_an_integer_is_a_number_too():
    Key(1.0, "").check("K", 2)
    Key([1.0], "").check("K", [2, 3])


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([{}], "AUGMENT.PER_VIEW describes 1 views, DATA.NUM_VIEWS is 2"),
        ([{}, {"BLUR": 1}], "view 1: unknown key BLUR; choose from BLUR_PROB"),
        ([{"PER_VIEW": []}, {}], "view 0: unknown key PER_VIEW"),
        ([{}, {"BLUR_PROB": 2.0}], r"view 1: BLUR_PROB 2.0 is outside \[0, 1\]"),
        ([{}, {"IMAGE_SIZE": 0}], "view 1: IMAGE_SIZE 0 is below 1"),
        ([{}, {"JITTER": [0, 0, 0, 0.9]}], "view 1: JITTER .* hue, is at most 0.5"),
        ([{}, {"CROP_SCALE": [0.5, 0.1]}], "view 1: CROP_SCALE .* is not 0 < low <= high <= 1"),
    ],
)
def test_the_keys_of_single_views(cfg, views, message):
    cfg.AUGMENT.PER_VIEW = views
    with pytest.raises(ValueError, match=message):
        validate_cfg(cfg)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_still_works_and_warns(cfg, tmp_path, old):
    new = RENAMED[old]
    value = 7 if type(KEYS[new].default) is int else not KEYS[new].default
    value = 0.5 if type(KEYS[new].default) is float else value
    tree: object = value
    for part in reversed(old.split(".")):
        tree = {part: tree}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(tree))
    with pytest.warns(FutureWarning, match=f"{old} is now called {new}"):
        cfg.merge_from_file(str(tmp_path / "old.yaml"))
    assert value_of(cfg, new) == value
    again = get_cfg()
    with pytest.warns(FutureWarning, match=f"{old} is now called {new}"):
        again.merge_from_list([old, str(value)])
    assert value_of(again, new) == value
    assert upgrade(tree, warn=False) == upgrade(upgrade(tree, warn=False))


def test_an_old_value_still_works_and_warns(cfg, tmp_path):
    (tmp_path / "old.yaml").write_text("METHOD: {NAME: zero_icl}")
    with pytest.warns(FutureWarning, match="METHOD.NAME zero_icl is now called zca_cw"):
        cfg.merge_from_file(str(tmp_path / "old.yaml"))
    assert cfg.METHOD.NAME == "zca_cw"
    with pytest.warns(FutureWarning, match="METHOD.NAME zero_icl is now called zca_cw"):
        cfg.merge_from_list(["METHOD.NAME", "zero_icl"])
    assert cfg.METHOD.NAME == "zca_cw"
    assert upgrade({"METHOD": {"NAME": "zero_icl"}}, warn=False) == {"METHOD": {"NAME": "zca_cw"}}


def test_an_upgrade_leaves_what_has_its_new_name():
    assert upgrade({"CHECKPOINTS_KEPT": 1, "CHECKPOINTS_TO_KEEP": 2}, warn=False) == {
        "CHECKPOINTS_TO_KEEP": 2
    }
    assert upgrade({"SOLVER": None, "X": {"Y": 1}}) == {"SOLVER": None, "X": {"Y": 1}}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_has_records_of_its_own(cfg, copied):
    other = copied(cfg)
    assert isinstance(other.SOLVER.AMP, Config)
    assert other.SOLVER.AMP.ENABLED and other.read == {"SOLVER.AMP.ENABLED"}
    assert not cfg.read and other.given == cfg.given


def test_keys_without_effect(tmp_path):
    (tmp_path / "base.yaml").write_text("SOLVER: {TRUST_COEFFICIENT: 0.5}")
    (tmp_path / "top.yaml").write_text(
        "_BASE_: base.yaml\nSOLVER: {GAMMA: 0.5, EPOCHS: 7}\n"
        "EVAL: {LINEAR: {LR: 0.5}, KNN_K: 5}\nSEED: 3\n"
    )
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "top.yaml"))
    cfg.merge_from_list(["EVAL.LINEAR.EPOCHS", "9", "DATA.ROOT", "x"])
    validate_cfg(cfg)  # looks at everything, which counts for nothing
    cfg.freeze()
    assert cfg.SOLVER.EPOCHS == 7 and cfg.DATA.ROOT == "x" and cfg.SEED == 3
    # Not the base's key; not one that has its default value.
    assert set(unused_keys(cfg)) == {"SOLVER.GAMMA", "EVAL.LINEAR.LR", "EVAL.LINEAR.EPOCHS"}
    assert unused_keys(cfg, pairs_only=("EVAL.LINEAR.",)) == ["SOLVER.GAMMA", "EVAL.LINEAR.EPOCHS"]
