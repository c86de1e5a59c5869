"""The only reader of a pretraining configuration: turns its sections into objects."""

from cwrgp.build.data import build_views
from cwrgp.build.methods import build_method
from cwrgp.build.run import pretrain
from cwrgp.build.solver import build_learning_rate, build_plan

__all__ = ["build_learning_rate", "build_method", "build_plan", "build_views", "pretrain"]
