"""The configuration of a pretraining run: every key, its default and its range."""

from cwrgp.config.checks import get_cfg, unused_keys, validate_cfg
from cwrgp.config.node import Config

__all__ = ["Config", "get_cfg", "unused_keys", "validate_cfg"]
