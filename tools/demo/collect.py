"""Makes the report's data of what the stages left; nothing is computed that a stage did."""

from __future__ import annotations

import json
import platform
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from pycocotools import mask as coco_mask

import stages
from cwrgp.builders.methods import build_method
from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.cli import load_config
from cwrgp.config import get_cfg
from cwrgp.data.augment.reference import build_test_transform
from cwrgp.data.folders import ImageFolder
from cwrgp.data.normalize import Normalize
from cwrgp.data.reader import load_rgb
from cwrgp.spectrum import covariance_spectrum
from cwrgp.trackers.jsonl import read_metrics
from d2_transfer.proof import TOLERANCE_FLOAT64, verify
from dataset import DatasetSpec
from report import METRICS, Command, Curve, Detections, ReportData, Run, Sample
from shapes import CLASS_NAMES


def collect(root: Path, seeds: list[int]) -> ReportData:
    """Everything on the page.

    Args:
        root: the demo's folder, with all stages done.
        seeds: of the fine-tuning.
    """
    scenes, pretrain = root / "scenes", root / "pretrain"
    spec = DatasetSpec()  # the one that the demo draws
    before, after = _spectra(root)
    proof = verify(
        extract_encoder(read_checkpoint(pretrain / "model_final.pth")).state_dict,
        read_checkpoint(root / "encoder.pkl")["model"],
        "resnet18",
    )
    val = _truth(scenes / "coco", "val")
    found = [_by_image(_results(root / f"finetune_{arm}_{seeds[0]}")) for arm in stages.ARMS]
    samples = []
    for number in random.Random(0).sample(sorted(val), 6):
        image, truth = val[number]
        samples.append(Sample(image, truth, *(_objects(arm[number], image) for arm in found)))
    return ReportData(
        random=[_run(root, "random", seed) for seed in seeds],
        pretrained=[_run(root, "pretrained", seed) for seed in seeds],
        loss=_curve(pretrain, "total_loss"),
        knn=_curve(pretrain, "knn/top1"),
        chance=100 / len(CLASS_NAMES),
        spectrum_before=before,
        spectrum_after=after,
        conversion={"res2 to res5": proof.float64},
        conversion_tolerance=TOLERANCE_FLOAT64,
        samples=samples,
        class_names=CLASS_NAMES,
        unlabelled=[Image.open(p) for p in sorted((scenes / "unlabelled").iterdir())[:24]],
        labelled=list(_truth(scenes / "coco", "train").values())[:6],
        counts={
            "images without labels, for pretraining": spec.unlabelled,
            "labelled scenes, for fine-tuning": spec.train,
            "labelled scenes, for evaluation": spec.val,
        },
        commands=[
            Command(s.name, f"python {stages.shown(s.command)}", s.seconds(root))
            for s in stages.plan(root, seeds)
        ],
        environment={
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "processor": _processor(),
            "cores": str(torch.get_num_threads()),
        },
    )


def _curve(folder: Path, key: str) -> Curve:
    records = [record for record in read_metrics(folder / "metrics.json") if key in record]
    return Curve([int(record["iteration"]) for record in records], [r[key] for r in records])


def _run(root: Path, arm: str, seed: int) -> Run:
    folder = root / f"finetune_{arm}_{seed}"
    return Run(seed, {k: _curve(folder, k).values[-1] for k in METRICS}, _curve(folder, "bbox/AP"))


@torch.no_grad()
def _spectra(root: Path) -> tuple[list[float], list[float]]:
    """Spectrum of the embedding of the labelled class images, before and after pretraining."""
    cfg = get_cfg()
    load_config(cfg, str(root / "pretrain" / "config.yaml"), [])
    images = ImageFolder(root / "scenes" / "classes" / "val")
    transform = build_test_transform(
        image_size=cfg.DATA.IMAGE_SIZE, resize=cfg.DATA.PROBE_RESIZE, interpolation="bicubic"
    )
    batch = torch.stack([transform(load_rgb(images, i)) for i in range(len(images))])
    inputs = Normalize(cfg.DATA.MEAN, cfg.DATA.STD)(batch)
    spectra = []
    for checkpoint in (None, root / "pretrain" / "model_final.pth"):
        method = build_method(cfg)  # the weights that the run started from
        if checkpoint is not None:
            method.load_state_dict(read_checkpoint(checkpoint)["model"])
        # Batch statistics, since random weights have no running ones yet.
        embeddings = method.projector(method.encoder(inputs))
        spectra.append(covariance_spectrum(embeddings).tolist())
    return spectra[0], spectra[1]


def _truth(coco: Path, split: str) -> dict[int, tuple[np.ndarray, Detections]]:
    """Images and their objects, by id."""
    data = json.loads((coco / "annotations" / f"{split}.json").read_text())
    annotations, truth = _by_image(data["annotations"]), {}
    for record in data["images"]:
        image = np.array(Image.open(coco / split / record["file_name"]))
        truth[record["id"]] = (image, _objects(annotations[record["id"]], image))
    return truth


def _results(folder: Path) -> list[dict[str, Any]]:
    """What the last evaluation of a run found."""
    path = folder / "inference" / "scenes_val" / "coco_instances_results.json"
    return json.loads(path.read_text())


def _by_image(items: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    groups = defaultdict(list)
    for item in items:
        groups[item["image_id"]].append(item)
    return groups


def _objects(items: Sequence[dict[str, Any]], image: np.ndarray) -> Detections:
    """COCO's annotations or results of one image; the category ids count from 1."""
    boxes = np.array([item["bbox"] for item in items], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = np.array([coco_mask.decode(item["segmentation"]) for item in items], dtype=bool)
    return Detections(
        boxes,
        [item["category_id"] - 1 for item in items],
        [item["score"] for item in items] if items and "score" in items[0] else None,
        masks.reshape(-1, *image.shape[:2]),
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
