"""Batches of labelled views: complete, shared without overlap, and a function of the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cwrgp.data.augment.reference import build_classifier_transform, build_test_transform
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import NOTHING, EpochSampler
from cwrgp.data.views import LabelledViews


class Greys:
    """Image i is grey of value i; those in ``broken`` cannot be read."""

    def __init__(self, size: int, broken: tuple[int, ...] = ()) -> None:
        self.labels = 10 * np.arange(size)
        self.broken = broken

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise OSError("cut off")
        return np.full((12, 12, 3), index, dtype=np.uint8)

    def name(self, index: int) -> str:
        return f"grey {index}"


def parts(size, batch_size, world, **options):
    options = {"epochs": 2, "seed": 0, **options}
    epochs = options.pop("epochs")
    return [
        list(
            EpochSampler(range(size), batch_size, epochs, rank=r, world_size=world, **options)
        )
        for r in range(world)
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "batch_size"), [(23, 8), (16, 8), (17, 8), (3, 8)])
def test_the_global_batches_are_those_of_one_process(size, batch_size):
    one = parts(size, batch_size, 1)[0]
    epoch = [index for step in one[: len(one) // 2] for _, index in step]
    assert sorted(epoch) == list(range(size))  # the tail too
    sampler = EpochSampler(range(size), batch_size, 2, seed=0)
    assert [len(step) for step in one] == sampler.sizes * 2 and len(sampler) == len(one)
    assert one[: len(one) // 2] != [[(0, i) for _, i in s] for s in one[len(one) // 2 :]]
    for world in (2, 3):
        ranks = parts(size, batch_size, world)
        for step, whole in enumerate(one):
            joined = [pair for rank in ranks for pair in rank[step] if pair[1] != NOTHING]
            assert joined == whole
    assert parts(size, batch_size, 1, seed=1)[0] != one


def test_equal_parts_lose_only_what_does_not_divide():
    for size, lengths in {23: [8, 8, 6], 19: [8, 8], 20: [8, 8, 4], 16: [8, 8]}.items():
        ranks = parts(size, 8, 2, epochs=1, equal_parts=True)
        assert [2 * len(step) for step in ranks[0]] == lengths
        assert [len(step) for step in ranks[1]] == [len(step) for step in ranks[0]]
        all_of_it = [index for rank in ranks for step in rank for _, index in step]
        assert len(set(all_of_it)) == len(all_of_it) == sum(lengths)


def test_batches_that_cannot_be_are_refused():
    with pytest.raises(
        ValueError, match="a batch of 7 does not give each of 2 processes .*; 6 would"
    ):
        parts(23, 7, 2, equal_parts=True)
    with pytest.raises(
        ValueError, match="a batch of 2 does not give each of 2 processes .*; 4 would"
    ):
        parts(23, 2, 2, equal_parts=True)
    with pytest.raises(ValueError, match="3 labelled images are too few for 2 processes"):
        parts(3, 8, 2, equal_parts=True)


def make_views(dataset, indices=(2, 3, 5, 7), **options):
    transform = build_classifier_transform(8)
    return LabelledViews(dataset, transform, list(indices), seed=0, **options)


def test_a_view_keeps_its_label_and_depends_on_seed_epoch_and_index():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (12, 12, 3), generator=rng, dtype=torch.uint8).numpy()
    dataset = Greys(9)
    dataset.read = lambda index: noise
    views = make_views(dataset)
    view, label = views[0, 3]
    assert view.shape == (3, 8, 8) and view.dtype == torch.uint8 and int(label) == 30
    torch.rand(5)
    assert torch.equal(views[0, 3][0], view)
    assert not torch.equal(views[1, 3][0], view) and not torch.equal(views[0, 5][0], view)
    other = LabelledViews(dataset, build_classifier_transform(8), [3], seed=1)
    assert not torch.equal(other[0, 3][0], view)
    assert int(views[0, NOTHING][1]) == -1


def test_the_loader_gives_batches_of_images_and_labels():
    sampler = EpochSampler([2, 3, 5, 7], 3, 1, seed=0)
    batches = list(
        iterate_views(make_views(Greys(9)), sampler, num_workers=0, pin_memory=False)
    )  # fmt: skip
    assert [len(labels) for _, labels in batches] == [3, 1]
    for images, labels in batches:
        assert torch.equal(images[:, 0, 0, 0] * 10, labels.to(torch.uint8))
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [20, 30, 50, 70]


def test_an_unreadable_image_is_replaced_with_its_label_within_the_limit():
    views = make_views(Greys(9, broken=(7, 2)), max_unreadable=2)
    for index, expected in ((7, 30), (2, 30), (3, 30), (5, 50)):
        view, label = views[0, index]
        assert int(label) == expected and int(view[0, 0, 0]) * 10 == expected
    assert len(views.reader.unreadable) == 2
    with pytest.raises(ValueError, match=r"1 of 4 images cannot be read.*first is grey 7"):
        make_views(Greys(9, broken=(7,)))[0, 7]
    with pytest.raises(ValueError, match="none of the 2 images can be read; the first is grey 2"):
        make_views(Greys(9, broken=(7, 2)), (2, 7), max_unreadable=5)[0, 7]


def test_the_test_transform_is_a_resize_and_the_centre():
    image = Image.new("RGB", (40, 20), (10, 20, 30))
    image.paste((200, 0, 0), (0, 0, 5, 20))  # outside the central square
    out = build_test_transform(image_size=8, resize=10, interpolation="bilinear")(image)
    assert out.shape == (3, 8, 8)
    assert (out == torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1)).all()
