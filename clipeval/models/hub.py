"""Checkpoints and the files beside them, as repositories of the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from clipeval.errors import ModelError, RemoteError
from clipeval.remote import hub
from clipeval.remote.hub import Repository, Snapshot
from clipeval.remote.libraries import kept_offline


def snapshot(
    repository: Repository, wanted: Sequence[str], wanted_by: str, *, offline: bool, own: Snapshot | None = None
) -> Snapshot:
    """The commit of ``repository`` that this run measures; ``own`` where that is the checkpoint's own repository.

    Raises ModelError.
    """
    if own is not None and (own.repository.kind, own.repository.name) == (repository.kind, repository.name):
        return own
    with as_model_errors(wanted_by):
        return hub.snapshot(repository, wanted, offline=offline)


@contextlib.contextmanager
def as_model_errors(wanted_by: str) -> Iterator[None]:
    """What cannot be had is an error of the model that wants it."""
    try:
        yield
    except RemoteError as error:
        raise ModelError(f"{wanted_by}: {error}") from error


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Inside, transformers fetches nothing from the hub by itself, and asks nobody whether to run code of a repository:
    the answer is no."""
    from transformers import dynamic_module_utils as remote_code

    before, remote_code.TIME_OUT_REMOTE_CODE = remote_code.TIME_OUT_REMOTE_CODE, 0
    try:
        with kept_offline():
            yield
    finally:
        remote_code.TIME_OUT_REMOTE_CODE = before
