"""Digests of files: their form, and the record beside a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from downloads import CONTENT, SHA256

from cwrgp.file_io.digest import check_digest, fits, is_intact, record_digest, recorded_digest


@pytest.mark.parametrize("digest", ["md5:123", "sha1:12345678", "12345678", "md5:1234567G"])
def test_a_digest_of_the_wrong_form(tmp_path: Path, digest: str) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(ValueError, match=f"digest '{digest}': write md5:HEX"):
        fits(tmp_path / "f", digest)


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
