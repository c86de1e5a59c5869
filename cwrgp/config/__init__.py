"""The configuration of a pretraining run: every key, its default and its range."""

from cwrgp.config.defaults import get_cfg, validate_cfg

__all__ = ["get_cfg", "validate_cfg"]
