"""The config of the trials against that of the protocol's file."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from cwrgp.config.node import leaves
from d2_transfer.trials.plan import Plan


@dataclass(frozen=True)
class Difference:
    """A key whose value is another than the protocol's.

    Attributes:
        key: such as "SOLVER.MAX_ITER".
        protocol: value in the protocol's file; None: the plan is of a version that did not keep it.
        here: value in the trials.
    """

    key: str
    protocol: str | None
    here: str


def config_differences(plan: Plan) -> list[Difference]:
    """Those of ``plan.deviations`` that are keys of the config."""
    here, protocol = (dict(leaves(yaml.safe_load(text) or {})) for text in (plan.config, plan.base))
    keys = [deviation.partition(" ")[0] for deviation in plan.deviations]
    return [
        Difference(key, str(protocol[key]) if key in protocol else None, str(here[key]))
        for key in keys
        if key in here
    ]
