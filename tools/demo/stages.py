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
ARMS = ("random", "pretrained")


class Stage(NamedTuple):
    """One command."""

    kind: str  # which of the demo's steps it belongs to
    name: str
    command: tuple[str, ...]  # its words, after the interpreter
    folder: Path  # what it writes; may be deleted to do it again
    done: Path  # exists when, and only when, the command came to its end

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


def plan(root: Path, seeds: list[int]) -> list[Stage]:
    """The stages up to the report, in order.

    Args:
        root: folder of the demo.
        seeds: of the fine-tuning; every seed is run from random and from pretrained weights.
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
        Stage("scenes", "draw the images", draw, scenes, scenes / STAMP),
        Stage("pretrain", "pretrain without labels", train, pretrain, final),
        Stage("convert", "convert for Detectron2", convert, encoder, encoder),
        *(_finetune(root, arm, seed) for seed in seeds for arm in ARMS),
    ]


def _finetune(root: Path, arm: str, seed: int) -> Stage:
    folder, coco = root / f"finetune_{arm}_{seed}", root / "scenes" / "coco"
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
        "--resume-or-start",
        *("MODEL.WEIGHTS", str(root / "encoder.pkl") if arm == "pretrained" else ""),
        *("DATASETS.CUSTOM", json.dumps(custom), "SEED", str(seed), "OUTPUT_DIR", str(folder)),
    )
    name = f"fine-tune from {arm} weights, seed {seed}"
    return Stage("finetune", name, command, folder, folder / "DONE")


def forget(stage: Stage, root: Path) -> None:
    """Removes what a stage wrote, so that it is done again."""
    if stage.folder.is_dir():
        shutil.rmtree(stage.folder)
    stage.folder.unlink(missing_ok=True)
    stage.log(root).with_suffix(".seconds").unlink(missing_ok=True)


def run(stage: Stage, root: Path, num_threads: int) -> None:
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
    log.with_suffix(".seconds").write_text(f"{(stage.seconds(root) or 0) + seconds:.3f}")
    if stage.done.name == "DONE":
        stage.done.touch()
    print(f"\r{stage.name}: done in {seconds:.0f} s", flush=True)


def shown(command: tuple[str, ...]) -> str:
    """A command as it can be pasted into a shell at the repository's root."""
    return shlex.join(word.replace(f"{REPOSITORY}/", "") for word in command)
