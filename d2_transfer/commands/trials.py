"""``cwrgp-trials``: several backbones, several seeds, one table with error bars."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cwrgp.cli import add_num_gpus, load_config, make_parser, run_main
from cwrgp.config_files import find_config, read_config
from d2_transfer.requirement import require_detectron2

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode


_DESCRIPTION = """\
Fine-tunes detectors from several weights with several seeds, and says whether they differ.

  %(prog)s --config-file detection/pascal_voc_R_50_C4_24k.yaml --trials 5 --num-gpus 8 \\
      --weights random=random ours=output/encoder.pkl cwrgp=cwrgp://cwrgp4_r50_in1k_200ep \\
      --output output/trials
  %(prog)s --output output/trials --list       # the cells and their states; --status: in one line
  %(prog)s --output output/trials --cell 3     # one of them, for any scheduler
  %(prog)s ... --launcher slurm --sbatch="--partition=gpu --gres=gpu:8"

Each pair of weights and seed is a cell. The same command goes on where it was stopped. NAME=A,B,C
gives each seed a file of its own: repeated pretrainings."""


def run_trials(
    config: str | PathLike[str],
    weights: Mapping[str, str | PathLike[str] | Sequence[str | PathLike[str]]],
    *,
    output: str | PathLike[str],
    trials: int = 5,
    num_gpus: int = 1,
    jobs: int = 1,
    reference: str | None = None,
    restart: bool = False,
    pretraining_data: str | PathLike[str] | None = None,
    allow_leakage: bool = False,
    ims_per_batch: int | None = None,
    fractions: Sequence[float] = (100,),
    lr_sweep: Sequence[float] = (),
    **overrides: Any,
) -> dict[str, Any]:
    """Fine-tunes from several weights with several seeds: ``cwrgp-trials`` as a function.

    Example::

        d2_transfer.run_trials(
            "detection/pascal_voc_R_50_C4_24k.yaml",
            {"random": "random", "ours": "output/encoder.pkl"},
            output="output/trials", num_gpus=8,
        )

    Args:
        config: name of a packaged config, or path of a YAML file, with one test set.
        weights: name of an arm -> what the converter reads, a converted file, ``cwrgp://NAME`` or
            "random"; a list has one file for each seed.
        output: folder of the trials. What is finished there is kept.
        trials: number of seeds, which are 1 to ``trials``.
        num_gpus: of each fine-tuning; 1 without a GPU, or 0: the CPU.
        jobs: fine-tunings at once.
        reference: the arm that the others are compared with; None: the first.
        restart: remove what the folder holds of earlier trials.
        pretraining_data: folder of the images that weights were pretrained on. Test images, or
            copies of them, in it are refused.
        allow_leakage: record them as a deviation instead.
        ims_per_batch: another batch than the protocol's, with learning rate and numbers of
            iterations by the linear rule.
        fractions: of the training images in percent; other images for each seed, nested. A part
            has the protocol's iterations times its share, or times 0.1 if that is more.
        lr_sweep: learning rates. Each arm has its own best, which is found with one seed on 10 % of
            the training images, tested on another 10 % of them.
        **overrides: keys of the config, as for `d2_transfer.train`. They are deviations from the
            protocol, which every table states.

    Returns:
        The content of ``results.json``; see `d2_transfer.trials.output.as_json`.

    Raises:
        MissingPackage: Detectron2 is not installed.
        FileNotFoundError: no such config, weights or data.
        ValueError: what cannot work, trials of another plan in the folder, or a cell that failed.
        Preempted: a signal stopped the trials; the same call goes on.
    """
    require_detectron2()
    from d2_transfer.config import get_cfg  # noqa: PLC0415
    from d2_transfer.trials.scaling import scale_batch  # noqa: PLC0415

    words = []
    for name, given in weights.items():
        files = [given] if isinstance(given, str | PathLike) else given
        words.append(f"{name}={','.join(os.fspath(file) for file in files)}")
    file = find_config(config)
    cfg = read_config(get_cfg(), file, overrides)
    if ims_per_batch is not None:
        scale_batch(cfg, ims_per_batch)
    pretraining = None if pretraining_data is None else Path(pretraining_data)
    options = _Options(
        trials,
        num_gpus,
        jobs,
        reference,
        restart,
        pretraining,
        allow_leakage,
        fractions=_joined(fractions),
        lr_sweep=_joined(lr_sweep),
    )
    return _run(cfg, file, words, Path(output), options)


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


class _Options(NamedTuple):
    """What is asked for beside the config; ``sbatch``: options of Slurm, None: run here."""

    trials: int
    num_gpus: int
    jobs: int | None
    reference: str | None
    restart: bool
    pretraining: Path | None
    allow_leakage: bool
    sbatch: str | None = None
    fractions: str = "100"
    lr_sweep: str = ""


def _run(
    cfg: CfgNode, file: Path, words: Sequence[str], output: Path, options: _Options
) -> dict[str, Any]:
    """Plans, runs and summarizes; {} where the cells were only submitted."""
    from d2_transfer.config import get_cfg  # noqa: PLC0415
    from d2_transfer.trials.launch import run_here, run_on_slurm  # noqa: PLC0415
    from d2_transfer.trials.plan import parse_arms, parse_numbers  # noqa: PLC0415
    from d2_transfer.trials.prepare import make_plan  # noqa: PLC0415
    from d2_transfer.trials.summary import summarize  # noqa: PLC0415

    for name in ("trials", "jobs"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise ValueError(f"{name} {number} is below 1")
    arms = parse_arms(words, options.trials)
    names = [arm.name for arm in arms]
    if options.reference is not None and options.reference not in names:
        raise ValueError(f"reference {options.reference!r} is no arm: {', '.join(names)}")
    output = output.expanduser().resolve()
    plan = make_plan(
        cfg,
        file.stem,
        read_config(get_cfg(), file, {}),
        arms,
        options.trials,
        output,
        num_gpus=options.num_gpus,
        restart=options.restart,
        pretraining=options.pretraining,
        allow_leakage=options.allow_leakage,
        fractions=parse_numbers("fractions", options.fractions, high=100),
        rates=parse_numbers("lr-sweep", options.lr_sweep) if options.lr_sweep else (),
    )
    if options.sbatch is not None:
        run_on_slurm(
            output, plan, num_gpus=options.num_gpus, jobs=options.jobs, sbatch=options.sbatch
        )
        return {}
    run_here(output, plan, num_gpus=options.num_gpus, jobs=options.jobs or 1)
    return summarize(output, reference=options.reference)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-trials", _DESCRIPTION)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the trials")
    parser.add_argument("--config-file", metavar="FILE", help="protocol: a file, or a packaged one")
    parser.add_argument("--weights", nargs="+", metavar="NAME=W", help="the arms")
    parser.add_argument("--trials", type=int, default=5, metavar="N", help="seeds (default: 5)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="fine-tunings at once (default: 1; Slurm's choice)"
    )
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local")
    parser.add_argument(
        "--sbatch", default="", metavar="OPTIONS", help="of Slurm: --sbatch='--gres=gpu:8'"
    )
    parser.add_argument(
        "--reference", metavar="NAME", help="the others are compared with it (default: the first)"
    )
    parser.add_argument("--restart", action="store_true", help="remove what DIR holds of trials")
    parser.add_argument(
        "--ims-per-batch",
        type=int,
        metavar="N",
        help="another batch, with learning rate and iterations by the linear rule",
    )
    parser.add_argument(
        "--fractions",
        default="100",
        metavar="P,P,...",
        help="of the training images in percent, such as 1,5,10,100 (default: 100)",
    )
    parser.add_argument(
        "--lr-sweep",
        default="",
        metavar="R,R,...",
        help="learning rates of which each arm has its best, found on training images alone",
    )
    parser.add_argument(
        "--pretraining-data",
        type=Path,
        metavar="DIR",
        help="images that weights were pretrained on: refused if test images are among them",
    )
    parser.add_argument(
        "--allow-leakage", action="store_true", help="record such images as a deviation instead"
    )
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--list", action="store_true", help="show the cells and their states")
    actions.add_argument("--status", action="store_true", help="how many are done, in one line")
    actions.add_argument("--summarize", action="store_true", help="results of what is done so far")
    parser.add_argument(
        "--areas",
        action="store_true",
        help="with --summarize: compare APs, APm and APl too, in four times the time",
    )
    actions.add_argument("--cell", type=int, metavar="K", help="run this cell alone")
    add_num_gpus(parser, default=1)
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="override keys of the config; comes last",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-trials``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> int:
    require_detectron2()
    from cwrgp.preemption import EXIT_CODE, Preempted  # noqa: PLC0415 (imports torch)
    from d2_transfer.trials.status import list_cells, status_line  # noqa: PLC0415
    from d2_transfer.trials.summary import existing_plan, summarize  # noqa: PLC0415

    if args.areas and not args.summarize:
        raise ValueError("--areas needs --summarize")
    output = Path(args.output).expanduser().resolve()
    if args.list or args.status:
        plan = existing_plan(output)
        print(list_cells(output, plan) if args.list else status_line(output, plan))
        return 0
    try:
        if args.cell is not None:
            from d2_transfer.trials.cell import run_cell  # noqa: PLC0415

            plan = existing_plan(output)
            run_cell(output, plan, plan.cell(args.cell), num_gpus=args.num_gpus)
            return 0
        results = (
            summarize(output, reference=args.reference, areas=args.areas)
            if args.summarize
            else _run_arguments(args)
        )
    except Preempted as stopped:
        print(f"{stopped}; the same command continues", file=sys.stderr)
        return EXIT_CODE
    if results:
        _show(output, results)
    return 0


def _run_arguments(args: argparse.Namespace) -> dict[str, Any]:
    from d2_transfer.config import get_cfg  # noqa: PLC0415
    from d2_transfer.trials.scaling import scale_batch  # noqa: PLC0415

    if args.config_file is None or not args.weights:
        raise ValueError("--config-file and --weights are needed to start; --list shows a folder")
    cfg = get_cfg()
    file = load_config(cfg, args.config_file, args.opts)
    if args.ims_per_batch is not None:
        scale_batch(cfg, args.ims_per_batch)
    if args.sbatch and args.launcher != "slurm":
        raise ValueError(f"--sbatch {args.sbatch!r} needs --launcher slurm")
    sbatch = args.sbatch if args.launcher == "slurm" else None
    options = _Options(
        trials=args.trials,
        num_gpus=args.num_gpus,
        jobs=args.jobs,
        reference=args.reference,
        restart=args.restart,
        pretraining=args.pretraining_data,
        allow_leakage=args.allow_leakage,
        sbatch=sbatch,
        fractions=args.fractions,
        lr_sweep=args.lr_sweep,
    )
    return _run(cfg, file, args.weights, Path(args.output), options)


def _show(output: Path, results: Mapping[str, Any]) -> None:
    from d2_transfer.trials.output import table  # noqa: PLC0415

    print(f"\n{table(results)}\n")
    for comparison in results["comparisons"]:
        arms = f"{comparison['arm']} and {comparison['reference']}: "
        print(("" if comparison["metrics"] else arms) + comparison["verdict"])
    print(
        f"\nWritten: {output}/report.html, figures/, results.json, results.csv, table.md, table.tex"
    )


if __name__ == "__main__":
    sys.exit(main())
