"""What every command shares: its options, its config, and one line for a user's mistake."""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cwrgp.config.files import FileConfig
from cwrgp.config_files import describe_configs, find_config, merge_file, merge_pairs
from cwrgp.errors import USER_ERRORS, NothingToResume

# Arguments of the Python functions -> the options of the commands that set them.
_OPTIONS = {
    "num_gpus": "--num-gpus",
    "num_machines": "--num-machines",
    "dist_url": "--dist-url",
    "resume": "--resume",
    "eval_only": "--eval-only",
    "profile": "--profile",
    "source": "--source",
    "branch": "--branch",
    "prefix": "--prefix",
    "stride_in_1x1": "--stride-in-1x1",
    "unsafe": "--unsafe-load",
    "weights": "--weights",
    "output": "--output",
    "name": "--name",
    "metrics": "--metrics",
    "threshold": "--threshold",
    "picture_threshold": "--picture-threshold",
    "batch_size": "--batch",
    "num_workers": "--num-workers",
    "image_size": "--image-size",
    "resize": "--resize",
    "pixel_range": "--pixel-range",
    "ims_per_batch": "--ims-per-batch",
    "trials": "--trials",
    "seeds": "--seeds",
    "experiment": "--experiment",
    "data": "--data",
    "jobs": "--jobs",
    "reference": "--reference",
}


def run_main(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> int:
    """Runs ``main(args)`` and turns a user's mistake into one line on stderr.

    ``ValueError`` and ``OSError`` are the user's (a wrong value, a missing file), and so are a
    training that diverges (``FloatingPointError``) and a `MissingPackage`: the message is printed
    and the exit code is 2. Anything else is a defect and keeps its traceback.

    Args:
        main: the command.
        args: parsed arguments; ``args.debug`` re-raises instead. Where they are arguments of the
            command's Python function, they have the same names.

    Returns:
        The exit code: 0, 2, 130 after Ctrl-C, or the integer that ``main`` returns.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # no source lines
    # torch raises the death of a worker wherever the main thread is, even inside a logging call,
    # which would print a traceback and go on. The run ends with its own error right after it.
    logging.raiseExceptions = args.debug
    try:
        code = main(args)
    except USER_ERRORS as error:
        if args.debug:
            raise
        message = name_options(str(error), vars(args))
        if isinstance(error, NothingToResume) and "resume_or_start" in vars(args):
            message += ", or give --resume-or-start"
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


def name_options(message: str, arguments: Iterable[str]) -> str:
    """A message of a Python function with the options of a command instead of arguments.

    Args:
        message: names an argument at its beginning, "num_gpus 9 ...", or with a value,
            "resume=True" or "branch='online'". Nothing else in it is replaced.
        arguments: those that the command has.

    Returns:
        "--num-gpus 9 ...", "--resume", "--branch online".
    """
    for argument in _OPTIONS.keys() & set(arguments):
        option = _OPTIONS[argument]
        message = re.sub(rf"^{argument}(?= )|\b{argument}=True\b", option, message)
        value = re.compile(rf"\b{argument}='([^']*)'")
        message = value.sub(lambda match: f"{option} {shlex.quote(match[1])}", message)  # noqa: B023
    return message


def make_parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser with ``--debug``.

    Args:
        command: name of the console command. The usage shows it, unless the command was started as
            ``python FILE.py``, which it then shows instead.
        description: shown as it is; ``%(prog)s`` stands for the name above.
    """
    started = sys.modules["__main__"]
    is_script = getattr(started, "__spec__", None) is None and Path(sys.argv[0]).suffix == ".py"
    parser = argparse.ArgumentParser(
        prog=f"python {sys.argv[0]}" if is_script else command,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_config_arguments(parser: argparse.ArgumentParser, configs: Iterable[str]) -> None:
    """Adds ``--config-file``, ``--list-configs`` and ``KEY VALUE ...``, which must come last.

    Args:
        parser: of the command.
        configs: patterns of the packaged configs that are for this command.
    """
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="FILE",
        help="YAML configuration: a file, or the name of a packaged one",
    )
    parser.add_argument(
        "--list-configs",
        action=_ListConfigs,
        nargs=0,
        const=tuple(configs),
        help="show the packaged configurations and exit",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override keys of the config"
    )


def add_num_gpus(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """Adds ``--num-gpus``."""
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=default,
        metavar="N",
        help="processes on this machine, one for each GPU (default: 1)",
    )


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Adds ``--profile``."""
    parser.add_argument(
        "--profile",
        action="store_true",
        help="write a trace of a few steps and a table of their parts; the run goes on",
    )


def add_checkpoint_arguments(
    parser: argparse.ArgumentParser, sources: Sequence[str], branches: Sequence[str]
) -> None:
    """Adds the options that say how a checkpoint is read, such as ``--source``.

    Args:
        parser: of the command.
        sources: names of the known formats.
        branches: names of the networks that a checkpoint may hold.
    """
    parser.add_argument(
        "--source",
        default="auto",
        choices=sources,
        metavar="NAME",
        help="format of the checkpoint (default: auto-detected)",
    )
    parser.add_argument(
        "--branch", choices=branches, help="which network, if the checkpoint has an average too"
    )
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="what the network's names begin with, such as 'encoder.encoder.', where the checkpoint"
        " has several networks and no known format",
    )
    parser.add_argument(
        "--unsafe-load",
        dest="unsafe",
        action="store_true",
        help="let the checkpoint run code: only for files that you made",
    )


def load_config(cfg: FileConfig, config_file: str, opts: Sequence[str]) -> Path:
    """Merges ``--config-file`` and ``KEY VALUE`` pairs into ``cfg``, in place.

    Args:
        cfg: the defaults; only keys that exist in it may be set.
        config_file: a path, or the name of a packaged config; see `find_config`.
        opts: ``["KEY", "VALUE", ...]`` from the command line.

    Returns:
        The file that was read.

    Raises:
        FileNotFoundError: no such config.
        ValueError: invalid YAML, an unknown key, a value of the wrong type, or a key without a
            value.
    """
    try:
        file = find_config(config_file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--config-file {error} (--list-configs shows all)") from None
    merge_file(cfg, file)
    merge_pairs(cfg, opts)
    return file


class _ListConfigs(argparse.Action):
    """Prints the packaged configs and exits, whatever else is missing, as ``--help`` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(describe_configs(self.const))
        parser.exit()
