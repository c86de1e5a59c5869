"""Results of the runs of an experiment that did not run."""

from __future__ import annotations

from typing import Any


def result(knn: float | None, rank: float, **indicators: float) -> dict[str, Any]:
    """Of a run with made-up numbers."""
    embedding = {"effective_rank": rank, "normalized_rank": rank / 64}
    embedding |= {"negative_cosine": 0.1, "normalized_stable_rank": 0.2}
    return {
        "curves": {
            "total_loss": ([1, 2], [2.0, 1.0]),
            "monitor/target_volatility": ([1, 2, 3, 4], [9.0, 9.0, 0.2, 0.4]),
        },
        "indicators": {"embedding": embedding | indicators},
        "spectra": {"embedding": [2.0, 1.0]},
        "width": {"embedding": 2},
        "knn": knn,
        "environment": {"device": "a"},
        "seconds": 3600.0,
    }
