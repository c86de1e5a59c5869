"""Shards against the webdataset package's own reading, over processes and workers, and damaged."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from file_server import closed_port, serving
from PIL import Image
from two_processes import in_two_processes

from cwrgp.data.base import StorageError
from cwrgp.data.datasets import build_dataset
from cwrgp.data.loaders import iterate_views
from cwrgp.data.samplers import StepSampler
from cwrgp.data.shards import Shards, expand, index_shard
from cwrgp.data.string_array import StringArray
from cwrgp.data.subsets import ImageSubset
from cwrgp.data.views import ProbeImages, Views

SIDE = 8


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def png(value: int) -> bytes:
    """A grey image that tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (value, value, value)).save(file, "png")
    return file.getvalue()


def write_shards(folder: Path, counts=(5, 3, 8), *, broken=()) -> str:
    """Image i of all is grey of value i and of class i modulo 3."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard, count in enumerate(counts):
        with webdataset.TarWriter(str(folder / f"part-{shard:03d}.tar")) as writer:
            for _ in range(count):
                content = b"no image" if number in broken else png(number)
                key = f"folder.of.images/{number:04d}" if number % 2 else f"image{number:04d}"
                meta = json.dumps({"number": number})
                writer.write({"__key__": key, "cls": number % 3, "json": meta, "png": content})
                number += 1
    return str(folder / f"part-{{000..{len(counts) - 1:03d}}}.tar")


def numbers(images) -> list[int]:
    return [images.load(index).getpixel((0, 0))[0] for index in range(len(images))]


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_samples_are_those_that_webdataset_reads(tmp_path):
    source = write_shards(tmp_path)
    shards = Shards(source, num_samples=16)
    theirs = webdataset.WebDataset(source, shardshuffle=False)
    expected = [(int(s["cls"]), Image.open(io.BytesIO(s["png"])).getpixel((0, 0))) for s in theirs]
    assert len(expected) == 16
    ours = [(shards.labels[i], shards.load(i).getpixel((0, 0))) for i in range(len(shards))]
    assert ours == expected
    assert shards.load(0).mode == "RGB"
    name = shards.name(6)
    assert name.startswith(str(tmp_path / "part-001.tar at byte "))
    with open(tmp_path / "part-001.tar", "rb") as file:
        file.seek(int(name.split()[-1]))
        assert Image.open(io.BytesIO(file.read(len(png(6))))).getpixel((0, 0)) == (6, 6, 6)


def test_what_is_no_part_of_a_sample_is_left_out(tmp_path):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (
            ("__meta__", b"x"),
            ("__notes__/a.png", png(9)),
            ("README", b"x"),
            ("folder/1.JPG", png(1)),
            ("folder/1.txt", b"a caption"),
            ("2.front.png", png(2)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        long_name = tarfile.TarInfo("x" * 150 + "/3.png")  # takes headers of its own
        long_name.size = len(png(3))
        tar.addfile(long_name, io.BytesIO(png(3)))
    shards = Shards(str(path))
    assert numbers(shards) == [1, 2, 3] and shards.labels.tolist() == [-1, -1, -1]


def test_sources(tmp_path, monkeypatch):
    braces = write_shards(tmp_path / "a")
    write_shards(tmp_path / "b", (2,))
    (tmp_path / "a" / "notes.txt").write_text("no shard")
    three = [str(tmp_path / "a" / f"part-00{i}.tar") for i in range(3)]
    one = str(tmp_path / "b" / "part-000.tar")
    assert expand(braces) == expand(str(tmp_path / "a")) == three
    assert expand(str(tmp_path / "a" / "part-00[12].tar")) == three[1:]
    assert expand(f"{braces}::{one}") == [*three, one]
    assert expand("https://host/{a..c}.tar") == [f"https://host/{x}.tar" for x in "abc"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(Shards("~/b/part-000.tar")) == 2
    with pytest.raises(
        FileNotFoundError, match=r"no shard matches .*/c-\*.tar; name the .tar file"
    ):
        expand(str(tmp_path / "c-*.tar"))


def test_names_and_positions_are_arrays_which_workers_share(tmp_path):
    images = Shards(write_shards(tmp_path))
    assert type(images.urls) is StringArray
    assert [Path(url).name for url in images.urls] == [Path(u).name for u in expand(str(tmp_path))]
    assert not [name for name, v in vars(images).items() if isinstance(v, list | tuple | dict)]


def test_the_number_of_samples_is_checked(tmp_path):
    source = write_shards(tmp_path)
    assert len(build_dataset("webdataset", source, "train")) == 16
    assert build_dataset("webdataset", source, "test") is None
    with pytest.raises(ValueError, match="the 3 shards of .* hold 16 samples instead of 20: is a"):
        build_dataset("webdataset", source, "pretrain", num_samples=20)


def run_of(source: str, rank: int, world: int, *, workers: int, start: int = 0) -> list[list[int]]:
    """The numbers of the images in each of a process's batches, over three epochs."""
    shards = Shards(source)
    sampler = StepSampler(
        len(shards), 8, start_step=start, total_steps=6, seed=3, rank=rank, world_size=world
    )
    views = Views(shards, [to_tensor], seed=3)
    batches = iterate_views(views, sampler, num_workers=workers, pin_memory=False)
    return [batch[0][:, 0, 0, 0].tolist() for batch in batches]


def test_two_processes_with_two_workers_see_every_sample_once_an_epoch(tmp_path):
    source = write_shards(tmp_path)
    ranks = [run_of(source, rank, 2, workers=2) for rank in range(2)]
    epochs = []
    for epoch in range(3):
        seen = [n for run in ranks for batch in run[2 * epoch : 2 * epoch + 2] for n in batch]
        assert sorted(seen) == list(range(16))
        epochs.append(seen)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("start", [1, 3])
def test_a_resume_in_the_middle_of_an_epoch_is_exact(tmp_path, start):
    source = write_shards(tmp_path)
    whole = run_of(source, 0, 1, workers=2)
    assert run_of(source, 0, 1, workers=0, start=start) == whole[start:]
    assert run_of(source, 0, 1, workers=1, start=start) == whole[start:]


def test_images_that_cannot_be_decoded_are_counted(tmp_path):
    source = write_shards(tmp_path, broken=(4, 11))
    sampler = StepSampler(16, 16, start_step=0, total_steps=1, seed=0)
    views = Views(Shards(source), [to_tensor], seed=0, max_unreadable=2)
    (batch,) = iterate_views(views, sampler, num_workers=2, pin_memory=False)
    assert len(views.reader.unreadable) == 2
    shown = sorted(batch[0][:, 0, 0, 0].tolist())
    assert shown == sorted([*(set(range(16)) - {4, 11}), 5, 12])  # the next ones, twice
    strict = Views(Shards(source), [to_tensor], seed=0, max_unreadable=1)
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
    views = Views(Shards(write_shards(tmp_path)), [to_tensor], seed=0, max_unreadable=16)
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


def test_an_index_is_kept_until_its_shard_changes(tmp_path, cache):
    source = write_shards(tmp_path)
    first = Shards(source)
    kept = sorted(cache.iterdir())
    assert len(kept) == 3
    # Read instead of made anew: what is in the files counts.
    table = np.load(kept[0])
    np.save(kept[0], table + [0, 0, 5])
    assert sum(Shards(source).labels) == sum(first.labels) + 5 * len(table)
    kept[0].write_bytes(kept[0].read_bytes()[:20])
    assert (Shards(source).labels == first.labels).all()
    for path in (tmp_path / f"part-00{i}.tar" for i in range(3)):
        stamp = path.stat().st_mtime_ns + 10**9
        os.utime(path, ns=(stamp, stamp))
    assert (Shards(source).labels == first.labels).all()
    assert len(list(cache.iterdir())) == 6


def test_an_index_follows_the_umask_and_nothing_is_left_of_a_failure(tmp_path, cache, monkeypatch):
    source = write_shards(tmp_path, (2,))
    before = os.umask(0o027)
    try:
        Shards(source)
    finally:
        os.umask(before)
    (index,) = cache.iterdir()
    assert index.stat().st_mode & 0o777 == 0o640
    index.unlink()

    def full(file, *args, **rest):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="npy was not written: the disk is full"):
        Shards(source)
    assert not list(cache.iterdir())


def test_shards_at_urls(tmp_path, cache):
    write_shards(tmp_path)
    with serving() as server:
        for path in tmp_path.glob("*.tar"):
            server.files[f"/{path.name}"] = path.read_bytes()
            server.headers[f"/{path.name}"] = {"ETag": '"1"'}
        source = f"{server.url}/part-{{000..002}}.tar"
        shards = Shards(source)
        assert (shards.labels == Shards(str(tmp_path)).labels).all()
        before = len(server.asked)
        assert numbers(shards) == list(range(16))
        assert all(how for _, how in server.asked[before:])  # ranges only
        assert len(server.asked) - before == 16
        assert run_of(source, 1, 2, workers=2) == run_of(str(tmp_path), 1, 2, workers=0)

        server.states = [500]  # once: it is tried again
        assert shards.load(7).getpixel((0, 0)) == (7, 7, 7)
        server.states = [500] * 3
        with pytest.raises(StorageError, match=r"part-001.tar cannot be read: 500"):
            shards.load(7)
        server.ranges = False
        with pytest.raises(StorageError, match="or does its server not support ranges"):
            shards.load(7)
        del server.files["/part-001.tar"]
        with pytest.raises(FileNotFoundError, match=r"http.*part-001.tar does not exist"):
            Shards(source)
    with pytest.raises(OSError, match=r"shard http.*a.tar (cannot be read|does not exist)"):
        Shards(f"http://127.0.0.1:{closed_port()}/a.tar")


def test_what_a_url_needs_is_said():
    with pytest.raises(ValueError, match="what://a.tar: Protocol not known: what"):
        expand("what://a.tar")


@pytest.mark.parametrize("name", ["webdataset.shardlists", "fsspec"])
def test_without_a_package_it_is_named(tmp_path, monkeypatch, name):
    source = write_shards(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"package {name}: pip install 'cwrgp\[webdataset\]'"):
        Shards(source)


WITHOUT_EXTRAS = """
import sys
sys.modules["fsspec"] = sys.modules["webdataset"] = None  # as if they were not installed
from cwrgp.data.datasets import build_dataset
print(len(build_dataset("imagefolder", sys.argv[1], "train")))
try:
    build_dataset("webdataset", sys.argv[1], "train")
except ValueError as error:
    print(error)
"""


def test_image_folders_do_not_need_the_packages_of_shards(image_folder, run_tool):
    done = run_tool("-c", WITHOUT_EXTRAS, image_folder, check=True)
    count, message = done.stdout.splitlines()
    assert count == "128" and "pip install 'cwrgp[webdataset]'" in message


def index_in_processes(rank: int, folder: str, source: str) -> dict[str, object]:
    os.environ["CWRGP_CACHE"] = f"{folder}/cache-{rank}"
    shards = Shards(source)
    outcome = {"labels": shards.labels.tolist(), "numbers": numbers(shards)}
    outcome["indexed"] = len(list(Path(folder, f"cache-{rank}", "shards").iterdir()))
    torch.distributed.barrier()
    if rank == 0:
        Path(folder, "part-001.tar").write_bytes(b"x" * 600)
    torch.distributed.barrier()
    with pytest.raises(ValueError, match="part-001.tar is not a complete, uncompressed tar file"):
        Shards(source)
    return outcome


@pytest.mark.dist
def test_processes_share_the_indexing_and_a_damaged_shard_stops_all(tmp_path):
    source = write_shards(tmp_path)
    outcomes = in_two_processes(tmp_path, index_in_processes, str(tmp_path), source)
    for rank, outcome in enumerate(outcomes):
        assert outcome["numbers"] == list(range(16)) and outcome["indexed"] == (2, 1)[rank]
        assert outcome["labels"] == [n % 3 for n in range(16)]


def test_the_index_of_one_shard(tmp_path):
    write_shards(tmp_path)
    table = index_shard(str(tmp_path / "part-000.tar"))
    assert table.dtype == np.int64 and table.shape == (5, 3)
    assert table[:, 2].tolist() == [0, 1, 2, 0, 1] and (table[:, 0] % 512 == 0).all()
