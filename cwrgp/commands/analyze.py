"""The analysis of whitening: `analyze` from Python, `main` from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from cwrgp.builders.experiments import EXPERIMENTS, check_overrides
from cwrgp.checkpoints.formats import BRANCHES, source_names
from cwrgp.cli import add_checkpoint_arguments, make_parser, run_main
from cwrgp.commands.analysis_weights import analyze_weights
from cwrgp.commands.experiment import run_experiment, run_one
from cwrgp.commands.experiment_plan import CONFIG
from cwrgp.config import get_cfg
from cwrgp.config_files import check_flags, find_config, merge_file, merge_pairs, merge_values
from cwrgp.file_io.atomic import check_folder
from cwrgp.jobs import usable_cores
from cwrgp.preemption import EXIT_CODE, Preempted

_DESCRIPTION = """\
What a whitening loss does to an embedding: the analysis of the paper on your images.

  %(prog)s --weights ours=model_final.pth moco=moco_v2.pth.tar --data photos --output output/weights
  %(prog)s --experiment whitening --data DATA --output output/whitening
  %(prog)s --experiment groups --data DATA --seeds 3 --output output/groups

--weights takes what cwrgp-convert reads, and any folder of more images than channels. For an
experiment DATA holds cifar-10-batches-py, or train/CLASS/*.jpg and test/CLASS/*.jpg. One seed is a
preview. The same command for an experiment goes on where it was stopped. What the figures show:
docs/analysis.md."""


def analyze(
    *,
    data: str | PathLike[str],
    output: str | PathLike[str],
    weights: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    experiment: str | None = None,
    trials: str | PathLike[str] | None = None,
    source: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    unsafe: bool = False,
    seeds: int = 1,
    jobs: int | None = None,
    restart: bool = False,
    config: str | PathLike[str] = CONFIG,
    **overrides: Any,
) -> dict[str, Any]:
    """Shows what whitening losses do to embeddings: ``cwrgp-analyze`` as a function.

    Example::

        cwrgp.analyze(experiment="whitening", data="cifar10", output="output/whitening")
        cwrgp.analyze(weights=["a.pth", "b.pth"], data="photos", output="output/weights")

    Args:
        data: folder of the images.
        output: folder of the results. What is finished there is kept.
        weights: "NAME=FILE" or files, of any format that the converter reads, to be analysed side
            by side.
        experiment: instead of ``weights``: "whitening", "penalty", "batch-size" or "groups".
        trials: results.json of ``cwrgp-trials`` with arms of the names of ``weights``: does the
            rank predict AP?
        source: format of the weights; "auto" detects it.
        branch: "online" or "momentum"; None takes what the format's publishers evaluate.
        prefix: what the network's names begin with, where a file has several networks and no
            known format.
        unsafe: lets the weights' files run code: only for files that you made.
        seeds: runs of each setting. One is a preview, without intervals.
        jobs: runs at once; None: one for each core, or one on a GPU.
        restart: remove what the folder holds of earlier runs.
        config: of all runs: name of a packaged config, or path of a YAML file.
        **overrides: keys of the config. Sections are dicts, as in YAML: ``SOLVER={"EPOCHS": 20}``.

    Returns:
        The content of ``results.json``; see `cwrgp.analysis.results.collect`, and
        `cwrgp.analysis.checkpoints.collect` for ``weights``.

    Raises:
        ValueError: what cannot work, an experiment of another kind in the folder, or a run failed.
        FileNotFoundError: no such config, weights or data.
        Preempted: a signal stopped it; the same call goes on.
    """
    words = [weights] if isinstance(weights, str | PathLike) else weights
    if _of_weights(words, experiment, trials):
        keys = list(overrides)
        _check_unused(seeds=seeds, jobs=jobs, restart=restart, config=config, keys=keys)
        return analyze_weights(
            [str(word) for word in words],
            *_folders(data, output),
            trials=None if trials is None else Path(trials).expanduser(),
            source=source,
            branch=branch,
            prefix=prefix,
            unsafe=unsafe,
        )
    assert experiment is not None
    _check_no_weights(source, branch, prefix, unsafe)
    cfg = get_cfg()
    merge_file(cfg, find_config(config))
    before = cfg.clone()
    merge_values(cfg, overrides)
    check_overrides(experiment, before, cfg)
    return _experiment(cfg, data, output, experiment, seeds, jobs, restart)


def _of_weights(weights: Sequence[object], experiment: str | None, trials: object) -> bool:
    """Whether weights are to be analysed, and not an experiment run.

    Raises:
        ValueError: neither or both.
    """
    if weights and experiment is not None:
        raise ValueError(f"experiment {experiment!r} trains its own weights; omit one of the two")
    if not weights and experiment is None:
        raise ValueError("weights or an experiment is needed: " + ", ".join(EXPERIMENTS))
    if trials is not None and not weights:
        raise ValueError(f"trials {str(trials)!r} belongs to weights")
    return bool(weights)


def _check_unused(
    *,
    seeds: int,
    jobs: int | None,
    restart: bool,
    config: str | PathLike[str],
    keys: Sequence[str],
) -> None:
    """Raises ValueError if an option of experiments is given with weights."""
    given = {
        f"seeds {seeds}": seeds != 1,
        f"jobs {jobs}": jobs is not None,
        "restart": restart,
        f"config {str(config)!r}": str(config) != CONFIG,
        **{f"{key}, a key of a config,": True for key in keys},
    }
    if unused := [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"{unused[0]} belongs to an experiment: omit it with weights")


def _check_no_weights(source: str, branch: str | None, prefix: str | None, unsafe: bool) -> None:
    """Raises ValueError if an option of weights is given with an experiment."""
    given = {
        f"source {source!r}": source != "auto",
        f"branch {branch!r}": branch is not None,
        f"prefix {prefix!r}": prefix is not None,
        "unsafe-load": unsafe,
    }
    if unused := [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"{unused[0]} belongs to weights: omit it with an experiment")


def _experiment(
    cfg: CfgNode,
    data: str | PathLike[str],
    output: str | PathLike[str],
    experiment: str,
    seeds: int,
    jobs: int | None,
    restart: bool,
) -> dict[str, Any]:
    root, folder = _folders(data, output)
    merge_values(cfg, {"DATA.ROOT": str(root)})
    if (root / "cifar-10-batches-py").is_dir():
        merge_values(cfg, {"DATA.NAME": "cifar10"})
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs {jobs} is below 1")
    return run_experiment(
        experiment,
        cfg,
        folder,
        seeds=seeds,
        jobs=jobs or _jobs(),
        restart=restart,
    )


def _folders(data: str | PathLike[str], output: str | PathLike[str]) -> tuple[Path, Path]:
    """The folders of the images and of the results.

    Raises:
        ValueError: the results would lie among the images, and their figures be taken for some.
        OSError: the folder of the results cannot be made or written.
    """
    root, folder = (Path(path).expanduser().resolve() for path in (data, output))
    if folder.is_relative_to(root):
        raise ValueError(f"output {output} lies in the folder of the images, {data}")
    check_folder(folder)
    return root, folder


def _jobs() -> int:
    """Runs at once: one for each core that this process may use; one on a GPU."""
    return 1 if torch.cuda.is_available() else usable_cores()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = make_parser("cwrgp-analyze", _DESCRIPTION)
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="checkpoints")
    parser.add_argument(
        "--trials",
        metavar="FILE",
        help="results.json of cwrgp-trials: does the rank predict AP?",
    )
    add_checkpoint_arguments(parser, source_names(), BRANCHES)
    parser.add_argument("--experiment", metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--data", metavar="DIR", help="folder of the images")
    parser.add_argument("--output", metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs of each setting (default: 1)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs at once (default: one for each core)"
    )
    parser.add_argument("--restart", action="store_true", help="remove what DIR holds of runs")
    parser.add_argument(
        "--config-file", default=CONFIG, metavar="FILE", help=f"of all runs (default: {CONFIG})"
    )
    parser.add_argument("--run", metavar="NAME", help="do this run of DIR alone")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override keys of the config"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-analyze``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> int:
    check_flags(args.opts)
    if args.output is None:
        raise ValueError("--output is missing: the folder of the results")
    output = Path(args.output)
    try:
        if args.run is not None:
            run_one(output.expanduser().resolve(), args.run)
            return 0
        if args.data is None:
            raise ValueError("--data is missing: the folder of the images")
        if _of_weights(args.weights, args.experiment, args.trials):
            names = ("weights", "trials", "source", "branch", "prefix", "unsafe")
            given = {name: getattr(args, name) for name in names}
            _check_unused(
                seeds=args.seeds,
                jobs=args.jobs,
                restart=args.restart,
                config=args.config_file,
                keys=args.opts[:1],
            )
            analyze(data=args.data, output=output, **given)
        else:
            _check_no_weights(args.source, args.branch, args.prefix, args.unsafe)
            cfg = get_cfg()
            merge_file(cfg, find_config(args.config_file))
            before = cfg.clone()
            merge_pairs(cfg, args.opts)
            check_overrides(args.experiment, before, cfg)
            _experiment(
                cfg, args.data, output, args.experiment, args.seeds, args.jobs, args.restart
            )
    except Preempted as stopped:
        print(f"{stopped}; the same command continues", file=sys.stderr)
        return EXIT_CODE
    print(f"\nWritten: {output}/report.html, results.json, figures/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
