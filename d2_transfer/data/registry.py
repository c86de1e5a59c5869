"""Detection data sets by name, in Detectron2's catalog.

The sets of ``DATASETS.CUSTOM``, specs such as ``coco:train.json:images`` and Detectron2's own names
for PASCAL VOC are read by `load_annotated`, whole or in part. Other names, such as
``coco_2017_train``, are read by Detectron2, in the folder that the environment variable
``DETECTRON2_DATASETS`` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from d2_transfer.data.entries import parse_entry
from d2_transfer.data.load import MAX_UNREADABLE_SHARE, LoadedData, load_annotated
from d2_transfer.data.records import as_records
from d2_transfer.data.spec import (
    CocoSpec,
    Spec,
    VocSpec,
    YoloSpec,
    builtin_specs,
    parse_spec,
    remember,
)
from d2_transfer.data.subsets import Subset, choose_images, parse_subset, write_subset

_EVALUATOR_TYPES = {CocoSpec: "coco", VocSpec: "pascal_voc", YoloSpec: "yolo"}


@dataclass(frozen=True)
class Reading:
    """How a run reads its data sets: the options of `load_annotated`."""

    masks: bool = False
    classes: tuple[str, ...] | None = None
    maskless: str = "box"
    max_unreadable_share: float = MAX_UNREADABLE_SHARE
    pixel_range: tuple[float, ...] = ()
    strict: bool = False

    @classmethod
    def of(cls, cfg: CfgNode) -> Reading:
        """That of a config."""
        return cls(
            masks=cfg.MODEL.MASK_ON,
            classes=tuple(cfg.DATASETS.CLASSES) or None,
            maskless=cfg.DATASETS.MASKLESS,
            max_unreadable_share=cfg.DATASETS.MAX_UNREADABLE_SHARE,
            pixel_range=tuple(cfg.INPUT.PIXEL_RANGE),
            strict=cfg.DATASETS.STRICT,
        )


_specs: dict[str, Spec] = {}
_readings: dict[str, Reading] = {}  # of the sets of the present run
_loaded: dict[str, tuple[Reading, LoadedData]] = {}  # likewise
_subsets: dict[str, Subset] = {}
_chosen: dict[str, list[Any]] = {}  # ids of the subsets that were read


def register_custom(entries: Sequence[Mapping[str, Any]]) -> None:
    """Registers the data sets of ``DATASETS.CUSTOM`` in Detectron2's catalog; nothing is read.

    Args:
        entries: what `parse_entry` takes. Registering the same entry again changes nothing.

    Raises:
        FileNotFoundError: a file or folder of an entry does not exist.
        ValueError: an entry is malformed, or its name is already in use.
    """
    for entry in entries:
        name, spec = parse_entry(entry)
        known = _specs.get(name)
        if known == spec:
            continue
        if known is not None or name in DatasetCatalog:
            by = known or "one of Detectron2's own"
            raise ValueError(f"DATASETS.CUSTOM: the name {name!r} is already in use, by {by}")
        _register(name, spec)


def register_named(key: str, names: Iterable[str], seed: int = 0) -> None:
    """Registers names that are specs, Detectron2's for PASCAL VOC, or subsets; nothing is read.

    A subset of a data set that is read here has the classes of the whole.

    Args:
        key: of the config, for messages.
        names: of data sets; others than these are left alone.
        seed: which images subsets such as ``coco_2017_train_1percent`` have. A name that is
            registered takes the new seed.

    Raises:
        FileNotFoundError: the files of one of Detectron2's names are missing.
        ValueError: a malformed spec or range, or a subset of something else than a data set that is
            read here or of COCO's form.
    """
    for name in names:
        try:
            subset = _find_subset(name, seed)
            if subset is not None:
                _register_subset(key, subset)
                continue
            is_spec = ":" in name and (name in _specs or name not in DatasetCatalog)
            if not is_spec and not isinstance(builtin_specs().get(name), VocSpec):
                continue
            spec = _absolute(parse_spec(name))
        except (ValueError, FileNotFoundError) as error:
            message = str(error)
            raise type(error)(message if message.startswith(key) else f"{key}: {error}") from error
        if _specs.get(name) != spec:
            _register(name, spec)


def _find_subset(name: str, seed: int) -> Subset | None:
    if name in DatasetCatalog and name not in _subsets:
        return None
    subset = parse_subset(name, seed)
    return None if subset is None or _is_whole(name) else subset


def _register_subset(key: str, subset: Subset) -> None:
    name, base = subset.name, subset.base
    register_named(key, [base], subset.seed)  # a part itself, it may have had another seed
    if _subsets.get(name) == subset:
        return
    if base not in _specs and (
        base not in DatasetCatalog or MetadataCatalog.get(base).get("evaluator_type") != "coco"
    ):
        raise ValueError(
            f"{name!r} is not a subset of a data set: {base!r} is neither in DATASETS.CUSTOM, nor"
            " a spec, nor one of Detectron2's names for COCO and VOC"
        )
    for kept in (_chosen, _loaded):
        kept.pop(name, None)
    _subsets[name] = subset
    if base in _specs:
        _register(name, _specs[base])
        return
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: _subset_records(subset))
    metadata = MetadataCatalog.get(base).as_dict()
    MetadataCatalog.get(name).set(**{k: v for k, v in metadata.items() if k != "name"})


def _is_whole(name: str) -> bool:
    """Whether a spec that ends as a subset does names a folder or list of that name."""
    if ":" not in name:
        return False
    spec = parse_spec(name)
    if isinstance(spec, CocoSpec):
        return (spec.images or spec.json_file).exists()
    if isinstance(spec, VocSpec):
        lists = spec.root / "ImageSets" / "Main" / f"{spec.split}.txt"
        return lists.exists() or (spec.root / spec.split).exists()
    return False


def _subset_records(subset: Subset) -> list[dict[str, Any]]:
    records = DatasetCatalog.get(subset.base)
    wanted = set(_choose(subset, (r["image_id"] for r in records)))
    # Reading the annotations has completed the metadata of the whole data set.
    metadata = MetadataCatalog.get(subset.base).as_dict()
    MetadataCatalog.get(subset.name).set(**{k: v for k, v in metadata.items() if k != "name"})
    return [record for record in records if record["image_id"] in wanted]


def _choose(subset: Subset, ids: Iterable[Any]) -> list[Any]:
    try:
        chosen = choose_images(ids, subset.end, subset.seed, start=subset.start)
    except ValueError as error:
        raise ValueError(f"{subset.name}: {error}") from error
    _chosen[subset.name] = chosen
    return chosen


def write_subsets(names: Iterable[str], folder: Path) -> list[Path]:
    """Writes the list of images of each subset among ``names`` that was read: ``NAME.json``."""
    return [write_subset(folder, _subsets[n], _chosen[n]) for n in names if n in _chosen]


def _absolute(spec: Spec) -> Spec:
    if isinstance(spec, CocoSpec):
        images = None if spec.images is None else spec.images.absolute()
        return CocoSpec(spec.json_file.absolute(), images)
    if isinstance(spec, VocSpec):
        return replace(spec, root=spec.root.absolute())
    return replace(spec, yaml=spec.yaml.absolute())


def _register(name: str, spec: Spec) -> None:
    _specs[name] = spec
    remember(name, spec)
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: _records(name))
    _set_metadata(name, spec, spec.classes if isinstance(spec, VocSpec) else None)


def _records(name: str) -> list[dict[str, Any]]:
    reading = _readings.get(name, Reading())
    data = load_data(name, reading).data
    _set_metadata(name, _specs[name], data.classes, data.category_ids)
    return as_records(data, masks=reading.masks)


def _set_metadata(
    name: str,
    spec: Spec,
    classes: Sequence[str] | None,
    category_ids: Sequence[int | str] = (),
) -> None:
    """Sets what Detectron2 asks for, anew: values of its metadata cannot be changed."""
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    values: dict[str, Any] = {"evaluator_type": _EVALUATOR_TYPES[type(spec)]}
    if classes is not None:
        values["thing_classes"] = list(classes)
    if isinstance(spec, CocoSpec):
        numbers = {category: number for number, category in enumerate(category_ids)}
        values |= {"json_file": str(spec.json_file), "thing_dataset_id_to_contiguous_id": numbers}
    elif isinstance(spec, VocSpec):
        year = 2007 if spec.is_2007 else 2012
        values |= {"dirname": str(spec.root), "split": spec.split, "year": year}
    MetadataCatalog.get(name).set(**values)


def find_spec(name: str) -> Spec | None:
    """The spec of a data set that is read here; None: Detectron2 reads it."""
    return _specs.get(name)


def spec_of_metadata(name: str) -> Spec:
    """The files of a data set that Detectron2 reads.

    Raises:
        ValueError: it is of neither COCO's form nor VOC's.
    """
    metadata = MetadataCatalog.get(name)
    kind = metadata.get("evaluator_type")
    if kind == "coco":
        return CocoSpec(Path(PathManager.get_local_path(metadata.json_file)))
    if kind == "pascal_voc":
        root = Path(PathManager.get_local_path(metadata.dirname))
        return VocSpec(root, metadata.split, metadata.year, tuple(metadata.thing_classes))
    raise ValueError(
        f"DATASETS.TEST: no evaluator for {name!r} of kind {kind!r}; known kinds: coco, pascal_voc"
    )


def use_reading(names: Iterable[str], reading: Reading) -> None:
    """Makes the catalog read data sets so, and keep them until `forget_data`."""
    for name in names:
        spec = _specs.get(name)
        if spec is not None:
            _readings[name] = reading
            _set_metadata(name, spec, reading.classes)


def load_data(name: str, reading: Reading) -> LoadedData:
    """Reads a data set; one of the present run is read once.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: the data cannot be used, or have more than one reading.
    """
    if is_kept(name, reading):
        return _loaded[name][1]
    spec = _specs[name]
    loaded = load_annotated(
        spec,
        name=name,
        masks=reading.masks and not isinstance(spec, VocSpec),
        classes=reading.classes,
        maskless=reading.maskless,
        max_unreadable_share=reading.max_unreadable_share,
        pixel_range=reading.pixel_range or None,
        strict=reading.strict,
    )
    if name in _subsets:
        loaded = _part(loaded, _subsets[name])
    if _readings.get(name) == reading:
        keep_data(name, reading, loaded)
    return loaded


def _part(loaded: LoadedData, subset: Subset) -> LoadedData:
    if subset.base in _subsets:
        loaded = _part(loaded, _subsets[subset.base])
    wanted = set(_choose(subset, (image.id for image in loaded.data.images)))
    images = [image for image in loaded.data.images if image.id in wanted]
    if not any(image.things for image in images):
        raise ValueError(f"{subset.name}: none of its {len(images)} images has an object")
    return replace(loaded, data=replace(loaded.data, images=images))


def restrict(name: str, loaded: LoadedData) -> LoadedData:
    """The images of a subset, of a whole data set that Detectron2 reads; the same for other names.

    Args:
        name: of a registered data set.
        loaded: the whole.
    """
    if name not in _subsets:
        return loaded
    wanted = {record["image_id"] for record in DatasetCatalog.get(name)}
    images = [image for image in loaded.data.images if image.id in wanted]
    return replace(loaded, data=replace(loaded.data, images=images))


def is_kept(name: str, reading: Reading) -> bool:
    """Whether a data set was read so for the present run."""
    return name in _loaded and _loaded[name][0] == reading


def keep_data(name: str, reading: Reading, loaded: LoadedData) -> None:
    """Keeps what was read for the present run."""
    _loaded[name] = reading, loaded


def forget_data(names: Iterable[str]) -> None:
    """Frees what was kept; it is read again where it is needed."""
    for name in names:
        _loaded.pop(name, None)
