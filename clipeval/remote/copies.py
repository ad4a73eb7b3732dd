"""Remote files, kept in the cache folder and treated as local ones; whether they changed is asked once per run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clipeval import digest, tar
from clipeval.console import say
from clipeval.errors import DataError, NotHereError, StoreError, UsageError
from clipeval.files import write_atomically, write_json
from clipeval.paths import cache_dir
from clipeval.remote import later
from clipeval.remote.origin import is_offline, on_hub, public
from clipeval.remote.transfer import Version, from_server

_TEXT_LIMIT = 64 << 20
"""Bytes of an optional file: those are small texts."""
_RESERVE = 1 << 28
"""Bytes of a disk that a file of unknown size leaves free."""
_NAME_LIMIT = 150
_ABSENT = {"absent": True}
"""What is noted of an optional file that the server does not have."""

_checked: set[str] = set()
"""What was fetched or asked for in this run."""
_away: set[str] = set()
"""Servers that could not be asked, and are not asked again in this run for what is here."""


_unreachable: dict[str, str] = {}
"""Servers to which there was no connection, with what was said of that; they are not asked again in this run."""
_silent: set[str] = set()
"""Servers that tell neither ETag nor date of a file, which was said."""


def begin() -> None:
    """A new run: what is here is asked about once more, and servers that were away are tried."""
    for known in (_checked, _away, _unreachable):
        known.clear()


def is_remote(reference: str) -> bool:
    """Whether a reference is a URL rather than a path."""
    return "://" in reference


def ask(url: str) -> Version:
    """What the server says of a file now. Raises FileNotFoundError when there is none, DataError, UsageError."""
    if _must_not_be_asked(url):
        if (copy := _copy(local_path(url))) is None:
            raise NotHereError(f"{public(url)} is not in the cache, and nothing is downloaded now (HF_HUB_OFFLINE).")
        return copy
    with contextlib.closing(from_server(url, None, body=False)) as items:
        version: Version = next(items)
        return version


def fetch(url: str, *, offline: bool, optional: bool = False, quiet: bool = False) -> Path | None:
    """The local copy of ``url``: what the server has now, asked once per run. Offline what was fetched before.

    A copy is whole or absent: it is written beside its place, compared with the size that the server said, and then
    renamed. Beside it lies what the server said and the digest, so that a changed or damaged copy is fetched anew.
    Where the server cannot be asked, the copy is used, and that is said.

    ``quiet``: of what is fetched nothing is said. None when ``optional`` and the server has no such file, or offline
    and it is not here. Raises UsageError for what is no URL, DataError when the file cannot be had and StoreError when
    it cannot be written.
    """
    offline = offline or _must_not_be_asked(url)
    target, host = local_path(url), _host(url)
    copy = _copy(target)
    if offline and copy is None and not optional:
        damaged = f"damaged in the cache ({target})" if target.exists() else f"not in the cache ({target})"
        why = "HF_HUB_OFFLINE" if _must_not_be_asked(url) else "--offline or --plan"
        raise NotHereError(f"{public(url)} is {damaged} and nothing is downloaded now ({why}).")
    known = copy is not None or (optional and _is_known_to_be_absent(target))
    if not offline and copy is None and not optional and not _path(url).endswith(".txt"):
        later.require_now(public(url), None, partial(fetch, url, offline=False))
    if not offline and not known and host in _unreachable:
        raise DataError(f"{public(url)}: not asked for, as the server was away before: {_unreachable[host]}")
    if not offline and not (known and (url in _checked or host in _away)):
        try:
            _refresh(url, target, copy, optional, quiet or optional)
            _checked.add(url)
            return target
        except FileNotFoundError as error:
            if not optional:
                raise DataError(f"{public(url)}: there is no such file. Check the spelling.") from error
            target.unlink(missing_ok=True)
            write_json(_origin(target), _ABSENT)
            _checked.add(url)
            return None
        except NotHereError:
            raise
        except DataError as error:
            if not known:
                cause = error.__cause__  # no answer at all, as against one that breaks off
                if type(cause).__module__.startswith("requests") and getattr(cause, "response", None) is None:
                    _unreachable[host] = str(error)
                raise
            _away.add(host)
            say(f"{error} What is here of {host} is used; whether it has changed is unknown.")
    return None if copy is None else target


def local_path(url: str) -> Path:
    """Where the copy of ``url`` belongs. Files of one remote folder lie in one local folder."""
    address, *secrets = re.split(r"[?#]", url, maxsplit=1)
    folder, _, name = address.rpartition("/")
    if name.startswith(".") or len(os.fsencode(name)) > _NAME_LIMIT or "\0" in name:
        name = digest.of_value(name)[:32] + Path(name[-8:]).suffix
    key = digest.of_value([folder, *secrets] if secrets else folder)
    return cache_dir() / "shards" / key[:32] / (name or "index")


def _must_not_be_asked(url: str) -> bool:
    return is_offline() and on_hub(url) is not None


def _copy(target: Path) -> Version | None:
    """What the server said of the copy at ``target``; None when there is none, or a damaged one."""
    try:
        size = target.stat().st_size
    except OSError:
        return None
    try:
        origin = json.loads(_origin(target).read_bytes())
        if origin.pop("sha256") == digest.of_file(target):
            return Version(**origin)
    except FileNotFoundError:
        return Version(size, None, None)  # of an older version of clipeval
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        pass
    return None


def _is_known_to_be_absent(target: Path) -> bool:
    try:
        return bool(json.loads(_origin(target).read_bytes()) == _ABSENT)
    except (OSError, ValueError):
        return False


def _origin(target: Path) -> Path:
    return target.with_name(f".{target.name}.origin.json")


def _refresh(url: str, target: Path, copy: Version | None, optional: bool, quiet: bool) -> None:
    """Have at ``target`` what the server has; what arrives with another digest than the announced one is fetched a
    second time. Raises FileNotFoundError, DataError and StoreError."""
    try:
        _refresh_once(url, target, copy, optional, quiet)
    except _Damaged as error:
        say(f"{error} It is fetched again.")
        _refresh_once(url, target, None, optional, quiet)


class WebPage(DataError):
    """The server sent a web page and not the file."""


def is_web_page(start: bytes) -> bool:
    """Whether a file that begins so is HTML."""
    return re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html", start[:1000], re.IGNORECASE) is not None


class _Damaged(DataError):
    """What arrived is not what the hub has announced."""


def _refresh_once(url: str, target: Path, copy: Version | None, optional: bool, quiet: bool) -> None:
    with contextlib.closing(from_server(url, copy)) as items:
        version: Version = next(items)
        if copy is not None and version.is_as(copy):
            if not _origin(target).exists():
                _note(target, version, digest.of_file(target))
            if version.etag is None and version.modified is None and _host(url) not in _silent:
                _silent.add(_host(url))
                say(
                    f"{public(url)}: the copy in the cache is used, as are others of {_host(url)}: the server tells "
                    f"sizes only, so a change may be missed. To fetch anew, delete {target.parent}."
                )
            return
        later.require_now(public(url), version.size, partial(fetch, url, offline=False, optional=optional, quiet=quiet))
        if not quiet:
            say(f"downloading {public(url)}{'' if copy is None else ': it changed on the server'}")
        found = ""

        def fill(temporary: Path) -> None:
            nonlocal found
            limit = version.size if version.size is not None else _room(temporary.parent)
            found = _write(url, items, temporary, min(limit, _TEXT_LIMIT) if optional else limit)
            _check(url, temporary, version, found)

        try:
            _origin(target).unlink(missing_ok=True)
            write_atomically(target, fill)
            _note(target, version, found)  # of what was written: another process may put the same in its place by now
        except (OSError, StoreError) as error:
            reason = getattr(error.__cause__ or error, "strerror", None) or error
            raise StoreError(f"{target}: cannot keep {public(url)}: {reason}.") from error


def _note(target: Path, version: Version, found: str) -> None:
    write_json(_origin(target), asdict(version) | {"sha256": found})


def _room(folder: Path) -> int:
    return max(0, shutil.disk_usage(folder).free - _RESERVE)


def _write(url: str, pieces: Iterator[Any], path: Path, limit: int) -> str:
    """The SHA-256 of what was written."""
    written, found = 0, hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            if not written and is_web_page(piece):
                raise WebPage(f"{public(url)}: the server sent a web page and not the file. Is a login needed?")
            written += len(piece)
            if written > limit:
                raise DataError(f"{public(url)}: the server sends more than {limit:,} bytes. Check the address.")
            file.write(piece)
            found.update(piece)
    return found.hexdigest()


def _check(url: str, path: Path, version: Version, found: str) -> None:
    """Raise DataError unless the body is whole: as long as was said, or, where nothing was said, as its format ends."""
    size, expected = path.stat().st_size, version.size
    broke = "the connection broke. Run it again."
    if expected is not None and size != expected:
        raise DataError(f"{public(url)}: received {size:,} of {expected:,} bytes: {broke}")
    if version.digest is not None and found != version.digest:
        raise _Damaged(
            f"{public(url)} arrived damaged: the hub announces the digest {version.digest}, what came has {found}."
        )
    if expected is None and _path(url).endswith(".tar"):
        try:
            for _ in tar.members(path):
                pass
        except tar.Damaged as error:
            raise DataError(f"{public(url)}: received {size:,} bytes, truncated {error}: {broke}") from error
    if expected is None and _path(url).endswith(".parquet"):
        with path.open("rb") as file:
            file.seek(-min(4, size), os.SEEK_END)
            if file.read() != b"PAR1":
                raise DataError(f"{public(url)}: received {size:,} bytes, which do not end as a table does: {broke}")


def _path(url: str) -> str:
    return re.split(r"[?#]", url)[0]


def _host(url: str) -> str:
    """The server of a URL, without user and password. Raises UsageError for what is no URL."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError as error:
        raise UsageError(f"'{public(url)}' is not a URL: {error}.") from error
