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
from cwrgp.data.augment import Normalize, build_test_transform
from cwrgp.data.folders import ImageFolder
from cwrgp.spectrum import covariance_spectrum
from cwrgp.trackers.jsonl import read_metrics
from d2_transfer.proof import TOLERANCE_FLOAT64, verify
from drawing import Detections
from report_data import Command, Pretraining, ReportData, Run, Sample

FINAL_METRICS = [f"{kind}/{name}" for kind in ("bbox", "segm") for name in ("AP", "AP50", "AP75")]


def collect(root: Path, seeds: list[int]) -> ReportData:
    """Everything on the page.

    Args:
        root: the demo's folder, with all stages done.
        seeds: of the fine-tuning.
    """
    scenes = root / "scenes"
    stamp = json.loads((scenes / "stamp.json").read_text())
    before, after = _spectra(root)
    proof = verify(
        extract_encoder(read_checkpoint(root / "pretrain" / "model_final.pth")).state_dict,
        read_checkpoint(root / "encoder.pkl")["model"],
        "resnet18",
    )
    truth = _Coco(scenes / "coco", "val")
    labelled = _Coco(scenes / "coco", "train")
    found = {arm: _detections(root / f"finetune_{arm}_{seeds[0]}") for arm in stages.ARMS}
    chosen = random.Random(0).sample(sorted(truth.images), 6)
    spec = stamp["spec"]
    return ReportData(
        random=[_run(root, "random", seed) for seed in seeds],
        pretrained=[_run(root, "pretrained", seed) for seed in seeds],
        pretraining=_pretraining(root / "pretrain", len(stamp["classes"])),
        spectrum_before=before,
        spectrum_after=after,
        conversion={"res2 to res5": proof.float64},
        conversion_tolerance=TOLERANCE_FLOAT64,
        samples=[
            Sample(
                truth.image(i),
                truth.detections(i),
                truth.detections(i, found["random"][i]),
                truth.detections(i, found["pretrained"][i]),
            )
            for i in chosen
        ],
        class_names=stamp["classes"],
        unlabelled=[
            Image.open(path).convert("RGB")
            for path in sorted((scenes / "unlabelled").iterdir())[:24]
        ],
        labelled=[(labelled.image(i), labelled.detections(i)) for i in sorted(labelled.images)[:6]],
        counts={
            "images without labels, for pretraining": spec["unlabelled"],
            "labelled scenes, for fine-tuning": spec["train"],
            "labelled scenes, for evaluation": spec["val"],
        },
        commands=_commands(root, seeds),
        environment={
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "processor": _processor(),
            "cores": str(torch.get_num_threads()),
        },
    )


def _run(root: Path, arm: str, seed: int) -> Run:
    records = read_metrics(root / f"finetune_{arm}_{seed}" / "metrics.json")
    evaluations = [record for record in records if "bbox/AP" in record]
    return Run(
        seed,
        {name: evaluations[-1][name] for name in FINAL_METRICS},
        [int(record["iteration"]) for record in evaluations],
        [record["bbox/AP"] for record in evaluations],
    )


def _pretraining(folder: Path, num_classes: int) -> Pretraining:
    records = read_metrics(folder / "metrics.json")
    losses = [record for record in records if "total_loss" in record]
    knn = [record for record in records if "knn/top1" in record]
    return Pretraining(
        [int(record["iteration"]) for record in losses],
        [record["total_loss"] for record in losses],
        [int(record["iteration"]) for record in knn],
        [record["knn/top1"] for record in knn],
        100 / num_classes,
    )


@torch.no_grad()
def _spectra(root: Path) -> tuple[list[float], list[float]]:
    """Spectrum of the embedding of the labelled class images, before and after pretraining."""
    cfg = get_cfg()
    load_config(cfg, str(root / "pretrain" / "config.yaml"), [])
    images = ImageFolder(root / "scenes" / "classes" / "val")
    transform = build_test_transform(
        image_size=cfg.DATA.IMAGE_SIZE, resize=cfg.DATA.PROBE_RESIZE, interpolation="bicubic"
    )
    batch = torch.stack([transform(images.load(i)) for i in range(len(images))])
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


class _Coco:
    """Images, truth and predictions of one split."""

    def __init__(self, root: Path, split: str) -> None:
        data = json.loads((root / "annotations" / f"{split}.json").read_text())
        self.images = {image["id"]: root / split / image["file_name"] for image in data["images"]}
        self._truth: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in data["annotations"]:
            self._truth[annotation["image_id"]].append(annotation)
        ids = sorted(category["id"] for category in data["categories"])
        self._index = {category: index for index, category in enumerate(ids)}

    def image(self, number: int) -> np.ndarray:
        return np.array(Image.open(self.images[number]).convert("RGB"))

    def detections(
        self, number: int, predictions: Sequence[dict[str, Any]] | None = None
    ) -> Detections:
        """The truth of an image, or given predictions for it."""
        items = self._truth[number] if predictions is None else predictions
        height, width = self.image(number).shape[:2]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (item["bbox"] for item in items)]
        masks = [coco_mask.decode(item["segmentation"]).astype(bool) for item in items]
        return Detections(
            np.array(boxes, dtype=float).reshape(-1, 4),
            [self._index[item["category_id"]] for item in items],
            None if predictions is None else [item["score"] for item in items],
            np.array(masks, dtype=bool).reshape(-1, height, width),
        )


def _detections(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """What the last evaluation of a run found, by image."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for item in json.loads(
        (folder / "inference" / "scenes_val" / "coco_instances_results.json").read_text()
    ):
        found[item["image_id"]].append(item)
    return found


def _commands(root: Path, seeds: list[int]) -> list[Command]:
    seconds = stages.read_timings(root)
    return [
        Command(stage.name, f"python {stages.shown(stage.command)}", seconds.get(stage.name))
        for stage in stages.plan(root, seeds)
    ]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
