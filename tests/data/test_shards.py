"""Shards against the webdataset package's own reading, over processes, workers and URLs."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest
import webdataset
from file_server import closed_port, serving
from grey_shards import numbers, png, run_of, write_shards
from PIL import Image

from cwrgp.data.base import StorageError
from cwrgp.data.datasets import build_dataset
from cwrgp.data.reader import load_rgb
from cwrgp.data.shards import Shards, expand
from cwrgp.data.string_array import StringArray
from cwrgp.errors import MissingPackage


def test_the_samples_are_those_that_webdataset_reads(tmp_path):
    source = write_shards(tmp_path)
    shards = Shards(source, num_samples=16)
    theirs = webdataset.WebDataset(source, shardshuffle=False)
    expected = [(int(s["cls"]), Image.open(io.BytesIO(s["png"])).getpixel((0, 0))) for s in theirs]
    assert len(expected) == 16
    ours = [(shards.labels[i], load_rgb(shards, i).getpixel((0, 0))) for i in range(len(shards))]
    assert ours == expected
    assert load_rgb(shards, 0).mode == "RGB"
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
        assert load_rgb(shards, 7).getpixel((0, 0)) == (7, 7, 7)
        server.states = [500] * 3
        with pytest.raises(StorageError, match=r"part-001.tar cannot be read: 500"):
            load_rgb(shards, 7)
        server.ranges = False
        with pytest.raises(StorageError, match="or does its server not support ranges"):
            load_rgb(shards, 7)
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
    with pytest.raises(MissingPackage, match=rf"package {name}: pip install 'cwrgp\[webdataset\]'"):
        Shards(source)


WITHOUT_EXTRAS = """
import sys
sys.modules["fsspec"] = sys.modules["webdataset"] = None  # as if they were not installed
from cwrgp.data.datasets import build_dataset
from cwrgp.errors import MissingPackage
print(len(build_dataset("imagefolder", sys.argv[1], "train")))
try:
    build_dataset("webdataset", sys.argv[1], "train")
except MissingPackage as error:
    print(error)
"""


def test_image_folders_do_not_need_the_packages_of_shards(image_folder, run_tool):
    done = run_tool("-c", WITHOUT_EXTRAS, image_folder, check=True)
    count, message = done.stdout.splitlines()
    assert count == "128" and "pip install 'cwrgp[webdataset]'" in message
