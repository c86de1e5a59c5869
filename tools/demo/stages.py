"""The demo's stages: each is one command that a user could type, and is skipped once done."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from dataset import VERSION, DatasetSpec

REPOSITORY = Path(__file__).resolve().parents[2]
ARMS = ("random", "pretrained")
_timings_lock = threading.Lock()  # fine-tuning runs end at the same time


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        kind: which of the demo's steps it belongs to.
        name: what to call it.
        command: its words, after the interpreter.
        folder: what it writes; may be thrown away to do it again.
        done: exists when, and only when, the command came to its end.
    """

    kind: str
    name: str
    command: tuple[str, ...]
    folder: Path
    done: Path


def recipe() -> str:
    """A digest of the configs and the data set's specification: what the demo's numbers come of."""
    configs = REPOSITORY / "configs"
    files = sorted([*configs.glob("quick/*.yaml"), *configs.glob("detection/Base*.yaml")])
    parts = [path.read_bytes() for path in files] + [repr((VERSION, DatasetSpec())).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def plan(root: Path, seeds: list[int]) -> list[Stage]:
    """The stages up to the report, in order.

    Args:
        root: folder of the demo.
        seeds: of the fine-tuning; every seed is run from random and from pretrained weights.
    """
    scenes, pretrain, encoder = root / "scenes", root / "pretrain", root / "encoder.pkl"
    stages = [
        Stage(
            "scenes",
            "draw the pictures",
            ("tools/demo/dataset.py", str(scenes)),
            scenes,
            scenes / "stamp.json",
        ),
        Stage(
            "pretrain",
            "pretrain without labels",
            (
                *("tools/pretrain.py", "--config-file", "configs/quick/demo_pretrain_r18.yaml"),
                *resume_flag(pretrain),
                *("DATA.ROOT", str(scenes / "unlabelled"), "EVAL.ROOT", str(scenes / "classes")),
                *("OUTPUT_DIR", str(pretrain)),
            ),
            pretrain,
            pretrain / "model_final.pth",
        ),
        Stage(
            "convert",
            "convert for Detectron2",
            ("tools/convert_to_d2.py", str(pretrain / "model_final.pth"), str(encoder)),
            encoder,
            encoder,
        ),
    ]
    for seed in seeds:
        for arm in ARMS:
            stages.append(_finetune(root, arm, seed))
    return stages


def _finetune(root: Path, arm: str, seed: int) -> Stage:
    folder = root / f"finetune_{arm}_{seed}"
    coco = root / "scenes" / "coco"
    custom = [
        {
            "NAME": f"scenes_{split}",
            "FORMAT": "coco",
            "JSON": str(coco / "annotations" / f"{split}.json"),
            "IMAGES": str(coco / split),
        }
        for split in ("train", "val")
    ]
    command = (
        *("d2_transfer/train_net.py", "--config-file", "configs/quick/demo_mask_rcnn_r18.yaml"),
        *resume_flag(folder),
        *("MODEL.WEIGHTS", str(root / "encoder.pkl") if arm == "pretrained" else ""),
        *("DATASETS.CUSTOM", json.dumps(custom), "SEED", str(seed), "OUTPUT_DIR", str(folder)),
    )
    return Stage(
        "finetune", f"fine-tune from {arm} weights, seed {seed}", command, folder, folder / "DONE"
    )


def resume_flag(folder: Path) -> tuple[str, ...]:
    """``--resume`` where a killed run left a checkpoint."""
    return ("--resume",) if (folder / "last_checkpoint").exists() else ()


def forget(stage: Stage, root: Path) -> None:
    """Removes what a stage wrote, so that it is done again."""
    if stage.folder.is_dir():
        shutil.rmtree(stage.folder)
    else:
        stage.folder.unlink(missing_ok=True)
    timings = read_timings(root)
    if timings.pop(stage.name, None) is not None:
        _write_timings(root, timings)


def run(stage: Stage, root: Path, num_threads: int) -> None:
    """Runs a stage's command; its output goes to a log, its last line to the terminal.

    Args:
        stage: not done yet.
        root: gets ``logs/<stage>.txt`` and, in ``timings.json``, the seconds.
        num_threads: of the command.

    Raises:
        ValueError: the command failed; names the log.
    """
    (root / "logs").mkdir(parents=True, exist_ok=True)
    log = root / "logs" / f"{stage.folder.name}.txt"
    print(f"\n{stage.name}\n  $ python {shown(stage.command)}", flush=True)
    start = time.monotonic()
    with log.open("a") as file:
        process = subprocess.Popen(
            [sys.executable, *stage.command],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(num_threads)},
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
    if stage.done.name == "DONE":
        stage.done.touch()
    with _timings_lock:
        timings = read_timings(root)
        timings[stage.name] = timings.get(stage.name, 0) + seconds
        _write_timings(root, timings)
    print(f"\r{stage.name}: done in {seconds:.0f} s", flush=True)


def read_timings(root: Path) -> dict[str, float]:
    """Seconds of each stage that was run."""
    path = root / "timings.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _write_timings(root: Path, timings: dict[str, float]) -> None:
    (root / "timings.json").write_text(json.dumps(timings, indent=1))


def shown(command: tuple[str, ...]) -> str:
    """A command as it can be pasted into a shell at the repository's root."""
    words = (str(word).replace(f"{REPOSITORY}/", "") for word in command)
    return " ".join(shlex.quote(word) for word in words if word != "--resume")
