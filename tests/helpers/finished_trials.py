"""A folder of trials whose cells are done, without any training: two arms with box and mask AP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import d2_transfer
from cwrgp.config_files import find_config, read_config
from d2_transfer.config import get_cfg
from d2_transfer.evaluators import DETECTIONS, SCORES, inference_folder
from d2_transfer.trials.cell import cell_config, environment
from d2_transfer.trials.plan import Arm, Plan, write_plan
from d2_transfer.trials.prepare import deviations
from d2_transfer.trials.result_files import cell_folder

PROTOCOL = "coco_R_50_C4_2x"  # with published numbers of boxes and masks
SIDE = 320  # px
_SIDES = ((12, 30), (40, 90), (110, 180))  # of small, medium and large objects


def write_scenes(folder: Path, *, images: int = 12) -> str:
    """Images with objects of all three sizes, of two classes, and their annotations."""
    rng = np.random.default_rng(0)
    pictures, annotations = [], []
    for number in range(1, images + 1):
        pixels = rng.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        for low, high in _SIDES:
            w, h = rng.integers(low, high, 2).tolist()
            x, y = rng.integers(0, SIDE - w), rng.integers(0, SIDE - h)
            label = int(rng.integers(1, 3))
            pixels[y : y + h, x : x + w] = (220, 40, 40) if label == 1 else (30, 60, 220)
            thing = {"image_id": number, "category_id": label, "bbox": [int(x), int(y), w, h]}
            annotations.append({"id": len(annotations) + 1, **thing, "iscrowd": 0, "area": w * h})
            annotations[-1]["segmentation"] = [_corners(annotations[-1]["bbox"])]
        name = f"{number}.png"
        Image.fromarray(pixels).save(folder / name)
        pictures.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    content = {"images": pictures, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))
    return f"coco:{folder / 'truth.json'}:{folder}"


def _corners(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def write_trials(output: Path, data: str, *, seeds: int = 3, **overrides: Any) -> Plan:
    """Cells of the arms "random" and "ours" as `run_cell` leaves them; "ours" errs less.

    Args:
        output: folder of the trials.
        data: spec of the test set.
        seeds: number of them.
        overrides: keys of the protocol's config.
    """
    given = {"DATASETS.TRAIN": (data,), "DATASETS.TEST": (data,), "MODEL.DEVICE": "cpu"}
    file = find_config(f"detection/{PROTOCOL}.yaml")
    cfg, base = (read_config(get_cfg(), file, keys) for keys in ({**given, **overrides}, {}))
    arms = (Arm("random", ("random",)), Arm("ours", ("ours.pkl",)))
    files = {"random": ("", ""), "ours.pkl": (str(output / "ours.pkl"), "0" * 64)}
    plan = Plan(
        protocol=PROTOCOL,
        config=cfg.dump(),
        deviations=tuple(deviations(cfg, base)),
        arms=arms,
        seeds=tuple(range(1, seeds + 1)),
        files=files,
        base=base.dump(),
    )
    write_plan(output, plan)
    for cell in plan.cells:
        run = Path(cell_config(plan, cell, output).OUTPUT_DIR)
        found = inference_folder(run, data)
        found.mkdir(parents=True)
        entries = _detections(data, cell.seed, spread=4.0 if cell.arm == "ours" else 9.0)
        scores = d2_transfer.score(data, entries, ("bbox", "segm"))
        (found / DETECTIONS).write_text(json.dumps(entries))
        (found / SCORES).write_text(json.dumps(scores))
        lines = [
            {"iteration": i, "bbox/AP": scores["bbox"]["AP"] * i / 99, "total_loss": 90 / (i + 9)}
            for i in range(9, 109, 10)
        ]
        (run / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        result = {
            "arm": cell.arm,
            "seed": cell.seed,
            "scores": scores,
            "detections": str((found / DETECTIONS).relative_to(cell_folder(output, cell))),
            "seconds": 100.0,
            "environment": environment(cfg),
        }
        (cell_folder(output, cell) / "result.json").write_text(json.dumps(result))
    return plan


def _detections(data: str, seed: int, *, spread: float) -> list[dict[str, Any]]:
    """The objects, each moved and resized, and some that do not exist."""
    rng = np.random.default_rng([seed, int(spread)])
    content = json.loads(Path(data.split(":")[1]).read_text())
    found = []
    for thing in content["annotations"]:
        for score in (rng.uniform(0.4, 1.0), rng.uniform(0.05, 0.6)):
            box = np.array(thing["bbox"]) + rng.normal(0, spread / 2, 4)
            box = np.append(box[:2].clip(0), box[2:].clip(4)).round(1).tolist()
            label = thing["category_id"] if rng.random() < 0.9 else 3 - thing["category_id"]
            more = {"score": float(score), "segmentation": [_corners(box)]}
            entry = {"image_id": thing["image_id"], "category_id": label, "bbox": box}
            found.append({**entry, **more})
    return found
