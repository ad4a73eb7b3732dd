"""Remote files, downloaded once into the cache folder and then treated as local ones."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from clipeval import digest
from clipeval.console import say
from clipeval.errors import DataError, StoreError
from clipeval.paths import cache_dir

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60


def is_remote(reference: str) -> bool:
    """Whether a reference is a URL rather than a path."""
    return "://" in reference


def fetch(url: str, *, offline: bool, optional: bool = False) -> Path | None:
    """The local copy of ``url``, downloaded when there is none yet.

    A copy is complete or absent: it is written beside its place, its size is compared with what the server said, and
    then it is renamed. None when ``optional`` and the server has no such file, or offline and it is not here. Raises
    DataError when the file cannot be had and StoreError when it cannot be written.
    """
    target = local_path(url)
    if target.exists():
        return target
    if offline:
        if optional:
            return None
        raise DataError(f"{url} is not in the cache ({target}) and nothing is downloaded now (--offline or --plan).")
    if not optional:
        say(f"downloading {url}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            part = Path(folder) / "part"
            expected = _copy(url, part)
            size = part.stat().st_size
            if expected is not None and size != expected:
                raise DataError(f"{url}: received {size:,} of {expected:,} bytes: the connection broke. Run it again.")
            part.replace(target)
    except FileNotFoundError as error:
        if optional:
            return None
        raise DataError(f"{url}: there is no such file. Check the spelling.") from error
    except OSError as error:
        raise StoreError(f"{target}: cannot keep {url}: {error.strerror or error}.") from error
    return target


def local_path(url: str) -> Path:
    """Where the copy of ``url`` belongs. Files of one remote folder lie in one local folder."""
    folder, _, name = url.rpartition("/")
    return cache_dir() / "shards" / digest.of_value(folder)[:32] / (name or "index")


def _copy(url: str, target: Path) -> int | None:
    """Write the content of ``url`` to ``target`` and return its size as the server states it.

    Raises FileNotFoundError when there is no such file and DataError when the server cannot be reached or refuses.
    """
    with target.open("wb") as file:
        return _copy_http(url, file) if urlsplit(url).scheme.startswith("http") else _copy_filesystem(url, file)


def _copy_http(url: str, file: IO[bytes]) -> int | None:
    import requests

    with _unreachable(url, requests.RequestException):
        response = requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS, headers=_headers(url))
        with response:
            if response.status_code in (404, 410):
                raise FileNotFoundError(url)
            response.raise_for_status()
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
            encoded = response.headers.get("Content-Encoding", "identity") != "identity"
            length = response.headers.get("Content-Length")
            return int(length) if length and not encoded else None


def _copy_filesystem(url: str, file: IO[bytes]) -> int | None:
    import fsspec

    with _unreachable(url, Exception):
        filesystem, path = fsspec.core.url_to_fs(url)
        with filesystem.open(path, "rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                file.write(chunk)
        size = filesystem.info(path).get("size")
        return None if size is None else int(size)


def _headers(url: str) -> dict[str, str]:
    if urlsplit(url).hostname != "huggingface.co":
        return {}
    from huggingface_hub.utils import build_hf_headers

    return dict(build_hf_headers())


@contextmanager
def _unreachable(url: str, kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except kind as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{url}: the download failed: {type(error).__name__}: {error}. What is complete is kept: run it again."
        ) from error
