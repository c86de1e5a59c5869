"""From what the user asks for to a plan: what can fail is checked before anything is trained."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from cwrgp.cells import check_idle
from cwrgp.config.node import leaves
from cwrgp.file_io.digest import file_digest
from cwrgp.file_io.path_manager import local_file
from d2_transfer.checking.check import pretraining_images
from d2_transfer.checking.duplicates import find_duplicates
from d2_transfer.commands.convert import convert
from d2_transfer.data.load import LoadedData
from d2_transfer.data.subsets import parse_subset
from d2_transfer.fine_tuning import RunOptions
from d2_transfer.fine_tuning import prepare as prepare_run
from d2_transfer.scoring.truth import make_truth
from d2_transfer.trials.cell import cell_config, check_inputs
from d2_transfer.trials.plan import RANDOM, Arm, Plan, check_same, read_plan, write_plan
from d2_transfer.trials.result_files import RESULT_FILES
from d2_transfer.trials.scaling import LEAST_SHARE
from d2_transfer.trials.sweep import PERCENT
from d2_transfer.trials.test_set import digest_of, load_test_set
from d2_transfer.weights import fits_detectors

logger = logging.getLogger(__name__)

# Keys that change where and how fast a run computes, but not what. DATASETS.CUSTOM gives data sets
# names, which DATASETS.TRAIN and DATASETS.TEST use.
_FREE = (
    *("OUTPUT_DIR", "SEED", "DATASETS.CUSTOM", "MODEL.WEIGHTS", "MODEL.DEVICE"),
    *("LOGGERS", "DATALOADER.NUM_WORKERS", "TEST.SHOWN_IMAGES", "TEST.COCO_BACKEND"),
)


def make_plan(
    cfg: CfgNode,
    protocol: str,
    base: CfgNode,
    arms: Sequence[Arm],
    trials: int,
    output: Path,
    *,
    num_gpus: int,
    restart: bool = False,
    pretraining: Path | None = None,
    allow_leakage: bool = False,
    fractions: Sequence[float] = (100.0,),
    rates: Sequence[float] = (),
) -> Plan:
    """Settles weights, data and config, and writes the plan into the folder of the trials.

    Args:
        cfg: the merged config.
        protocol: name of its file.
        base: the config of the file alone.
        arms: what is compared.
        trials: number of seeds, which are 1 to ``trials``.
        output: folder of the trials.
        num_gpus: of a fine-tuning.
        restart: remove what the folder holds of earlier trials.
        pretraining: folder of the images that weights were pretrained on.
        allow_leakage: whether test images may be among them, which is recorded as a deviation.
        fractions: of the training images in percent, ascending.
        rates: learning rates of which each arm has its best.

    Raises:
        FileNotFoundError: weights or data are missing.
        ValueError: what cannot work, test images in ``pretraining``, or other trials in the folder.
    """
    if len(cfg.DATASETS.TEST) != 1:
        raise ValueError(
            f"DATASETS.TEST {tuple(cfg.DATASETS.TEST)}: trials are compared on one test set"
        )
    if set(fractions) != {100} and (part := parse_subset(cfg.DATASETS.TEST[0], 0)):
        raise ValueError(
            f"DATASETS.TEST {part.name!r} is a part of {part.base!r}, and fractions give each seed"
            " other parts, so the arms would be tested on other images from seed to seed: choose a"
            " whole test set, or omit fractions"
        )
    if restart:
        check_idle(sorted((output / "cells").glob("*")))
    old = None if restart else read_plan(output)
    stored = cfg.clone()
    stored.defrost()
    stored.MODEL.WEIGHTS, stored.SEED, stored.OUTPUT_DIR = "", -1, ""
    given = dict.fromkeys(weights for arm in arms for weights in arm.weights)
    plan = Plan(
        protocol=protocol,
        config=stored.dump(),
        deviations=(*deviations(stored, base), *_schedule_deviations(fractions, rates)),
        arms=tuple(arms),
        seeds=tuple(range(1, trials + 1)),
        files={weights: _settle(weights, output / "weights") for weights in given},
        fractions=tuple(fractions),
        rates=tuple(rates),
        base=base.dump(),
        classes=old.classes if old else (),
        truth=old.truth if old else "",
        leakage=old.leakage if old else (),
    )
    if old is not None:
        check_same(output, old, plan)
        for cell in plan.cells:
            check_inputs(output, plan, cell)
    cfg = _check_runs(plan, output / "unused" if restart else output, num_gpus)
    plan = replace(plan, classes=tuple(cfg.DATASETS.CLASSES))
    data = load_test_set(cfg)  # also where Detectron2 reads it: differences need its objects
    plan = replace(plan, truth=digest_of(make_truth(data)))
    if old is not None:
        check_same(output, old, plan)
    if pretraining is not None:
        leaked = _leakage(data, pretraining, allowed=allow_leakage)
        plan = replace(plan, leakage=tuple(dict.fromkeys((*plan.leakage, *leaked))))
    plan = replace(plan, deviations=(*plan.deviations, *plan.leakage))
    if restart:
        _remove(output)
    write_plan(output, plan)
    return plan


def _check_runs(plan: Plan, output: Path, num_gpus: int) -> CfgNode:
    """Checks each kind of fine-tuning; returns the config of one on the most images, settled.

    Args:
        plan: whose cells are meant.
        output: folder of the trials, where cells may go on; any other: all of them start.
        num_gpus: of each.

    Raises:
        FileNotFoundError: weights or data are missing.
        ValueError: what cannot work.
    """
    options = RunOptions(resume=True, or_start=True, num_gpus=num_gpus)
    if plan.rates:
        prepare_run(cell_config(plan, plan.cells[0], output), options)
    # Each file and each fraction, without the outcome of a sweep, which is not known yet.
    plan = replace(plan, rates=())
    kinds = {cell.weights: cell for cell in plan.cells} | {c.percent: c for c in plan.cells}
    for number in sorted({cell.number for cell in kinds.values()}):
        prepare_run(cell_config(plan, plan.cell(number), output), options)
    return prepare_run(cell_config(plan, plan.trial_cells()[-1], output), options)


def _remove(output: Path) -> None:
    """Removes what a folder holds of earlier trials, but for converted weights.

    Raises:
        OSError: something cannot be removed.
    """
    for name in ("cells", "logs", "figures"):
        if (output / name).exists():
            shutil.rmtree(output / name)
    for name in RESULT_FILES:
        (output / name).unlink(missing_ok=True)


def _schedule_deviations(fractions: Sequence[float], rates: Sequence[float]) -> Iterator[str]:
    parts = [percent for percent in fractions if percent != 100]
    if parts:
        yield (
            f"{', '.join(f'{percent:g}' for percent in parts)} % of the training images, other"
            f" ones for each seed; iterations x the share, {LEAST_SHARE:g} at least"
        )
    if rates:
        yield (
            f"learning rate of each arm by a sweep over {', '.join(f'{r:g}' for r in rates)} on"
            f" {PERCENT} % of the training images, tested on another {PERCENT} % of them"
        )


def _leakage(data: LoadedData, pretraining: Path, *, allowed: bool) -> list[str]:
    """A sentence if images of the test set, or copies of them, are in a folder.

    Raises:
        FileNotFoundError, ValueError: no such folder, no images in it, or leakage not ``allowed``.
    """
    files = [image.file for image in data.data.images if image.file is not None]
    found = find_duplicates(files, pretraining_images(pretraining))
    if not found:
        return []
    shared = f"{len(found)} of {len(files)} test images are in {pretraining}"
    if not allowed:
        raise ValueError(
            f"{shared}, the first {found[0].file} as {found[0].other}: the pretraining has seen"
            " them; pretrain without them, or give --allow-leakage, which is recorded"
        )
    return [shared]


def _settle(weights: str, folder: Path) -> tuple[str, str]:
    """The file that a detector starts from, converted if needed, and its SHA-256."""
    if weights == RANDOM:
        return "", ""
    local = local_file(PathManager.get_local_path(weights))
    if fits_detectors(str(local)):
        return str(local.resolve()), file_digest(local)
    target = folder / f"{file_digest(local)[:16]}.pkl"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        convert(weights, target)
        logger.info(f"Converted: {weights} -> {target}")
    return str(target.resolve()), file_digest(target)


def deviations(cfg: CfgNode, base: CfgNode) -> Iterator[str]:
    """What a config has otherwise than another, "KEY VALUE"; keys without an effect on results do
    not count."""
    theirs = dict(leaves(base))
    for key, value in leaves(cfg):
        if key not in _FREE and theirs.get(key) != value:
            yield f"{key} {value}"
