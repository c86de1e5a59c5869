"""Downloads from a real server that misbehaves, of a real Drive's double, and the digests."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, closed_port, serving

from cwrgp.file_io.digest import check_digest, fits, is_intact, record_digest, recorded_digest
from cwrgp.file_io.download import download
from cwrgp.file_io.drive import download_drive

CONTENT = bytes(range(256)) * 1200  # 300 kB, some blocks
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
ETAG = {"ETag": '"one"'}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves CONTENT as /f.pth."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as served:
        served.files["/f.pth"] = CONTENT
        yield served


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "f.pth"


def names(target: Path) -> list[str]:
    """What stands in its folder, apart from locks."""
    return sorted(p.name for p in target.parent.iterdir() if p.suffix != ".lock")


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


@pytest.mark.parametrize("digest", ["md5:123", "sha1:12345678", "12345678", "md5:1234567G"])
def test_a_digest_of_the_wrong_form(tmp_path: Path, digest: str) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(ValueError, match=f"digest '{digest}': write md5:HEX"):
        fits(tmp_path / "f", digest)


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


def test_a_recorded_digest(tmp_path: Path) -> None:
    path = tmp_path / "f.pth"
    path.write_bytes(CONTENT)
    assert recorded_digest(path) is None
    assert not is_intact(path)
    assert record_digest(path) == recorded_digest(path) == SHA256
    assert is_intact(path)
    subprocess.run(["sha256sum", "-c", "f.pth.sha256"], cwd=tmp_path, check=True)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert not is_intact(path)
    check_digest(path, None, "x")
    path.unlink()
    assert not is_intact(path)


def test_drive_without_gdown(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)  # as if it were not installed
    with pytest.raises(OSError, match="/file/d/ID needs gdown, .* pip install gdown"):
        download_drive("ID", target)


def test_drive_without_network(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(OSError, match="no connection to Google Drive") as caught:
        download_drive("ID", target, retries=0)
    assert "\n" not in str(caught.value)
    assert names(target) == []


@pytest.fixture
def https(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """Takes the place of drive.google.com, as a proxy with a certificate that is trusted."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=drive.google.com"
    command += f" -addext subjectAltName=DNS:drive.google.com -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(tunnel=context) as served:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, served.url)
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, os.fspath(certificate))
        yield served


def test_https_stays_https(https: FileServer, server: FileServer, target: Path) -> None:
    https.files["/f.pth"] = CONTENT
    download("https://drive.google.com/f.pth", target)
    assert target.read_bytes() == CONTENT
    https.redirects["/away"] = f"{server.url}/f.pth"
    with pytest.raises(OSError, match="leads to http://127.0.0.1:.* is not encrypted: refused"):
        download("https://drive.google.com/away", target.with_name("g.pth"))
    assert names(target) == ["f.pth"]


@pytest.fixture
def drive(https: FileServer) -> FileServer:
    """Answers what gdown asks for."""
    https.headers["/uc?id=ID"] = {
        "Content-Disposition": 'attachment; filename="checkpoint.pth"',
        "Content-Type": "application/octet-stream",
        **ETAG,
    }
    https.files["/uc?id=ID"] = CONTENT * 4
    return https


def test_drive_gives_the_file(drive: FileServer, target: Path) -> None:
    drive.cuts = [700_000]  # gdown keeps whole blocks of 512 KiB
    download_drive("ID", target)
    assert target.read_bytes() == CONTENT * 4
    assert names(target) == ["f.pth"]
    assert [wanted is None for _, wanted in drive.asked] == [True, False]
    assert drive.sent < 700_000 + len(CONTENT * 4)
    download_drive("ID", target)
    assert len(drive.asked) == 2


def test_what_drive_gave_is_kept_for_the_next_call(drive: FileServer, target: Path) -> None:
    drive.cuts = [700_000]
    with pytest.raises(OSError, match="incomplete"):
        download_drive("ID", target, retries=0)
    assert not target.exists()
    download_drive("ID", target)
    assert target.read_bytes() == CONTENT * 4
    assert drive.asked[0][1] is None
    assert drive.asked[-1][1] is not None
    assert names(target) == ["f.pth"]


def test_drive_gives_a_page(drive: FileServer, target: Path) -> None:
    drive.headers["/uc?id=ID"] = {"Content-Type": "text/html; charset=utf-8"}
    quota = "Too many users have viewed or downloaded this file recently."
    drive.files["/uc?id=ID"] = f'<html><p class="uc-error-subcaption">{quota}</p></html>'.encode()
    with pytest.raises(OSError, match=r"refuses the download \(.*Too many users") as caught:
        download_drive("ID", target)
    assert "\n" not in str(caught.value)
    drive.headers["/uc?id=ID"] |= {"Content-Disposition": "attachment; filename=x"}
    drive.files["/uc?id=ID"] = b"<html><title>Sign in</title></html>"
    with pytest.raises(ValueError, match=r"/file/d/ID gives a web page, not the file \(its title"):
        download_drive("ID", target)
    assert names(target) == []
