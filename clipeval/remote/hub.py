"""Files of the Hugging Face hub: one commit of a repository, whose files are fetched once and compared with the digest
that the hub has announced. They lie where the hub's own programs keep them, each in one copy."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from clipeval import digest
from clipeval.console import say
from clipeval.errors import AbsentError, NotHereError, RemoteError, StoreError, few, foreign
from clipeval.files import write_text
from clipeval.paths import cache_dir
from clipeval.regular import read_regular
from clipeval.remote import blobs, client, reasons
from clipeval.remote.client import Announced
from clipeval.remote.origin import endpoint, is_offline

_COMMIT = re.compile("[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_REVISION = re.compile(r"(?!/|.*(\.\.|//|/$|[^/]{201}))[^\s\x00-\x1f\x7f~^:?*\[\\]{0,1000}")
_LONGEST_LISTING = 1 << 26
_LONGEST_NAME = 200
_SILENCE = 2
"""Seconds after which a person is told whom the program waits for."""


@dataclass(frozen=True)
class Repository:
    """A repository of the hub. ``revision`` is a branch, a tag or a commit; empty: ``main``."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str = ""

    @property
    def page(self) -> str:
        """Where people read of it."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @property
    def folder(self) -> Path:
        """Where the hub's programs keep it on this machine."""
        return client.storage(self.kind, self.name)

    def __str__(self) -> str:
        return f"hub repository '{self.name}'" + (f" at '{self.revision}'" if self.revision else "")


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, with the same files whenever they are asked for.

    ``remark`` says why it may not be the newest. Raises RemoteError for what cannot be had, AbsentError for what is not
    there.
    """

    repository: Repository
    commit: str
    offline: bool
    remark: str = ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """``remark``, where there is one."""
        return (self.remark,) if self.remark else ()

    @property
    def folder(self) -> Path:
        """Where its files are, as far as they are on this machine."""
        return self.repository.folder / "snapshots" / self.commit

    def local(self, path: str) -> Path | None:
        """A file that is on this machine. One that is not what the hub has announced is fetched again, or an error."""
        place = self._place(path)
        if not place.is_file():
            return None
        if blobs.is_whole(place):
            return place
        if self.offline:
            raise RemoteError(f"{place} is damaged: its content is not what the hub has announced. Delete it.")
        say(f"{place} is damaged and fetched again")
        blobs.discard(place)
        return None

    def announced(self, path: str) -> Announced:
        """What the hub says of a file, asked once."""
        if self.offline:
            raise _not_here(self.repository, (path,))
        known: dict[str, Announced | None] = self._known
        if path not in known:
            known[path] = _asked(self.repository, self.commit, path).file
        if (found := known[path]) is None:
            raise AbsentError(f"{self.repository} has no file '{path}'.")
        return found

    def file(self, path: str) -> Path:
        """A file on this machine, fetched where it is not."""
        if found := self.local(path):
            return found
        announced = self.announced(path)
        with foreign(partial(reasons.of, page=self.repository.page, repository=str(self.repository), path=path)):
            return blobs.fetch(announced, self._place(path), f"{path} of {self.repository.name}")

    def first(self, paths: Sequence[str]) -> str:
        """The first of ``paths`` that is on this machine, else the first that the repository has."""
        if here := next((path for path in paths if self.local(path)), None):
            return here
        for path in paths:
            try:
                self.announced(path)
                return path
            except AbsentError:
                continue
        raise AbsentError(f"{self.repository} has no file {' or '.join(map(repr, paths))}.")

    def sha256(self, path: str) -> str | None:
        """The digest of a file's content, where the hub has announced one; nothing is fetched."""
        place = self.local(path)
        name = blobs.digest_of_place(place) if place else self.announced(path).etag
        return name if re.fullmatch("[0-9a-f]{64}", name) else None

    def paths(self) -> list[str]:
        """All its files. Offline those that are here, where the list was never asked for."""
        place = (
            cache_dir() / "hub" / f"{digest.of_value([self.repository.kind, self.repository.name, self.commit])}.txt"
        )
        with contextlib.suppress(OSError, ValueError):
            return read_regular(place, _LONGEST_LISTING).decode().split("\n")
        if self.offline:
            found = (path for path in self.folder.rglob("*") if path.is_file())
            return sorted(path.relative_to(self.folder).as_posix() for path in found)
        with foreign(partial(reasons.of, page=self.repository.page, repository=str(self.repository), path="")):
            found_paths = sorted(client.listing(self.repository.kind, self.repository.name, self.commit))
        for path in found_paths:
            self._place(path)
        write_text(place, "\n".join(found_paths))
        return found_paths

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Those of ``paths`` that match one of ``patterns``; ``*`` stays within a folder."""
        return [
            path
            for path in self.paths()
            if any(fnmatch.fnmatchcase(path, p) and path.count("/") == p.count("/") for p in patterns)
        ]

    @cached_property
    def _known(self) -> dict[str, Announced | None]:
        return {}

    def _place(self, path: str) -> Path:
        parts = path.split("/")
        if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts) or re.search(
            r"[\\\x00-\x1f]", path
        ):
            raise AbsentError(f"{self.repository} has no file '{path:.200}'.")
        return self.folder.joinpath(*parts)


_snapshots: dict[Repository, Snapshot] = {}
_away: dict[str, str] = {}
"""Endpoints that could not be reached, with the reason."""
_waited_for: set[str] = set()
_lock = threading.RLock()


def begin() -> None:
    """A new run: repositories are asked for their newest commit once more, and hosts that were away are tried."""
    with _lock:
        _waited_for.clear()
        _snapshots.clear()
        _away.clear()
        blobs.fetched.clear()


def snapshot(repository: Repository, wanted: Sequence[str], *, offline: bool) -> Snapshot:
    """The commit that ``repository.revision`` names now, asked once per run.

    Where the hub cannot be asked, the newest commit on this machine that has one of the ``wanted`` files, with a
    remark; ``offline`` the same, without one. Raises RemoteError.
    """
    if offline or is_offline():
        return _resolved(repository, wanted, offline=True)
    with _lock:
        if repository not in _snapshots:
            _snapshots[repository] = _resolved(repository, wanted, offline=False)
        return _snapshots[repository]


def _resolved(repository: Repository, wanted: Sequence[str], offline: bool) -> Snapshot:
    if not _NAME.fullmatch(repository.name) or ".." in repository.name or len(repository.name) > _LONGEST_NAME:
        raise RemoteError(f"'{repository.name:.200}' is not the name of a hub repository (ORG/NAME).")
    if not _REVISION.fullmatch(repository.revision):
        raise AbsentError(f"{repository!s:.300}: that is no name of a branch, tag or commit.")
    if _COMMIT.fullmatch(repository.revision):
        return Snapshot(repository, repository.revision, offline)
    if offline:
        if commit := _newest_here(repository, wanted):
            return Snapshot(repository, commit, offline)
        raise _not_here(repository, wanted)
    try:
        answer = _asked(repository, repository.revision or "main", wanted[0])
    except AbsentError:  # no such revision
        raise
    except RemoteError as error:
        if commit := _newest_here(repository, wanted):
            remark = (
                f"{repository}: the hub could not be asked for the newest commit, so the newest one on this machine is "
                f"used ({commit[:12]}): {error}"
            )
            return Snapshot(repository, commit, offline, remark)
        raise
    _note(repository, answer.commit)
    found = Snapshot(repository, answer.commit, offline)
    found._known[wanted[0]] = answer.file
    return found


def _asked(repository: Repository, revision: str, path: str) -> client.Answer:
    with _lock:
        if reason := _away.get(endpoint()):
            raise RemoteError(f"{path} of {repository}: {reason}")

    def told(error: Exception) -> RemoteError:
        if reasons.is_away(error):
            with _lock:
                _away[endpoint()] = reasons.away(error)
        return reasons.of(error, repository.page, str(repository), path)

    with foreign(told), _told(f"waiting for {endpoint()}"):
        return client.ask(repository.kind, repository.name, revision, path)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Says ``what`` once per run, where it takes its time."""

    def tell() -> None:
        if what not in _waited_for:
            _waited_for.add(what)
            say(what)

    timer = threading.Timer(_SILENCE, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _not_here(repository: Repository, paths: Sequence[str]) -> NotHereError:
    others = [name for name in _refs(repository) if name != (repository.revision or "main")]
    hint = f" On this machine it is at {few(map(repr, others))}." if others else ""
    return NotHereError(
        f"{' or '.join(map(repr, paths))} of {repository} is not on this machine, and nothing is downloaded now "
        f"(--offline, HF_HUB_OFFLINE or --plan). A run with a network gets it.{hint}"
    )


def _newest_here(repository: Repository, wanted: Sequence[str]) -> str | None:
    """The newest commit on this machine with a ``wanted`` file, else with any. The commits of other branches and tags
    are none of ``main``."""
    refs = _refs(repository)
    commits = [refs.pop(repository.revision or "main", "")]
    if repository.revision in ("", "main"):
        there = [path for path in (repository.folder / "snapshots").glob("*") if path.name not in refs.values()]
        commits += [path.name for path in sorted(there, key=lambda path: path.stat().st_mtime_ns, reverse=True)]
    folders = [repository.folder / "snapshots" / commit for commit in commits if _COMMIT.fullmatch(commit)]
    found = [folder.name for folder in folders if any((folder / path).is_file() for path in wanted)]
    found += [folder.name for folder in folders if any(folder.glob("*"))]
    return next(iter(found), None)


def _refs(repository: Repository) -> dict[str, str]:
    """The branches and tags that this machine knows, with their commits."""
    folder = repository.folder / "refs"
    found = {}
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError, ValueError):
            found[path.relative_to(folder).as_posix()] = read_regular(path, 100).decode().strip()
    return found


def _note(repository: Repository, commit: str) -> None:
    """For offline runs, and for the hub's own programs. A cache that others keep may not be written to."""
    with contextlib.suppress(OSError, StoreError):
        write_text(repository.folder / "refs" / (repository.revision or "main"), commit)
