"""Every effective config of configs/detection, key for key, against a committed table.

After a change that was decided on, write the table anew and read its diff:

    PYTHONPATH=. python tests/d2_transfer/test_golden_configs.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import get_cfg as detectron2_defaults
from fvcore.common.config import CfgNode

from cwrgp.cli import load_config
from cwrgp.config.node import flatten
from d2_transfer.config import get_cfg

CONFIGS = Path(__file__).parents[2] / "configs" / "detection"
RUNS = sorted(path for path in CONFIGS.glob("*.yaml") if not path.name.startswith("Base"))
GOLDEN = Path(__file__).with_name("golden_configs.json")
ADVICE = (
    "The effective config differs from tests/d2_transfer/golden_configs.json. Published numbers"
    " belong to these values. If the change is meant, run `PYTHONPATH=. python"
    " tests/d2_transfer/test_golden_configs.py`, and commit the table with the reason."
)


def effective(path: Path) -> dict[str, Any]:
    """The keys whose value is not Detectron2's default, or this package's for its own keys."""
    cfg = get_cfg()
    load_config(cfg, str(path), [])
    defaults = plain(get_cfg()) | plain(detectron2_defaults())
    return {key: value for key, value in plain(cfg).items() if value != defaults[key]}


def plain(cfg: CfgNode) -> dict[str, Any]:
    """Dotted key -> value, as JSON has it."""
    values = {}
    for name in flatten(cfg):
        node: Any = cfg
        for part in name.split("."):
            node = node[part]
        values[name] = node
    return json.loads(json.dumps(values))


def table() -> dict[str, Any]:
    """Config -> key -> value."""
    return {path.stem: dict(sorted(effective(path).items())) for path in RUNS}


def as_text(content: dict[str, Any]) -> str:
    """One object for each config, one line for each key."""
    blocks = []
    for stem, values in content.items():
        lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in values.items())
        blocks.append(f"  {json.dumps(stem)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def test_the_table_has_each_config_once() -> None:
    assert set(json.loads(GOLDEN.read_text())) == {path.stem for path in RUNS}, ADVICE


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_effective_config(path: Path) -> None:
    assert effective(path) == json.loads(GOLDEN.read_text())[path.stem], ADVICE


if __name__ == "__main__":
    GOLDEN.write_text(as_text(table()))
