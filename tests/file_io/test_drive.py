"""Downloads over https: from a stand-in for Google Drive, and never over http instead."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import CONTENT, ETAG, names
from file_server import FileServer, closed_port, serving

from cwrgp.errors import MissingPackage
from cwrgp.file_io.download import download
from cwrgp.file_io.drive import download_drive


def test_drive_without_gdown(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)  # as if it were not installed
    with pytest.raises(MissingPackage, match="/file/d/ID needs gdown, .* pip install gdown"):
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
