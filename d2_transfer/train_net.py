"""Fine-tunes and evaluates a detector: `train` from Python, `main` from a shell.

The command is ``cwrgp-train-net``, and also this file, as is customary with Detectron2:
``python d2_transfer/train_net.py --config-file ...``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvcore.common.config import CfgNode

from cwrgp.cli import (
    add_config_arguments,
    add_num_gpus,
    add_profile,
    load_config,
    make_parser,
    run_main,
)
from cwrgp.config_files import DETECTION, find_config, read_config
from d2_transfer.requirement import require_detectron2

if TYPE_CHECKING:
    from d2_transfer.fine_tuning import RunOptions

_DESCRIPTION = """\
Fine-tunes and evaluates a detector. --list-configs shows the protocols.

  %(prog)s --num-gpus 8 --config-file detection/pascal_voc_R_50_C4_24k.yaml \\
      MODEL.WEIGHTS output/encoder.pkl
  %(prog)s --eval-only --config-file FILE MODEL.WEIGHTS output/voc/model_final.pth
  torchrun --nproc_per_node 4 --no-python %(prog)s --config-file FILE MODEL.WEIGHTS ENCODER"""


@dataclass(frozen=True)
class FineTuning:
    """What `train` wrote.

    Attributes:
        output_dir: folder of the run.
        checkpoint: ``model_final.pth`` in it, the whole detector.
        metrics: of the last evaluation, name -> value: ``bbox/AP`` and so on, by the data set's own
            protocol, and for data in VOC form also ``coco/AP``, ``voc07/AP`` and ``voc10/AP``; with
            several test sets ``DATASET/bbox/AP``.
    """

    output_dir: Path
    checkpoint: Path
    metrics: dict[str, float]


def train(
    config: str | PathLike[str] | CfgNode,
    *,
    weights: str | PathLike[str] | None = None,
    output_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    num_gpus: int = 1,
    profile: bool = False,
    **overrides: Any,
) -> FineTuning:
    """Fine-tunes and evaluates a detector: ``cwrgp-train-net`` as a function.

    Example::

        d2_transfer.train(
            "detection/pascal_voc_R_50_C4_24k.yaml", weights="output/encoder.pkl", num_gpus=8,
            SOLVER={"MAX_ITER": 24000},
        )

    Args:
        config: name of a packaged config, path of a YAML file, or a config from
            `d2_transfer.config.get_cfg`, which is not changed.
        weights: ``MODEL.WEIGHTS``: what `convert` wrote, or ``cwrgp://NAME``; "" for random
            weights. None leaves the config's.
        output_dir: ``OUTPUT_DIR``; None leaves the config's.
        resume: go on from the last checkpoint of the output folder.
        num_gpus: processes on this machine, one for each GPU; 1 without a GPU, or 0: the CPU. With
            several, the calling script needs its ``if __name__ == "__main__":``.
        profile: write a trace of a few steps and a table of their parts into the output folder;
            the run goes on.
        **overrides: keys of the config. Sections are dicts, as in YAML:
            ``SOLVER={"MAX_ITER": 24000}, DATASETS={"TRAIN": ("voc_2007_trainval",)}``.

    Raises:
        MissingPackage: Detectron2 is not installed.
        ValueError: an unknown key, a value or weights that cannot work, or an output folder that is
            in use.
        FileNotFoundError: no such config, weights or data, or nothing to resume.
        FloatingPointError: a loss became infinite or NaN.
    """
    require_detectron2()
    from detectron2.evaluation.testing import flatten_results_dict  # noqa: PLC0415

    from d2_transfer.config import get_cfg  # noqa: PLC0415
    from d2_transfer.fine_tuning import RunOptions, fine_tune  # noqa: PLC0415

    given = {"MODEL.WEIGHTS": weights, "OUTPUT_DIR": output_dir}
    overrides |= {key: value for key, value in given.items() if value is not None}
    cfg = read_config(get_cfg(), config, overrides)
    file = "" if isinstance(config, CfgNode) else str(find_config(config))
    options = RunOptions(file, resume=resume, num_gpus=num_gpus, profile=profile)
    results = fine_tune(cfg, options)
    folder = Path(cfg.OUTPUT_DIR)
    return FineTuning(folder, folder / "model_final.pth", flatten_results_dict(results or {}))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command-line arguments: those of Detectron2's ``train_net.py``, and a few more."""
    parser = make_parser("cwrgp-train-net", _DESCRIPTION)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--resume-or-start",
        action="store_true",
        help="the same, or start if there is none: for jobs that requeue",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    add_profile(parser)
    add_num_gpus(parser, default=1)
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="of the run")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N", help="of this machine")
    parser.add_argument(
        "--dist-url", default="auto", metavar="URL", help="for several machines: tcp://HOST:PORT"
    )
    add_config_arguments(parser, DETECTION)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """``cwrgp-train-net``; returns the exit code."""
    return run_main(_start, parse_args(argv))


def _start(args: argparse.Namespace) -> int:
    require_detectron2()
    from cwrgp.preemption import EXIT_CODE, Preempted  # noqa: PLC0415 (imports torch)
    from d2_transfer.fine_tuning import fine_tune  # noqa: PLC0415

    try:
        fine_tune(*from_arguments(args))
    except Preempted as stopped:
        print(f"{stopped}; --resume-or-start continues", file=sys.stderr)
        return EXIT_CODE
    return 0


def from_arguments(args: argparse.Namespace) -> tuple[CfgNode, RunOptions]:
    """The merged config and the options of the command."""
    from d2_transfer.config import get_cfg  # noqa: PLC0415
    from d2_transfer.fine_tuning import RunOptions  # noqa: PLC0415

    cfg = get_cfg()
    file = load_config(cfg, args.config_file, args.opts)
    return cfg, RunOptions(
        config_file=str(file),
        resume=args.resume or args.resume_or_start,
        or_start=args.resume_or_start,
        eval_only=args.eval_only,
        profile=args.profile,
        stoppable=not args.eval_only,
        num_gpus=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
    )


if __name__ == "__main__":
    sys.exit(main())
