"""The plan of an experiment: what it runs, kept in its folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from cwrgp.analysis.results import RESULTS
from cwrgp.builders.automatic import resolve_number_format
from cwrgp.builders.experiments import EXPERIMENTS, Arm, experiment_arms, set_keys
from cwrgp.config import get_cfg
from cwrgp.config.checks import value_of
from cwrgp.config.node import flatten
from cwrgp.config_files import find_config, merge_file, merge_values
from cwrgp.file_io.atomic import write_text
from cwrgp.launch import local_device

CONFIG = "quick/pretrain_analysis_r18.yaml"
PLAN = "plan.json"
_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What an experiment runs.

    Attributes:
        experiment: its name.
        config: of all runs, as YAML; what the arms set, seed and folder are those of the runs.
        number_format: keys of the config that were ``auto``, the same for all runs.
        seeds: of each arm.
    """

    experiment: str
    config: str
    number_format: tuple[str, str]
    seeds: tuple[int, ...]

    @cached_property
    def runs(self) -> list[tuple[Arm, int]]:
        """Seed by seed, so that what is finished early compares all arms."""
        return [(arm, seed) for seed in self.seeds for arm in experiment_arms(self.experiment)]

    @property
    def base(self) -> CfgNode:
        """The config of all runs."""
        cfg = get_cfg()
        cfg.merge_from_other_cfg(CfgNode.load_cfg(self.config))
        cfg.SOLVER.AMP.DTYPE, cfg.SOLVER.AMP.MEMORY_FORMAT = self.number_format
        return cfg


def read_plan(output: Path) -> Plan | None:
    """The plan of a folder; None if it has none.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    path = output / PLAN
    if not path.is_file():
        return None
    if not _is_of_experiment(path):
        raise ValueError(f"{path} is damaged, or not of an experiment; choose another folder")
    try:
        content = json.loads(path.read_text())
        if content.pop("version") != _VERSION:
            raise ValueError
        for key in ("seeds", "number_format"):
            content[key] = tuple(content[key])
        return Plan(**content)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is of another version; give --restart to start anew, or choose another folder"
        ) from None


def _is_of_experiment(path: Path) -> bool:
    """Whether a file is the plan of an experiment, of any version. Trials have a plan, too."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("experiment") in [*EXPERIMENTS]


def make_plan(name: str, cfg: CfgNode, output: Path, *, seeds: int, restart: bool) -> Plan:
    """Writes the plan, which must be that of the folder if it has one.

    Args:
        name: of the experiment.
        cfg: of all runs.
        output: folder of the experiment.
        seeds: runs of each arm; fewer than the folder has keep all of them.
        restart: remove what the folder holds of an experiment.

    Raises:
        ValueError: another experiment, another config, or something else in the folder.
    """
    if restart and _is_of_experiment(output / PLAN):  # nothing is removed from any other folder
        for part in ("runs", "logs", "figures"):
            shutil.rmtree(output / part, ignore_errors=True)
        for file in (PLAN, RESULTS, "report.html"):
            (output / file).unlink(missing_ok=True)
    old = read_plan(output)
    config = cfg.dump()
    if old is not None and (old.experiment, old.config) != (name, config):
        what = repr(old.experiment) + (" with another config" if old.experiment == name else "")
        raise ValueError(
            f"{output} holds the experiment {what}; give --restart to start anew, or choose another"
            " folder"
        )
    count = max(seeds, len(old.seeds) if old else 0)
    plan = Plan(
        experiment=name,
        config=config,
        number_format=old.number_format if old else _number_format(cfg),
        seeds=tuple(range(count)),
    )
    write_text(output / PLAN, json.dumps({"version": _VERSION, **asdict(plan)}, indent=1))
    return plan


def _number_format(cfg: CfgNode) -> tuple[str, str]:
    """What ``auto`` becomes, once for all runs: they shall not differ in it."""
    found = cfg.clone()
    found.defrost()
    device = local_device()
    threads = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        resolve_number_format(found, None, device)
    finally:
        torch.set_num_threads(threads)
    return found.SOLVER.AMP.DTYPE, found.SOLVER.AMP.MEMORY_FORMAT


def with_fast_views(cfg: CfgNode) -> CfgNode:
    """A copy with views made in batches, unless the user says otherwise: images are small."""
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.AUGMENT.DEVICE == "auto":
        cfg.AUGMENT.DEVICE = "training"
    return cfg


def packaged_config() -> CfgNode:
    """The config of all runs without the user's changes."""
    cfg = get_cfg()
    merge_file(cfg, find_config(CONFIG))
    return cfg


def as_packaged(cfg: CfgNode, keys: set[str]) -> CfgNode:
    """A config without a file's values of keys that every run sets: they have no effect."""
    packaged = packaged_config()
    merge_values(cfg, {key: value_of(packaged, key) for key in keys})
    return cfg


def changes(plan: Plan) -> list[str]:
    """KEY VALUE of what is not as in the packaged config, and not set by the experiment."""
    default, cfg = with_fast_views(packaged_config()), CfgNode.load_cfg(plan.config)
    changed = [
        (key, value_of(cfg, key))
        for key in flatten(cfg)
        if key not in set_keys(plan.experiment) and value_of(cfg, key) != value_of(default, key)
    ]
    return [word for key, value in changed for word in (key, str(value))]
