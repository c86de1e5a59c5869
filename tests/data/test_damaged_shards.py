"""Shards that are damaged, incomplete or gone: what is refused, and what is counted."""

from __future__ import annotations

import io
import shutil
import tarfile

import pytest
from grey_shards import to_tensor, write_shards

from cwrgp.data.augment.reference import ReferenceViews
from cwrgp.data.base import StorageError
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import StepSampler
from cwrgp.data.shards import Shards
from cwrgp.data.subsets import ImageSubset
from cwrgp.data.views import ProbeImages, Views


def test_images_that_cannot_be_decoded_are_counted(tmp_path):
    source = write_shards(tmp_path, broken=(4, 11))
    sampler = StepSampler(16, 16, start_step=0, total_steps=1, seed=0)
    views = Views(Shards(source), ReferenceViews([to_tensor], seed=0), max_unreadable=2)
    (batch,) = iterate_views(views, sampler, num_workers=2, pin_memory=False)
    assert len(views.reader.unreadable) == 2
    shown = sorted(batch[0][:, 0, 0, 0].tolist())
    assert shown == sorted([*(set(range(16)) - {4, 11}), 5, 12])  # the next ones, twice
    strict = Views(Shards(source), ReferenceViews([to_tensor], seed=0), max_unreadable=1)
    with pytest.raises(ValueError, match=r"2 of 16 .* max_unreadable 1; the first is .*part"):
        list(iterate_views(strict, sampler, num_workers=2, pin_memory=False))
    probe = ProbeImages(ImageSubset(Shards(source), [3, 4]), to_tensor, max_unreadable=1)
    assert [label for _, label in (probe[0], probe[1])] == [0, -1]


def damage(content: bytes, how: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = tar.getmembers()
    samples = [m.offset for m in members if m.name.endswith(".cls")]
    last = members[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    return {
        "cut in an image": content[: last.offset_data + last.size // 2],
        "cut in a header": content[: samples[1] + 100],
        # Whole samples are left in these, which tarfile on its own takes for all there is.
        "cut between samples": content[: samples[1]],
        "cut before the end of archive": content[:end],
        "no header where one begins": content[: samples[1]] + b"x" * 512 + content[samples[1] :],
        "empty": b"",
        "no tar": b"x" * 10_000,
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "cut in an image",
        "cut in a header",
        "cut between samples",
        "cut before the end of archive",
        "no header where one begins",
        "empty",
        "no tar",
    ],
)
def test_a_damaged_shard_is_refused(tmp_path, how):
    source = write_shards(tmp_path)
    shard = tmp_path / "part-001.tar"
    shard.write_bytes(damage(shard.read_bytes(), how))
    with pytest.raises(
        ValueError, match=r"shard .*part-001.tar is not a complete, uncompressed tar file"
    ):
        Shards(source)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"x"}, r"the sample a has 0 images \(txt\); it must have one"),
        ({"a.png": b"x", "a.jpg": b"x"}, r"the sample a has 2 images \(png, jpg\)"),
        ({"a.png": b"x", "a.cls": b"cat"}, "a.cls holds 'cat' instead of the number of a class"),
        ({}, "the 1 shards of .*shard.tar hold no sample"),
    ],
)
def test_samples_that_make_no_sense_are_refused(tmp_path, files, message):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=message):
        Shards(str(tmp_path / "shard.tar"))


def test_a_compressed_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "shard.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(
        ValueError, match="not a complete, uncompressed tar file .* or decompress it"
    ):
        Shards(str(tmp_path / "shard.tar.gz"))


def test_a_missing_shard_is_said(tmp_path):
    source = write_shards(tmp_path)
    (tmp_path / "part-001.tar").unlink()
    with pytest.raises(FileNotFoundError, match="part-001.tar does not exist; download it"):
        Shards(source)
    assert len(Shards(str(tmp_path))) == 13  # what is there; DATA.NUM_SAMPLES would tell
    with pytest.raises(ValueError, match="hold 13 samples instead of 16: is a shard missing"):
        Shards(str(tmp_path), num_samples=16)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_goes_away_stops_the_run_and_is_no_broken_image(tmp_path, workers):
    views = Views(
        Shards(write_shards(tmp_path)), ReferenceViews([to_tensor], seed=0), max_unreadable=16
    )
    sampler = StepSampler(16, 16, start_step=0, total_steps=1, seed=0)
    shutil.move(tmp_path / "part-002.tar", tmp_path / "elsewhere.tar")
    with pytest.raises(StorageError, match=r"^shard .*part-002.tar cannot be read: [^\n]*$"):
        list(iterate_views(views, sampler, num_workers=workers, pin_memory=False))
    (tmp_path / "part-002.tar").write_bytes(b"short")
    with pytest.raises(StorageError, match=r"^shard .* gave 0 instead of \d+ bytes at byte \d+"):
        list(iterate_views(views, sampler, num_workers=workers, pin_memory=False))
    with pytest.raises(StorageError, match="gave 0 instead"):
        ProbeImages(views.images, to_tensor)[15]
    assert len(views.reader.unreadable) == 0
