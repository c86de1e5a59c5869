"""How far the cells are, as text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tabulate import tabulate

from d2_transfer.trials.cell import State, state_of
from d2_transfer.trials.plan import Plan
from d2_transfer.trials.result_files import read_result


def list_cells(output: Path, plan: Plan) -> str:
    """A table of the cells, with who works on one, or why it failed."""
    rows = []
    for cell in plan.cells:
        state, note = state_of(output, cell)
        result = read_result(output, cell)
        ap = ""
        if result:
            ap = f"{result['scores']['bbox']['AP']:.1f}" if result["scores"] else "diverged"
        rows.append([cell.number, cell.name, cell.seed, state.value, ap, note])
    return tabulate(rows, ["cell", "name", "seed", "state", "box AP", ""], tablefmt="github")


def status_line(output: Path, plan: Plan) -> str:
    """How many cells are in each state, and about how long the rest will take."""
    counts = Counter(state_of(output, cell)[0] for cell in plan.cells)
    parts = [f"{counts[state]} {state.value}" for state in State if counts[state]]
    text = f"{len(plan.cells)} cells: {', '.join(parts)}"
    results = [result for cell in plan.cells if (result := read_result(output, cell))]
    left = len(plan.cells) - len(results)
    if not results or not left:
        return text
    mean = sum(result["seconds"] for result in results) / len(results)
    return f"{text}; about {mean * left / max(1, counts[State.RUNNING]) / 60:.0f} min left"
