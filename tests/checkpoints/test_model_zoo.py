"""The table of published checkpoints, its page, and the cache, filled from a real server."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from encoders import make_encoder, under
from file_server import FileServer, closed_port, serving
from repository import REPOSITORY

from cwrgp.checkpoints.extract import extract_encoder
from cwrgp.checkpoints.formats import source_names
from cwrgp.checkpoints.model_zoo import ZOO, Checkpoint, Publisher, fetch, get
from cwrgp.checkpoints.reader import read_checkpoint
from cwrgp.file_io.cache import cache_dir
from cwrgp.file_io.digest import file_digest, record_file, recorded_digest
from cwrgp.file_io.path_manager import local_file

PAGE = (REPOSITORY / "MODEL_ZOO.md").read_text(encoding="utf-8")
SOMEONE = Publisher("https://example.org", "none")


@pytest.fixture(scope="module")
def moco(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of MoCo's with a ResNet-18."""
    path = tmp_path_factory.mktemp("moco") / "moco.pth.tar"
    online = under("module.encoder_q.", make_encoder(18))
    momentum = under("module.encoder_k.", make_encoder(18, seed=1))
    state = {**online, **momentum, "module.queue": torch.randn(8, 16)}
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": state}, path)
    return path.read_bytes()


@pytest.fixture
def server(moco: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves it; the cache is a new folder."""
    monkeypatch.setenv("CWRGP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CWRGP_ZOO_MIRROR", raising=False)
    with serving() as served:
        served.files["/tiny.pth.tar"] = served.files["/mirror/tiny.pth"] = moco
        yield served


def table(server: FileServer, source: str = "moco", **more: str) -> dict[str, Checkpoint]:
    row = {"url": f"{server.url}/tiny.pth.tar", "arch": "resnet18", **more}
    return {"tiny": Checkpoint("tiny", "MoCo v2", 200, source, SOMEONE, "1.0", **row)}


def names() -> list[str]:
    """What stands in the cache, apart from locks."""
    return sorted(p.name for p in cache_dir().iterdir() if p.suffix != ".lock")


def test_the_rows() -> None:
    for name, row in ZOO.items():
        assert name == row.name
        assert row.source in source_names()
        assert str(row.epochs) in name
        assert row.name.endswith(f"_r50_in1k_{row.epochs}ep")
        assert bool(row.url) != bool(row.drive_id)
        assert row.publisher.licence
        assert row.digest is None or re.fullmatch("(md5|sha256):[0-9a-f]{8}", row.digest)
        assert not row.url or urlsplit(row.url).scheme == "https"
        for numbers in (row.voc, row.coco_box, row.coco_mask):
            assert not numbers or numbers.count(" / ") == 2
    assert len({row.url + row.drive_id for row in ZOO.values()}) == len(ZOO) == 11


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", ZOO)
def test_the_page_has_every_number_of_the_table(name: str) -> None:
    row = ZOO[name]
    lines = [cells(line) for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    (pretraining,) = [line for line in lines if row.method in line]
    where = row.url or f"https://drive.google.com/file/d/{row.drive_id}"
    assert pretraining[1:4] == [row.method, str(row.epochs), row.linear]
    assert pretraining[4] == row.publisher.licence
    assert pretraining[5] == f"[file]({where}), [page]({row.publisher.page})"
    detection = [line[1:4] for line in lines if row.method not in line]
    published = [text or "–" for text in (row.voc, row.coco_box, row.coco_mask)]
    assert detection == ([published] if published != ["–"] * 3 else [])


def test_the_page_names_nothing_else() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert {cells(line)[0].strip("`") for line in rows} == set(ZOO)
    for address in set(re.findall(r"\((https://[^)]+)\)", PAGE)):
        known = [row.url or f"/file/d/{row.drive_id}" for row in ZOO.values()]
        known += [row.publisher.page for row in ZOO.values()]
        assert address.endswith(tuple(known)), address


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"called 'cwrgp4_r50'; did you mean cwrgp4_r50_in1k_200"):
        get("cwrgp4_r50")
    with pytest.raises(ValueError, match=r"called 'xyz'; there are cwrgp4_r50_in1k_100ep, "):
        fetch("xyz")
    with pytest.raises(ValueError, match="called 'moco_v2_r50_in1k_300ep'; did you mean moco_v2"):
        local_file("cwrgp://moco_v2_r50_in1k_300ep")


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CWRGP_CACHE", raising=False)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    assert cache_dir() == tmp_path / "iopath" / "cwrgp"
    monkeypatch.setenv("CWRGP_CACHE", "~/chosen")
    assert cache_dir() == Path.home() / "chosen"


def test_a_file_is_fetched_once(server: FileServer, moco: bytes) -> None:
    rows = table(server)
    path = fetch("tiny", rows)
    assert path == cache_dir() / "tiny.pth"
    assert path.read_bytes() == moco
    assert recorded_digest(path) == file_digest(path)
    assert names() == ["tiny.pth", "tiny.pth.sha256"]
    assert fetch("tiny", rows) == path
    assert len(server.asked) == 1
    fetch("tiny", rows, force=True)
    assert len(server.asked) == 2


def test_a_file_in_the_cache_without_a_record_is_checked(server: FileServer, moco: bytes) -> None:
    cache_dir().mkdir()
    (cache_dir() / "tiny.pth").write_bytes(moco)  # killed before the record, or put there by hand
    fetch("tiny", table(server))
    assert server.asked == []
    assert names() == ["tiny.pth", "tiny.pth.sha256"]
    (cache_dir() / "tiny.pth.sha256").unlink()
    (cache_dir() / "tiny.pth").write_bytes(moco[:-1000])
    with pytest.raises(ValueError, match="tiny.pth.tar is not tiny .*damaged or cut off"):
        fetch("tiny", table(server))
    assert names() == []


def test_a_damaged_file_in_the_cache_is_fetched_again(
    server: FileServer, moco: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rows = table(server)
    path = fetch("tiny", rows)
    content = bytearray(moco)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        fetch("tiny", rows)
    assert path.read_bytes() == moco
    assert f"{path} has changed since it was downloaded" in caplog.text
    path.unlink()
    fetch("tiny", rows)
    assert path.read_bytes() == moco


def test_another_file_than_at_the_first_download(
    server: FileServer, moco: bytes, tmp_path: Path
) -> None:
    rows = table(server)
    path = fetch("tiny", rows)
    torch.save({"state_dict": under("module.encoder_q.", make_encoder(18, 2))}, tmp_path / "other")
    server.files["/tiny.pth.tar"] = (tmp_path / "other").read_bytes()
    with pytest.raises(ValueError, match="is another file than at the first download .* remove "):
        fetch("tiny", rows, force=True)
    assert names() == ["tiny.pth.sha256"]
    record_file(path).unlink()
    fetch("tiny", rows)
    assert path.read_bytes() == server.files["/tiny.pth.tar"]


def test_files_that_are_not_what_the_table_says(server: FileServer, tmp_path: Path) -> None:
    rows = table(server, source="cwrgp-ddp")
    with pytest.raises(ValueError, match=r"tiny.pth.tar is not tiny \(.*cwrgp-ddp"):
        fetch("tiny", rows)
    with pytest.raises(ValueError, match="is not tiny: it holds a resnet18, not a resnet50"):
        fetch("tiny", table(server, arch="resnet50"))
    with pytest.raises(ValueError, match="published is 00000000"):
        fetch("tiny", table(server, digest="md5:00000000"))
    server.files["/tiny.pth.tar"] = b"<html><title>Sorry</title></html>"
    with pytest.raises(ValueError, match="gives a web page, not the file"):
        fetch("tiny", table(server))
    server.files["/tiny.pth.tar"] = b"anything"
    with pytest.raises(ValueError, match="is not tiny .*is not a checkpoint"):
        fetch("tiny", table(server))
    assert names() == []


def test_no_network(server: FileServer) -> None:
    rows = table(server, url=f"http://127.0.0.1:{closed_port()}/tiny.pth")
    with pytest.raises(ConnectionError, match="no connection to 127.0.0.1"):
        fetch("tiny", rows)


def test_a_mirror(
    server: FileServer, moco: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = table(server, url="", drive_id="ID")
    monkeypatch.setenv("CWRGP_ZOO_MIRROR", f"{server.url}/mirror/")
    path = fetch("tiny", rows)
    assert path.read_bytes() == moco
    assert server.asked == [("/mirror/tiny.pth", None)]

    folder = tmp_path / "mirror"
    monkeypatch.setenv("CWRGP_ZOO_MIRROR", str(folder))
    with pytest.raises(FileNotFoundError, match="no such file; CWRGP_ZOO_MIRROR is"):
        fetch("tiny", rows, force=True)
    folder.mkdir()
    (folder / "tiny.pth").write_bytes(moco)
    fetch("tiny", rows)
    assert path.read_bytes() == moco
    assert (folder / "tiny.pth").is_file()
    assert len(server.asked) == 1
    with pytest.raises(ValueError, match="published is 00000000"):
        fetch("tiny", table(server, digest="md5:00000000"), force=True)
    assert names() == ["tiny.pth.sha256"]


def test_the_reader_takes_a_name(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The original, under a name of the real table: as any probe reads it."""
    encoder = make_encoder(50)
    torch.save({"state_dict": under("module.model.", encoder)}, tmp_path / "file.pth")
    server.files["/mirror/cwrgp4_r50_in1k_100ep.pth"] = (tmp_path / "file.pth").read_bytes()
    monkeypatch.setenv("CWRGP_ZOO_MIRROR", f"{server.url}/mirror")
    found = extract_encoder(read_checkpoint("cwrgp://cwrgp4_r50_in1k_100ep"))
    assert (found.arch, found.source) == ("resnet50", "cwrgp-ddp")
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in found.state_dict.items())
    assert local_file("cwrgp://cwrgp4_r50_in1k_100ep").parent == cache_dir()
