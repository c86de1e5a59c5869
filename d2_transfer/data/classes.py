"""Classes of a data set under the numbers of a model."""

from __future__ import annotations

from collections.abc import Sequence

from d2_transfer.data.annotated import AnnotatedData
from d2_transfer.data.findings import Findings
from d2_transfer.data.values import folded


def use_classes(data: AnnotatedData, classes: Sequence[str], findings: Findings) -> None:
    """Gives the data the classes of a model, by name, in place.

    Args:
        data: which may lack classes or have them in another order.
        classes: names, in the order of the model's class numbers.
        findings: gets names that differ in case, and classes without objects that are dropped.

    Raises:
        ValueError: an object is of a class that the model does not have, or one is named twice.
    """
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes {', '.join(classes)}: one is named twice")
    by_folded = {folded(name): name for name in reversed(classes)}
    known: dict[str, str] = {}
    for name in data.classes:
        if name in classes:
            known[name] = name
        elif (other := by_folded.get(folded(name))) is not None and other not in data.classes:
            findings.mend(
                f"class that differs in case, read as {other!r}", f"{data.source}: {name}"
            )
            known[name] = other
    for image in data.images:
        for thing in image.things:
            if thing.label not in known:
                raise ValueError(
                    f"{thing.place} has the class {thing.label!r}, which is not among"
                    f" {', '.join(classes)}"
                )
            thing.label = known[thing.label]
    for name in data.classes:
        if name not in known and data.protocol == "coco":
            findings.note("class of the file that the model lacks, without objects", name)
    _number(data, classes, known)


def _number(data: AnnotatedData, classes: Sequence[str], known: dict[str, str]) -> None:
    """Sets the classes, each with the category's id of the file; others get ids of their own."""
    if data.numbered_by_order:
        data.category_ids = list(range(1, len(classes) + 1))
    else:
        ids = {
            known[name]: category
            for name, category in zip(data.classes, data.category_ids, strict=True)
            if name in known
        }
        taken = [category for category in data.category_ids if isinstance(category, int)]
        free = max([0, *taken]) + 1
        for name in classes:
            if name not in ids:
                ids[name] = free
                free += 1
        data.category_ids = [ids[name] for name in classes]
    data.classes = list(classes)
