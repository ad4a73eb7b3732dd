"""Files of the Hugging Face hub. The one room of ``models`` that reaches a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipeval.errors import ModelError, first_line


def fetch(repository: str, files: tuple[str, ...], wanted_by: str, *, offline: bool) -> Path:
    """The first of ``files`` that a hub repository has; a copy on this machine is taken as it is.

    Raises ModelError.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def attempt(file: str, local: bool) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file, local_files_only=local))
        except LocalEntryNotFoundError as error:
            if local:
                return None
            raise _unreachable(f"'{file}'", repository, wanted_by) from error
        except EntryNotFoundError:
            return None
        except Exception as error:  # of several libraries below huggingface_hub
            raise _refused(f"'{file}'", repository, wanted_by, error) from error

    named = " or ".join(f"'{file}'" for file in files)
    for local in (True,) if offline else (True, False):
        for file in files:
            if path := attempt(file, local):
                return path
    if offline:
        raise _not_here(named, repository, wanted_by)
    raise ModelError(f"{wanted_by}: hub repository '{repository}' has no file {named}.")


def folder(repository: str, patterns: Sequence[str], needed: Sequence[str], wanted_by: str, *, offline: bool) -> Path:
    """A folder with the files of a hub repository that match ``patterns``; a copy on this machine is taken as it is if
    one of its files matches ``needed``. Raises ModelError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    what = "a tokenizer"
    for local in (True,) if offline else (True, False):
        try:
            found = Path(snapshot_download(repository, allow_patterns=list(patterns), local_files_only=local))
        except LocalEntryNotFoundError as error:
            if local:
                continue
            raise _unreachable(what, repository, wanted_by) from error
        except Exception as error:
            raise _refused(what, repository, wanted_by, error) from error
        if any(path for pattern in needed for path in found.glob(pattern)):
            return found
    if offline:
        raise _not_here(what, repository, wanted_by)
    raise ModelError(f"{wanted_by}: hub repository '{repository}' holds no tokenizer.")


def _unreachable(what: str, repository: str, wanted_by: str) -> ModelError:
    return ModelError(
        f"{wanted_by}: cannot reach the hub for {what} of repository '{repository}', and it is not on this "
        "machine. Check the network, or download the file elsewhere and give its path."
    )


def _refused(what: str, repository: str, wanted_by: str, error: Exception) -> ModelError:
    return ModelError(f"{wanted_by}: cannot fetch {what} of repository '{repository}': {first_line(error):.300}")


def _not_here(what: str, repository: str, wanted_by: str) -> ModelError:
    return ModelError(
        f"{wanted_by}: {what} of hub repository '{repository}' is not on this machine, and nothing is downloaded "
        "now (--offline or --plan). A run with a network gets it."
    )


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Inside, transformers fetches nothing from the hub by itself, and asks nobody whether to run code of a repository:
    the answer is no."""
    from huggingface_hub import constants
    from transformers import dynamic_module_utils as remote_code

    before = constants.HF_HUB_OFFLINE, remote_code.TIME_OUT_REMOTE_CODE
    constants.HF_HUB_OFFLINE, remote_code.TIME_OUT_REMOTE_CODE = True, 0
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, remote_code.TIME_OUT_REMOTE_CODE = before
