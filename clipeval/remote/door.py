"""Files by their address, of the hub or of any other server."""

from __future__ import annotations

from pathlib import Path

from clipeval.errors import AbsentError, DataError, RemoteError
from clipeval.remote import copies, hub
from clipeval.remote.hub import Repository, Snapshot
from clipeval.remote.origin import on_hub


def of_hub(url: str) -> tuple[Repository, str] | None:
    """The repository and the path in it that an address of the hub names; None for one of another server."""
    if (place := on_hub(url)) is None:
        return None
    kind, name, revision, path = place
    return Repository("dataset" if kind == "dataset" else "model", name, revision), path


def fetch(url: str, *, offline: bool, optional: bool = False, of: Snapshot | None = None) -> Path | None:
    """The file at ``url`` on this machine: at the hub that of the commit of this run (``of``, see ``snapshot_of``),
    elsewhere what is there now.

    None when ``optional`` and there is no such file, or offline and it is not here. Raises DataError when it cannot be
    had, UsageError for what is no URL and StoreError when it cannot be kept.
    """
    if (place := of_hub(url)) is None:
        return copies.fetch(url, offline=offline, optional=optional)
    repository, path = place
    try:
        found = of if of and of.repository == repository else hub.snapshot(repository, (path,), offline=offline)
        if optional and (found.offline or found.remark):  # nobody can say whether there is one
            return found.local(path)
        return found.file(path)
    except AbsentError as error:
        if optional:
            return None
        raise DataError(str(error)) from error
    except RemoteError as error:
        raise DataError(str(error)) from error


def snapshot_of(url: str, *, offline: bool) -> Snapshot | None:
    """The commit that files below ``url`` come from; None where it is no address of the hub. Raises DataError."""
    if (place := of_hub(url)) is None:
        return None
    try:
        return hub.snapshot(place[0], (place[1],), offline=offline)
    except RemoteError as error:
        raise DataError(str(error)) from error
