"""Downloads from a real server that misbehaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from downloads import CONTENT, ETAG, MD5, SHA256, names
from file_server import FileServer, closed_port

from cwrgp.file_io.download import download


@pytest.mark.parametrize("digest", [None, f"md5:{MD5[:8]}", f"sha256:{SHA256}"])
def test_a_whole_download(server: FileServer, target: Path, digest: str | None) -> None:
    assert download(f"{server.url}/f.pth", target, digest=digest) == target
    assert target.read_bytes() == CONTENT
    assert names(target) == ["f.pth"]
    download(f"{server.url}/f.pth", str(target), digest=digest)
    assert server.asked == [("/f.pth", None)]  # the second found it there


def test_a_file_with_another_digest_is_downloaded_again(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    download(f"{server.url}/f.pth", target, digest=f"md5:{MD5[:8]}")
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("mark", [ETAG, {"Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}])
@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_download_is_gone_on_with(
    server: FileServer, target: Path, mark: dict[str, str], reset: bool
) -> None:
    server.headers["/f.pth"] = mark
    server.cuts, server.reset = [200_000, 50_000, None], reset
    download(f"{server.url}/f.pth", target, wait=0)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 3
    if not reset:  # an error on the way may take what was sent with it
        assert [wanted for _, wanted in server.asked] == [None, "bytes=200000-", "bytes=250000-"]
        assert server.sent == len(CONTENT)


def test_what_arrived_is_kept_for_the_next_call(server: FileServer, target: Path) -> None:
    server.headers["/f.pth"] = ETAG
    server.cuts = [100_000, 100_000]
    with pytest.raises(ConnectionError, match=r"not complete after 2 attempts .* 200000 bytes are"):
        download(f"{server.url}/f.pth", target, attempts=2, wait=0)
    assert not target.exists()
    download(f"{server.url}/f.pth", target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == ("/f.pth", "bytes=200000-")
    assert server.sent == len(CONTENT)
    assert names(target) == ["f.pth"]


def test_a_server_without_ranges_starts_over(server: FileServer, target: Path) -> None:
    server.headers["/f.pth"] = ETAG
    server.cuts, server.ranges = [100_000], False
    download(f"{server.url}/f.pth", target, wait=0)
    assert target.read_bytes() == CONTENT
    assert server.sent == 100_000 + len(CONTENT)


def test_two_versions_are_never_mixed(server: FileServer, target: Path) -> None:
    server.headers["/f.pth"] = ETAG
    server.cuts = [100_000]
    with pytest.raises(ConnectionError):
        download(f"{server.url}/f.pth", target, attempts=1)
    server.headers["/f.pth"] = {"ETag": '"two"'}
    server.files["/f.pth"] = other = CONTENT[::-1]
    download(f"{server.url}/f.pth", target)
    assert target.read_bytes() == other


@pytest.mark.parametrize(
    ("mark", "digest", "asked"),
    [
        ({}, None, None),  # nothing shows that it is the same file
        ({"ETag": 'W/"one"'}, None, None),  # the same meaning, not the same bytes
        ({}, f"sha256:{SHA256}", "bytes=100000-"),
    ],
)
def test_without_a_mark_only_a_known_digest_allows_to_go_on(
    server: FileServer, target: Path, mark: dict[str, str], digest: str | None, asked: str | None
) -> None:
    server.headers["/f.pth"] = mark
    server.cuts = [100_000]
    download(f"{server.url}/f.pth", target, digest=digest, wait=0)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == ("/f.pth", asked)


def test_the_part_of_another_address_is_not_gone_on_with(server: FileServer, target: Path) -> None:
    server.files["/other.pth"] = CONTENT[::-1]
    server.headers["/f.pth"] = server.headers["/other.pth"] = ETAG
    server.cuts = [100_000]
    with pytest.raises(ConnectionError):
        download(f"{server.url}/f.pth", target, attempts=1)
    download(f"{server.url}/other.pth", target)
    assert target.read_bytes() == CONTENT[::-1]


def leave_part(server: FileServer, target: Path, content: bytes) -> None:
    """As a killed process leaves it."""
    server.headers["/f.pth"] = ETAG
    server.cuts = [1000]
    with pytest.raises(ConnectionError):
        download(f"{server.url}/f.pth", target, attempts=1)
    target.with_name("f.pth.part").write_bytes(content)


@pytest.mark.parametrize(
    ("left", "sent"), [(CONTENT, 0), (CONTENT + b"more", len(CONTENT))], ids=["whole", "too long"]
)
def test_a_part_that_leaves_nothing_to_ask_for(
    server: FileServer, target: Path, left: bytes, sent: int
) -> None:
    leave_part(server, target, left)
    server.sent = 0
    download(f"{server.url}/f.pth", target, wait=0)
    assert target.read_bytes() == CONTENT
    assert server.asked[1] == ("/f.pth", f"bytes={len(left)}-")  # answered with 416
    assert server.sent == sent


def test_a_wrong_digest_leaves_nothing(server: FileServer, target: Path) -> None:
    url, wrong = f"{server.url}/f.pth", "0" * 64
    with pytest.raises(ValueError, match=f"sha256 {SHA256}, published is {wrong}: it is damaged"):
        download(url, target, digest=f"sha256:{wrong}")
    assert names(target) == []
    with pytest.raises(ValueError, match=f"md5 {MD5}, published is 00000000"):
        download(url, target, digest="md5:00000000")


def test_redirects_are_followed_also_when_going_on(server: FileServer, target: Path) -> None:
    server.redirects = {"/a": "/b", "/b": f"{server.url}/f.pth"}
    server.headers["/f.pth"] = ETAG
    server.cuts = [100_000]
    download(f"{server.url}/a", target, wait=0)
    assert target.read_bytes() == CONTENT
    assert server.sent == len(CONTENT)
    server.redirects["/round"] = "/round"
    with pytest.raises(OSError, match="the server refuses"):
        download(f"{server.url}/round", target.with_name("g"))


PAGES = {
    b"<!DOCTYPE html><html><title>Sign\n in</title>": r"not the file \(its title: 'Sign in'\)$",
    b"\n <HTML>Too many users have viewed or downloaded": "used up; try again tomorrow$",
    b"<html><body>Google Drive - Quota exceeded": "used up; try again tomorrow$",
    b"<html>Google can't scan this file for viruses": "asks for a confirmation; fetch the file",
    b"<html></html>": "gives a web page, not the file$",
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_instead_of_a_file(server: FileServer, target: Path, page: bytes) -> None:
    server.files["/f.pth"] = page
    with pytest.raises(ValueError, match=PAGES[page]):
        download(f"{server.url}/f.pth", target)
    server.files["/f.pth"] = b"anything" + page
    server.headers["/f.pth"] = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(ValueError, match=PAGES[page]):
        download(f"{server.url}/f.pth", target)
    assert names(target) == []


def test_states_that_pass_and_states_that_stay(server: FileServer, target: Path) -> None:
    server.states = [503, 429]
    download(f"{server.url}/f.pth", target, wait=0)
    assert target.read_bytes() == CONTENT
    with pytest.raises(FileNotFoundError, match=r"/g.pth: no such file on the server \(HTTP 404"):
        download(f"{server.url}/g.pth", target.with_name("g.pth"))
    server.states = [403]
    with pytest.raises(OSError, match=r"the server refuses \(HTTP 403 Forbidden\)"):
        download(f"{server.url}/f.pth", target.with_name("g.pth"))
    server.states = [500, 500]
    with pytest.raises(ConnectionError, match=r"after 2 attempts \(the last: HTTP 500 .* 0 bytes"):
        download(f"{server.url}/f.pth", target.with_name("g.pth"), attempts=2, wait=0)
    assert names(target) == ["f.pth"]


def test_a_file_whose_length_nobody_knows(server: FileServer, target: Path) -> None:
    server.length = False
    with pytest.raises(OSError, match="does not say how long the file is: cannot be checked"):
        download(f"{server.url}/f.pth", target)
    download(f"{server.url}/f.pth", target, digest=f"md5:{MD5}")
    assert target.read_bytes() == CONTENT


def test_a_file_in_chunks(server: FileServer, target: Path) -> None:
    server.length = False
    server.headers["/f.pth"] = {"Transfer-Encoding": "chunked"}
    server.files["/f.pth"] = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT)
    server.cuts = [100_000]
    with pytest.raises(ConnectionError, match="not complete after 1 attempts .*IncompleteRead"):
        download(f"{server.url}/f.pth", target, attempts=1)
    download(f"{server.url}/f.pth", target)
    assert target.read_bytes() == CONTENT


def test_an_empty_file(server: FileServer, target: Path) -> None:
    server.files["/f.pth"] = b""
    with pytest.raises(OSError, match="sends an empty file"):
        download(f"{server.url}/f.pth", target)
    assert names(target) == []


def test_no_network(server: FileServer, target: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}/f.pth"
    with pytest.raises(ConnectionError, match="no connection to 127.0.0.1:.*is there a network"):
        download(url, target)
    with pytest.raises(ConnectionError, match="no connection to nowhere.invalid "):
        download("http://nowhere.invalid/f.pth", target)
    for url in ("file:///etc/passwd", "f.pth", "ftp://127.0.0.1/f.pth"):
        with pytest.raises(ValueError, match="is not a download address"):
            download(url, target)


PROCESS = """
import sys
from cwrgp.file_io.download import download
print("ready", flush=True)
download(sys.argv[1], sys.argv[2])
"""


@pytest.mark.dist
def test_two_processes_at_once(server: FileServer, target: Path) -> None:
    server.hold.clear()
    command = [sys.executable, "-c", PROCESS, f"{server.url}/f.pth", str(target)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    assert server.arrived.wait(120)
    server.hold.set()
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert target.read_bytes() == CONTENT
    assert server.asked == [("/f.pth", None)]
    assert names(target) == ["f.pth"]
