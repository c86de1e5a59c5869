"""The plan of a set of trials: arms, seeds and cells, and the file that holds them."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from cwrgp.file_io.atomic import write_text

FILE = "plan.json"
RANDOM = "random"
_VERSION = 2
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Arm:
    """Weights whose effect is asked for.

    Attributes:
        name: in tables.
        weights: one file for all seeds, or one for each, which are repeated pretrainings; `RANDOM`
            for random weights.
    """

    name: str
    weights: tuple[str, ...]

    @property
    def repeated(self) -> bool:
        """Whether each seed has a pretraining of its own."""
        return len(self.weights) > 1

    def weights_of(self, place: int) -> str:
        """The weights of a seed, by its place among the seeds."""
        return self.weights[place] if self.repeated else self.weights[0]


@dataclass(frozen=True)
class Cell:
    """One fine-tuning.

    Attributes:
        number: from 1.
        arm: name.
        seed: of the fine-tuning.
        weights: `MODEL.WEIGHTS`; "" for random weights.
        percent: of the training images.
        rate: learning rate that is tried, on training images alone; None: a cell of the results.
    """

    number: int
    arm: str
    seed: int
    weights: str
    percent: float = 100
    rate: float | None = None

    @property
    def name(self) -> str:
        """Of its folder. No arm has "@" in its name."""
        if self.rate is not None:
            return f"{self.arm}@rate{self.rate:g}"
        share = "" if self.percent == 100 else f"@{self.percent:g}percent"
        return f"{self.arm}{share}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        protocol: name of the config.
        config: the merged config as YAML; weights, seed and folder are those of the cells.
        deviations: keys of the config that the protocol's file has otherwise, "KEY VALUE".
        arms: the first is the reference.
        seeds: of the fine-tunings, the same for all arms.
        files: weights as given -> the file that a detector starts from ("" for random weights), and
            its SHA-256.
        fractions: of the training images in percent, ascending.
        rates: learning rates of which each arm has its best; none: the config's.
        base: the config of the protocol's file alone, as YAML.
        classes: of the model, in the order of their numbers, which all cells share.
        truth: digest of the test set's annotations.
        leakage: what is known of test images among those of the pretraining.
    """

    protocol: str
    config: str
    deviations: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    files: Mapping[str, tuple[str, str]]
    fractions: tuple[float, ...] = (100.0,)
    rates: tuple[float, ...] = ()
    base: str = ""
    classes: tuple[str, ...] = ()
    truth: str = ""
    leakage: tuple[str, ...] = ()

    @cached_property
    def cells(self) -> list[Cell]:
        """First those of the sweep, which has the first seed. Then seed by seed, so that what is
        finished early compares all arms."""
        swept = [(arm, 0, 100.0, rate) for arm in self.arms for rate in self.rates]
        trials = [
            (arm, place, percent, None)
            for place in range(len(self.seeds))
            for percent in self.fractions
            for arm in self.arms
        ]
        found = []
        for number, (arm, place, percent, rate) in enumerate([*swept, *trials], 1):
            file, _ = self.files[arm.weights_of(place)]
            found.append(Cell(number, arm.name, self.seeds[place], file, percent, rate))
        return found

    def trial_cells(self, percent: float | None = None) -> list[Cell]:
        """The cells of the results that train on ``percent`` of the images; None: the largest."""
        share = self.fractions[-1] if percent is None else percent
        return [cell for cell in self.cells if cell.rate is None and cell.percent == share]

    def cell(self, number: int) -> Cell:
        """A cell by its number.

        Raises:
            ValueError: no such number.
        """
        if not 1 <= number <= len(self.cells):
            raise ValueError(f"cell {number} is not one of 1 to {len(self.cells)}")
        return self.cells[number - 1]


def parse_arms(words: Sequence[str], trials: int) -> tuple[Arm, ...]:
    """Arms from ``NAME=W`` or ``NAME=W1,W2,...``.

    Args:
        words: of the command line.
        trials: number of seeds.

    Raises:
        ValueError: a word of another form, a name or a file of an arm that occurs twice, or a
            number of files that is neither 1 nor ``trials``.
    """
    arms: list[Arm] = []
    for word in words:
        name, sign, given = word.partition("=")
        files = tuple(given.split(","))
        if not sign or not _NAME.fullmatch(name) or not all(files):
            raise ValueError(
                f"weights {word!r}: give NAME=FILE, with letters, digits, '.', '_' and '-' in NAME,"
                f" and FILE {RANDOM!r} for random weights"
            )
        if name in [arm.name for arm in arms]:
            raise ValueError(f"weights {word!r}: the name {name!r} is given twice")
        if len(files) not in (1, trials):
            raise ValueError(
                f"weights {name!r}: {len(files)} files for {trials} trials; give one for all or one"
                " for each"
            )
        if len(set(files)) < len(files):
            raise ValueError(
                f"weights {name!r}: a file is given twice; repeated pretrainings have one for each"
                " seed, and one file for all seeds is given once"
            )
        arms.append(Arm(name, files))
    return tuple(arms)


def parse_numbers(what: str, text: str, *, high: float = math.inf) -> tuple[float, ...]:
    """Numbers above 0, such as "1,5,10", in ascending order.

    Args:
        what: they are, for messages.
        text: as given.
        high: the highest that is allowed.

    Raises:
        ValueError: something else than such numbers, or a number twice.
    """
    try:
        numbers = sorted(float(word) for word in text.split(","))
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number <= high for number in numbers):
        limit = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{what} {text!r} are not numbers above 0{limit}, such as 1,5,10")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{what} {text!r} has a number twice")
    return tuple(numbers)


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes the plan of a folder of trials, which is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps({"version": _VERSION, **asdict(plan)}, indent=2))


def read_plan(folder: Path) -> Plan | None:
    """The plan of a folder of trials; None if it has none.

    Raises:
        ValueError: the file is of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if content.pop("version") != _VERSION:
        raise ValueError(f"{path} is of another version; choose another folder, or give --restart")
    arms = tuple(Arm(arm["name"], tuple(arm["weights"])) for arm in content.pop("arms"))
    files = {given: tuple(found) for given, found in content.pop("files").items()}
    lists = ("seeds", "deviations", "fractions", "rates", "classes", "leakage")
    content |= {key: tuple(content[key]) for key in lists if key in content}
    return Plan(arms=arms, files=files, **content)


def check_same(folder: Path, old: Plan, new: Plan) -> None:
    """Refuses to mix trials of two plans. More seeds, arms or fractions are no other plan.

    Args:
        folder: of the trials, for the message.
        old: what the folder holds.
        new: what is asked for.

    Raises:
        ValueError: the config, the rates, a file of weights, an arm, or the test set has changed.
    """
    advice = "; give --restart to start anew, or choose another folder"
    if old.config != new.config:
        lines = difflib.unified_diff(old.config.split("\n"), new.config.split("\n"), n=0)
        changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
        raise ValueError(
            f"{folder} holds trials of another config ({' '.join(changed[:4])}){advice}"
        )
    if old.truth and old.truth != new.truth:
        raise ValueError(f"{folder}: the annotations of the test set have changed{advice}")
    if old.rates != new.rates:
        rates = ",".join(f"{rate:g}" for rate in old.rates) or "none"
        raise ValueError(f"{folder} holds trials with another lr-sweep ({rates}){advice}")
    kept = {arm.name: arm for arm in old.arms}
    for arm in new.arms:
        for given in arm.weights:
            if given in old.files and old.files[given][1] != new.files[given][1]:
                raise ValueError(f"{folder}: the file {given} has changed{advice}")
        before = kept.get(arm.name)
        shared = range(min(len(old.seeds), len(new.seeds)))
        if before and any(before.weights_of(place) != arm.weights_of(place) for place in shared):
            raise ValueError(
                f"{folder}: the arm {arm.name} had the weights {','.join(before.weights)}{advice}"
            )
