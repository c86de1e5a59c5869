"""Downloads that end as a complete, checked file or as none; interrupted ones are resumed.

The received part is ``PATH.part``; ``PATH.part.json`` has its URL and version.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from iopath.common.file_io import file_lock
from tqdm import tqdm

from cwrgp.file_io.atomic import move_into_place, write_text
from cwrgp.file_io.digest import check_digest, fits

_BLOCK = 1 << 16  # bytes
_TIMEOUT = 60.0  # s without a byte, after which a connection counts as cut
_BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP states that may pass
_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


class _Cut(Exception):
    """The connection ended early; another attempt may resume it."""


def download(
    url: str, path: str | Path, *, digest: str | None = None, attempts: int = 5, wait: float = 1.0
) -> Path:
    """Downloads a file over HTTP; several processes may ask for the same one.

    Args:
        url: ``http://`` or ``https://``; redirects are followed.
        path: destination; an existing file is kept if its digest matches.
        digest: ``"md5:HEX"`` or ``"sha256:HEX"``, or the beginning of one, as publishers give it.
        attempts: how often the connection may be made, in all.
        wait: seconds before the second attempt; they double each time.

    Returns:
        ``path``.

    Raises:
        FileNotFoundError: the server has no such file.
        OSError: no connection, interrupted too often (the received part is kept for the next call),
            or the server refuses.
        ValueError: the download is a web page or has another digest; it is discarded.
    """
    path = Path(path)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is not a download address: it must begin with https://")
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(path)):
        if path.is_file() and (digest is None or fits(path, digest)):
            return path
        part = path.with_name(f"{path.name}.part")
        _fill(part, url, digest is not None, attempts, wait)
        try:
            check_digest(part, digest, url)
        except ValueError:
            _discard(part)
            raise
        move_into_place(part, path)
        _discard(part)
    return path


def is_web_page(start: bytes) -> bool:
    """Whether a file's first bytes are those of an HTML page."""
    return _PAGE.match(start) is not None


def refuse_page(start: bytes, origin: str, known: bool = False) -> None:
    """Raises ValueError if a file's first bytes are a web page's, or if it is known to be one."""
    if not known and not is_web_page(start):
        return
    text = start.decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    reason = f" (its title: {' '.join(title[1].split())[:80]!r})" if title else ""
    if re.search(r"quota|too many users", text, re.IGNORECASE):
        reason = ": the day's downloads of this file are used up; try again tomorrow"
    elif re.search(r"virus|download-form", text, re.IGNORECASE):
        reason = ": it asks for a confirmation; fetch the file with a browser"
    raise ValueError(f"{origin} gives a web page, not the file{reason}")


def _fill(part: Path, url: str, checked: bool, attempts: int, wait: float) -> None:
    """Completes the part file, connecting again when the connection is cut."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            return _go_on(part, url, checked)
        except _Cut as error:
            reason = error
    kept = part.stat().st_size if part.is_file() else 0
    raise ConnectionError(
        f"{url}: not complete after {attempts} attempts (the last: {reason}); {kept} bytes are"
        " kept, and the same command resumes from there"
    )


def _go_on(part: Path, url: str, checked: bool) -> None:
    """One connection: asks for what is missing and appends it."""
    offset, headers = _what_is_missing(part, url, checked)
    request, opener = Request(url, headers=headers), build_opener()  # with the proxies of now
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        return _refused(error, part, url, offset)
    except URLError as error:
        if isinstance(error.reason, TimeoutError | ConnectionResetError | ConnectionAbortedError):
            raise _Cut(str(error.reason)) from error
        raise ConnectionError(
            f"{url}: no connection to {urlsplit(url).netloc} ({error.reason}); is there a network?"
            " A proxy is named in https_proxy"
        ) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Cut(str(error) or type(error).__name__) from error
    with response:
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise OSError(f"{url} leads to {response.url}, which is not encrypted: refused")
        if response.status == 200:
            offset = 0  # also a server that knows no ranges, or has another version now
        elif response.status != 206 or _range(response.headers)[0] != offset or not offset:
            _discard(part)
            raise _Cut(f"HTTP {response.status} with another part than the requested one")
        total = _range(response.headers)[1] if offset else None
        if response.length is not None:
            total = offset + response.length
        if total is None and not response.chunked and not checked:
            raise OSError(f"{url}: the server does not say how long the file is: cannot be checked")
        if not offset:
            _discard(part)
            _remember(part, url, response.headers)
        _append(response, part, url, total)


def _refused(error: HTTPError, part: Path, url: str, offset: int) -> None:
    """Returns if the file is complete already, and raises otherwise."""
    with error:
        answer = f"HTTP {error.code} {error.reason}"
        if error.code == 416 and offset:
            if _range(error.headers)[1] == offset:
                return  # killed between the last byte and the new name
            _discard(part)
            raise _Cut(answer) from error
        if error.code in _BUSY:
            raise _Cut(answer) from error
        if error.code in (404, 410):
            raise FileNotFoundError(f"{url}: no such file on the server ({answer})") from error
        raise OSError(f"{url}: the server refuses ({answer})") from error


def _append(response: http.client.HTTPResponse, part: Path, url: str, total: int | None) -> None:
    offset = part.stat().st_size
    page = response.headers.get_content_type() in ("text/html", "application/xhtml+xml")
    show: dict[str, Any] = {"unit": "B", "unit_scale": True, "disable": None}  # on terminals only
    name = part.name.removesuffix(".part")
    with part.open("ab") as file, tqdm(desc=name, total=total, initial=offset, **show) as bar:
        first = not offset
        while block := _read(response):
            if page or first:
                try:
                    refuse_page(block, url, known=page)
                except ValueError:
                    _discard(part)
                    raise
            first = False
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if not size and not total:
        _discard(part)
        raise OSError(f"{url}: the server sends an empty file")
    if total is not None and size != total:
        raise _Cut(f"{size} of {total} bytes arrived")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_BLOCK)
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Cut(str(error) or type(error).__name__) from error


def _what_is_missing(part: Path, url: str, checked: bool) -> tuple[int, dict[str, str]]:
    """Bytes that are there, and the headers that ask for the rest.

    Bytes of two versions never come together unnoticed: without a mark of the version, only a file
    whose digest is known is resumed.
    """
    about = part.with_name(f"{part.name}.json")
    try:
        noted = json.loads(about.read_text(encoding="utf-8"))
        size = part.stat().st_size
    except (OSError, ValueError):
        return 0, {}
    version = noted.get("version")
    if noted.get("url") != url or not size or not (version or checked):
        return 0, {}
    return size, {"Range": f"bytes={size}-", **({"If-Range": version} if version else {})}


def _remember(part: Path, url: str, headers: Any) -> None:
    etag = headers.get("ETag", "")
    version = etag if etag.startswith('"') else headers.get("Last-Modified")  # W/ marks no bytes
    part.touch()
    about = part.with_name(f"{part.name}.json")
    write_text(about, json.dumps({"url": url, "version": version}))


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _range(headers: Any) -> tuple[int | None, int | None]:
    """First byte and size of the whole file, of a Content-Range header."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
    first, total = found.groups() if found else (None, None)
    return int(first) if first else None, int(total) if total and total != "*" else None
