"""What every command shares: one line for a user's mistake, and configs from files and pairs."""

from __future__ import annotations

import argparse
import difflib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

# fvcore and Detectron2 call it when they are imported, which is nothing that a user could change.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def run_main(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> int:
    """Runs ``main(args)`` and turns a user's mistake into one line on stderr.

    ``ValueError`` and ``OSError`` are the user's (a wrong value, a missing file), and so is a
    training that diverges (``FloatingPointError``): the message is printed and the exit code is 2.
    Anything else is a defect and keeps its traceback.

    Args:
        main: the command.
        args: parsed arguments; ``args.debug`` re-raises instead.

    Returns:
        The exit code: 0, 2, 130 after Ctrl-C, or the integer that ``main`` returns.
    """
    try:
        code = main(args)
    except (ValueError, OSError, FloatingPointError) as error:
        if args.debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config-file FILE``, ``--debug`` and ``KEY VALUE ...``."""
    parser.add_argument("--config-file", required=True, metavar="FILE", help="YAML configuration")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override keys of the config"
    )


def load_config(cfg: CfgNode, config_file: str, opts: list[str]) -> None:
    """Merges a YAML file and ``KEY VALUE`` pairs into ``cfg``, in place.

    Args:
        cfg: the defaults; only keys that exist in it may be set.
        config_file: path of a YAML file, possibly with ``_BASE_``.
        opts: ``["KEY", "VALUE", ...]`` from the command line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: invalid YAML, an unknown key, a value of the wrong type, or a key without a
            value.
    """
    if not Path(config_file).is_file():
        raise FileNotFoundError(f"--config-file {config_file}: no such file")
    try:
        cfg.merge_from_file(config_file)
    except yaml.YAMLError as error:
        raise ValueError(f"{config_file} is not valid YAML: {error}") from error
    except KeyError as error:
        raise ValueError(f"{config_file}: {_unknown_key(cfg, error)}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{config_file} is no config: it must hold sections with keys, such as "
            "SOLVER: {EPOCHS: 100}"
        ) from error
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{config_file}: {error}") from error
    if flags := [word for word in opts[::2] if word.startswith("--")]:
        raise ValueError(f"{flags[0]} must stand before the KEY VALUE pairs")
    if len(opts) % 2:
        hint = ", a space between them and no =" if any("=" in key for key in opts[::2]) else ""
        raise ValueError(
            f"{opts[-1]!r} has no value: options are KEY VALUE pairs{hint}, got {opts}"
        )
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, _as_default(cfg, key, value)])
        except (KeyError, AssertionError) as error:
            raise ValueError(_unknown_key(cfg, key)) from error
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{key} {value!r}: {error}") from error


def _as_default(cfg: CfgNode, key: str, text: str) -> str:
    """``1`` for a float is 1.0, and for a text it is "1"."""
    node: Any = cfg
    for part in key.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    if isinstance(node, float) and text.lstrip("+-").isdigit():
        return f"{text}.0"
    return repr(text) if isinstance(node, str) and text.isdigit() else text


def _keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _unknown_key(cfg: CfgNode, error: KeyError | str) -> str:
    key = str(error).strip("\"'").removeprefix("Non-existent config key: ")
    close = difflib.get_close_matches(key, list(_keys(cfg)), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "see the defaults in config.py"
    return f"unknown config key {key}; {hint}"
