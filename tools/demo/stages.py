"""The demo's stages: each is one command that a user could type, and is skipped once done."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from dataset import STAMP, VERSION, DatasetSpec

REPOSITORY = Path(__file__).resolve().parents[2]


class Stage(NamedTuple):
    """One command."""

    kind: str  # which of the demo's steps it belongs to
    name: str
    command: tuple[str, ...]  # its words, after the interpreter
    folder: Path  # what it writes; may be deleted to do it again
    done: Path  # exists when, and only when, the command came to its end
    threads: int  # of each process

    def log(self, root: Path) -> Path:
        """What the command printed."""
        return root / "logs" / f"{self.folder.name}.txt"

    def seconds(self, root: Path) -> float | None:
        """How long it took, all attempts together; None if it was not run."""
        path = self.log(root).with_suffix(".seconds")
        return float(path.read_text()) if path.exists() else None


def recipe() -> str:
    """A digest of the configs and the data specification, which the demo's numbers depend on."""
    configs = REPOSITORY / "configs"
    files = sorted([*configs.glob("quick/*.yaml"), *configs.glob("detection/Base*.yaml")])
    parts = [path.read_bytes() for path in files] + [repr((VERSION, DatasetSpec())).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def plan(root: Path, trials: int, cores: int) -> list[Stage]:
    """The stages in order.

    Args:
        root: folder of the demo.
        trials: fine-tunings from random and from pretrained weights each.
        cores: of this machine.
    """
    scenes, pretrain, encoder = root / "scenes", root / "pretrain", root / "encoder.pkl"
    final = pretrain / "model_final.pth"
    draw = ("tools/demo/dataset.py", str(scenes))
    train = (
        *("tools/pretrain.py", "--config-file", "configs/quick/demo_pretrain_r18.yaml"),
        "--resume-or-start",
        *("DATA.ROOT", str(scenes / "unlabelled"), "EVAL.ROOT", str(scenes / "classes")),
        *("OUTPUT_DIR", str(pretrain)),
    )
    convert = ("tools/convert_to_d2.py", str(final), str(encoder))
    return [
        Stage("scenes", "draw the images", draw, scenes, scenes / STAMP, cores),
        Stage("pretrain", "pretrain without labels", train, pretrain, final, cores),
        Stage("convert", "convert for Detectron2", convert, encoder, encoder, cores),
        _trials(root, trials, cores),
    ]


def _trials(root: Path, trials: int, cores: int) -> Stage:
    folder, coco = root / "trials", root / "scenes" / "coco"
    custom = [
        {
            "NAME": f"scenes_{split}",
            "FORMAT": "coco",
            "JSON": str(coco / "annotations" / f"{split}.json"),
            "IMAGES": str(coco / split),
        }
        for split in ("train", "val")
    ]
    # Two small networks on a core each are faster than one after the other on both.
    jobs = min(2 * trials, cores)
    command = (
        *("tools/run_trials.py", "--config-file", "configs/quick/demo_mask_rcnn_r18.yaml"),
        *("--weights", "random=random", f"pretrained={root / 'encoder.pkl'}"),
        *("--trials", str(trials), "--jobs", str(jobs), "--output", str(folder)),
        *("--opts", "DATASETS.CUSTOM", json.dumps(custom)),
    )
    name = "fine-tune from random and from pretrained weights, and compare"
    return Stage("trials", name, command, folder, folder / "report.html", cores // jobs)


def forget(stage: Stage, root: Path) -> None:
    """Removes what a stage wrote, so that it is done again."""
    if stage.folder.is_dir():
        shutil.rmtree(stage.folder)
    stage.folder.unlink(missing_ok=True)
    stage.log(root).with_suffix(".seconds").unlink(missing_ok=True)


def run(stage: Stage, root: Path) -> None:
    """Runs a stage's command; its output goes to its log, its last line to the terminal.

    Raises:
        ValueError: the command failed; names the log.
    """
    log = stage.log(root)
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"\n{stage.name}\n  $ python {shown(stage.command)}", flush=True)
    start = time.monotonic()
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, *stage.command],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(stage.threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if sys.stdout.isatty():
                width = os.get_terminal_size().columns - 4
                print(f"\r  {line.rstrip()[:width]:<{width}}", end="", flush=True)
    if process.wait() != 0:
        last = log.read_text().rstrip().splitlines()[-1:]
        raise ValueError(f"{stage.name} failed: {' '.join(last)} (the whole log is {log})")
    seconds = time.monotonic() - start
    log.with_suffix(".seconds").write_text(f"{(stage.seconds(root) or 0) + seconds:.3f}")
    print(f"\r{stage.name}: done in {seconds:.0f} s", flush=True)


def shown(command: tuple[str, ...]) -> str:
    """A command as it can be pasted into a shell at the repository's root."""
    return shlex.join(word.replace(f"{REPOSITORY}/", "") for word in command)
