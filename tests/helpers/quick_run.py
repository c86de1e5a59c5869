"""Pretraining runs that take seconds."""

from __future__ import annotations

from repository import REPOSITORY

from cwrgp.cli import load_config
from cwrgp.config import get_cfg

QUICK = REPOSITORY / "configs/quick/pretrain_cwrgp_r18.yaml"


def make_cfg(image_folder, output, *opts):
    cfg = get_cfg()
    opts = ["DATA.ROOT", str(image_folder), "OUTPUT_DIR", str(output), *map(str, opts)]
    load_config(cfg, str(QUICK), opts)
    return cfg
