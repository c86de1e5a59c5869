"""Batches of training: those of Detectron2's loader, from any of them on."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, build_detection_train_loader
from detectron2.structures import BoxMode
from PIL import Image

from cwrgp.seeding import Stream, derive_seed, forked_generators
from d2_transfer.config import get_cfg
from d2_transfer.data.mapper import TransferMapper
from d2_transfer.data.train_loader import TrainLoader, group

BATCH = 3


def pictures(folder: Path, count: int = 11) -> list[dict[str, Any]]:
    """Records of images of noise, of which a third are wide."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        height, width = (24, 40) if number % 3 == 0 else (40, 24)
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(path)
        thing = {"bbox": [3, 3, 12, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
        record = {"file_name": str(path), "image_id": number, "height": height, "width": width}
        found.append({**record, "annotations": [thing]})
    return found


@pytest.fixture
def loader_of(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """From options of the config to a loader."""
    found = pictures(tmp_path)
    name = f"{tmp_path.name}_train"
    DatasetCatalog.register(name, lambda: found)
    request.addfinalizer(lambda: DatasetCatalog.remove(name))

    def build(**options: Any) -> TrainLoader:
        cfg = get_cfg()
        cfg.DATASETS.TRAIN = (name,)
        cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = BATCH, 0
        cfg.INPUT.MIN_SIZE_TRAIN = (24, 32, 40)
        cfg.merge_from_list([part for pair in options.items() for part in pair])
        loader = TrainLoader.from_config(cfg, TransferMapper(cfg, True))
        loader.seed, loader.config = 5, cfg  # type: ignore[attr-defined]
        return loader

    return build


def first(loader: Any, count: int) -> list[list[dict[str, Any]]]:
    return list(itertools.islice(iter(loader), count))


def ids(batches: list[list[dict[str, Any]]]) -> list[list[int]]:
    return [[image["image_id"] for image in batch] for batch in batches]


def equal(ours: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> bool:
    if ids(ours) != ids(theirs):
        return False
    pairs = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
    return all(
        torch.equal(a["image"], b["image"])
        and torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
        for a, b in pairs
    )


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
def test_batches_are_those_of_detectron2(loader_of: Any, grouped: bool, sampler: str) -> None:
    loader = loader_of(
        **{"DATALOADER.ASPECT_RATIO_GROUPING": grouped, "DATALOADER.SAMPLER_TRAIN": sampler}
    )
    with forked_generators(derive_seed(Stream.DETECTION_ORDER, loader.seed)):
        theirs = build_detection_train_loader(
            loader.config, mapper=TransferMapper(loader.config, True)
        )
    expected = ids(first(theirs, 30))
    assert ids(first(loader, 30)) == expected
    mixed = [len({number % 3 == 0 for number in batch}) > 1 for batch in expected]
    assert any(mixed) is not grouped


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_goes_on_with_the_same_batches(
    loader_of: Any, grouped: bool, workers: int
) -> None:
    options = {"DATALOADER.ASPECT_RATIO_GROUPING": grouped}
    straight = first(loader_of(**options), 20)
    for start in (1, 4, 13):
        loader = loader_of(**options, **{"DATALOADER.NUM_WORKERS": workers})
        loader.start = start
        assert equal(first(loader, 20 - start), straight[start:])


def test_augmentation_differs_between_epochs_and_seeds(loader_of: Any) -> None:
    loader = loader_of()
    batches = first(loader, 20)
    shown = [image for image in itertools.chain(*batches) if image["image_id"] == 4]
    assert len({tuple(image["image"].shape) for image in shown}) == 3  # the three sizes
    loader.seed = 6
    assert not equal(first(loader, 20), batches)


def test_global_generators_are_left_alone(loader_of: Any) -> None:
    def states() -> tuple[Any, ...]:
        numpy = np.random.get_state()
        return random.getstate(), numpy[1].tobytes(), numpy[2], torch.get_rng_state().tolist()

    before = states()
    first(loader_of(), 4)
    assert states() == before


def test_an_image_that_cannot_be_read_is_replaced_by_the_same_one(loader_of: Any) -> None:
    loader = loader_of()
    Path(loader._records[4]["file_name"]).write_bytes(b"")
    batches = first(loader, 20)
    assert 4 not in itertools.chain(*ids(batches))
    assert all(len({number % 3 == 0 for number in batch}) == 1 for batch in ids(batches))
    loader.start = 6
    assert equal(first(loader, 14), batches[6:])


def test_no_readable_image_ends_the_run(loader_of: Any) -> None:
    loader = loader_of()
    for record in loader._records:
        Path(record["file_name"]).write_bytes(b"")
    with pytest.raises(OSError, match="no image of the training data can be read any more"):
        first(loader, 1)


class Kept(dict[str, Any]):
    """A record that can be referred to weakly."""


def test_the_list_of_records_is_not_kept(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Workers would copy it: the packed records take its place."""
    made: list[weakref.ref[Kept]] = []

    def remembered() -> list[Kept]:
        records = [Kept(record) for record in pictures(tmp_path)]
        made.extend(weakref.ref(record) for record in records)
        return records

    DatasetCatalog.register("weak_train", remembered)
    request.addfinalizer(lambda: DatasetCatalog.remove("weak_train"))
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.SOLVER.IMS_PER_BATCH = ("weak_train",), BATCH
    cfg.DATALOADER.NUM_WORKERS = 0
    loader = TrainLoader.from_config(cfg, TransferMapper(cfg, True))
    first(loader, 2)
    gc.collect()
    assert made and not any(reference() for reference in made)


def test_groups_fill_in_order_and_keep_positions() -> None:
    batches = group([0, 1, 2, 3, 1, 2, 0, 3], [0, 1, 1, 0], 2)
    assert list(batches) == [
        [(1, 1), (2, 2)],
        [(0, 0), (3, 3)],
        [(4, 1), (5, 2)],
        [(6, 0), (7, 3)],
    ]
