"""What reading a data set met: what is mended, what is skipped, and what a reader should know."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tabulate import tabulate

MAX_LISTED = 10  # of each kind, with file and id

MENDED = "mended"
SKIPPED = "skipped"
NOTED = "noted"


@dataclass
class Findings:
    """Counts by kind, with the first few places.

    Attributes:
        name: of the data set, for messages.
        counts: (action, kind) -> how often, in the order of the first occurrence. An action is
            "mended" (the value has an obvious reading, which is used), "skipped" (left out) or
            "noted" (used as it stands, but worth knowing).
        places: (action, kind) -> the first `MAX_LISTED` places, each naming file and entry.
    """

    name: str
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def mend(self, kind: str, place: str = "", count: int = 1) -> None:
        """Counts what is mended; ``kind`` says what and how, such as "box clipped to its image"."""
        self._add(MENDED, kind, place, count)

    def skip(self, kind: str, place: str = "", count: int = 1) -> None:
        """Counts what is left out; ``kind`` says what and why."""
        self._add(SKIPPED, kind, place, count)

    def note(self, kind: str, place: str = "", count: int = 1) -> None:
        """Counts what is used as it stands."""
        self._add(NOTED, kind, place, count)

    def _add(self, action: str, kind: str, place: str, count: int) -> None:
        if count == 0:
            return
        self.counts[action, kind] += count
        places = self.places.setdefault((action, kind), [])
        if place and len(places) < MAX_LISTED:
            places.append(place)

    def check_strict(self) -> None:
        """Refuses a data set of which anything was mended or skipped (``DATASETS.STRICT``).

        Raises:
            ValueError: naming the first finding.
        """
        for (action, kind), count in self.counts.items():
            if action != NOTED:
                where = "".join(f", first {place}" for place in self.places[action, kind][:1])
                raise ValueError(
                    f"{self.name}: {count} x {kind} would be {action}{where} (DATASETS.STRICT is"
                    " True)"
                )

    def as_text(self) -> str:
        """The table for the log, then the places of what is skipped; "" if nothing was met."""
        if not self.counts:
            return ""
        rows = [
            (kind, action, count, (self.places[action, kind] or [""])[0])
            for (action, kind), count in self.counts.items()
        ]
        lines = [tabulate(rows, headers=[self.name, "", "count", "first"], disable_numparse=True)]
        skipped = self.skipped_as_text()
        return "\n".join([*lines, skipped] if skipped else lines)

    @property
    def changed(self) -> bool:
        """Whether anything was mended or skipped."""
        return any(action != NOTED for action, _ in self.counts)

    def skipped_as_text(self) -> str:
        """The places of what is skipped, where there are several; "" if there are none."""
        lines = []
        for (action, kind), places in self.places.items():
            if action == SKIPPED and len(places) > 1:
                more = self.counts[action, kind] - len(places)
                rest = f", and {more} more" if more > 0 else ""
                lines.append(f"{kind}: {', '.join(places)}{rest}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Counts by action and kind, for JSON."""
        found: dict[str, dict[str, int]] = {}
        for (action, kind), count in self.counts.items():
            found.setdefault(action, {})[kind] = count
        return found
