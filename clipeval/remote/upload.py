"""What goes up to the hub: files of one commit, by huggingface_hub's own calls, to the endpoint only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from clipeval.errors import AbsentError, RemoteError, UsageError, foreign
from clipeval.remote import client, hub, reasons
from clipeval.remote.hub import Repository
from clipeval.remote.origin import endpoint, is_offline, may_have_token
from clipeval.version import __version__


class Upload:
    """A repository that files are committed to; made where it is not there. Raises UsageError where nothing may go up,
    RemoteError for what the hub refuses."""

    def __init__(self, repository: Repository, *, private: bool = False) -> None:
        from huggingface_hub import HfApi, get_token

        if is_offline():
            raise UsageError("HF_HUB_OFFLINE is set: nothing is uploaded. Unset it, or leave out --yes.")
        if not may_have_token(endpoint()):
            raise UsageError(f"{endpoint()}: a token goes over https only, and nothing is uploaded without one.")
        if (token := get_token()) is None:
            raise UsageError("uploading needs a token that may write: set HF_TOKEN, or run: hf auth login")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it logs holds signed addresses
        self.repository = repository
        self._api = HfApi(endpoint=endpoint(), token=token, library_name="clipeval", library_version=__version__)
        with foreign(self._told):
            self._api.create_repo(
                repository.name, repo_type=repository.kind, private=True if private else None, exist_ok=True
            )
        hub.begin()
        self._snapshot = hub.snapshot(repository, ("README.md",), offline=False)
        if self._snapshot.remark:
            raise RemoteError(self._snapshot.remark)

    def text(self, path: str) -> str | None:
        """A file of the repository as it is now; None where it has none."""
        try:
            return self._snapshot.file(path).read_text("utf-8")
        except AbsentError:
            return None

    def commit(self, files: Mapping[str, bytes], message: str) -> str:
        """Put ``files`` there as one commit, unless somebody else has put others there since; its address."""
        from huggingface_hub import CommitOperationAdd

        with foreign(self._told):
            done = self._api.create_commit(
                self.repository.name,
                [CommitOperationAdd(path, data) for path, data in files.items()],
                commit_message=message,
                repo_type=self.repository.kind,
                parent_commit=self._snapshot.commit,
            )
        return str(done.commit_url)

    def _told(self, error: Exception) -> RemoteError:
        while client.status_of(error) is None and isinstance(error.__cause__, Exception):
            error = error.__cause__  # of a file that did not go up only the cause says why
        status, repository = client.status_of(error), self.repository
        if status == 403:
            return RemoteError(f"{repository}: this HF_TOKEN may not write there ({reasons.said(error)}).")
        if status == 412:
            return RemoteError(f"{repository} has changed meanwhile. The same command again takes that in.")
        return partial(reasons.of, page=repository.page, repository=str(repository), path="")(error)
