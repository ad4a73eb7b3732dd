"""A checkpoint whose weights are found: where they lie, what their digest is, and whether they still are the same."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import ModelError
from clipeval.identity import CheckpointIdentity
from clipeval.models import hub, zoo
from clipeval.models.base import ModelInfo, PixelRecords
from clipeval.models.spec import ModelSpec
from clipeval.remote import blobs
from clipeval.remote.hub import Snapshot


@dataclass(frozen=True)
class Opened(ABC):
    """One checkpoint whose weights are the files ``names`` on this machine, or in a ``snapshot`` of the hub; those are
    fetched when they are first needed. ``offline``: nothing else of it is fetched either.

    Its properties raise ModelError when what they need cannot be had or read.
    """

    spec: ModelSpec
    names: tuple[str, ...]
    offline: bool
    snapshot: Snapshot | None = None

    @property
    @abstractmethod
    def identity(self) -> CheckpointIdentity:
        """What decides the embeddings, by content."""

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """The facts; ``spec.overrides`` win."""

    @property
    @abstractmethod
    def pixels(self) -> PixelRecords:
        """What it sees of an image."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was guessed about it, a sentence each. They decide nothing."""
        guessed = (self.spec.guess,) if self.spec.guess else ()
        return (*guessed, *(self.snapshot.remarks if self.snapshot else ()))

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The weights on this machine, fetched where they are not."""
        if self.snapshot is None:
            return tuple(map(Path, self.names))
        with hub.as_model_errors(self.spec.name):
            return tuple(map(self.snapshot.file, self.names))

    @cached_property
    def stamps(self) -> tuple[tuple[int, int, int, int], ...]:
        """Of the files when they were opened: see ``digest.stamp``."""
        try:
            return tuple(map(digest.stamp, self.paths))
        except OSError as error:
            where = error.filename or self.names[0]
            raise ModelError(f"{self.spec.name}: '{where}' cannot be read: {error.strerror or error}.") from error

    @property
    def is_here(self) -> bool:
        """Whether the weights are on this machine."""
        if self.snapshot is None:
            return True
        with hub.as_model_errors(self.spec.name):
            return all(self.snapshot.local(name) is not None for name in self.names)

    @property
    def revision(self) -> str:
        """The commit of the hub's repository that it is of; empty for other files."""
        return self.snapshot.commit if self.snapshot else ""

    @cached_property
    def sha256(self) -> str:
        """The digest of the weights file, as the hub announces it where they are not here yet; of several files that of
        all their digests in order."""
        found = [self._sha256(number) for number in range(len(self.names))]
        return found[0] if len(found) == 1 else digest.of_value(found)

    def _sha256(self, number: int) -> str:
        if self.snapshot is not None:
            with hub.as_model_errors(self.spec.name):
                if announced := self.snapshot.sha256(self.names[number]):
                    return announced
        try:
            return digest.of_file(self.paths[number])
        except OSError as error:
            raise ModelError(f"{self.paths[number]}: cannot be read: {error.strerror or error}.") from error

    @property
    def file(self) -> tuple[Path, str]:
        """Which files on this machine its weights are, here or not: the folder that they belong to, and their
        digest."""
        return (self.snapshot.repository.folder if self.snapshot else Path(self.names[0])), self.sha256

    def remove_fetched(self) -> None:
        """Remove the weights from this machine where this run has fetched them."""
        if self.snapshot is not None:
            blobs.remove([self.snapshot.folder / name for name in self.names])
            for known in ("paths", "stamps"):
                vars(self).pop(known, None)

    def require_unchanged(self) -> None:
        """Raises ModelError unless the files still are those whose digest is in ``identity``.

        To be asked after what was read of them has been copied: the pages of a mapped file are those of the present
        file.
        """
        try:
            unchanged = tuple(map(digest.stamp, self.paths)) == self.stamps
            found = [digest.of_file(path) for path in self.paths] if unchanged else []
        except OSError:
            found = []
        if (found[0] if len(found) == 1 else digest.of_value(found)) != self.sha256:
            where = f"'{self.paths[0]}'" if len(self.paths) == 1 else f"a file of '{self.paths[0].parent}'"
            raise ModelError(
                f"{self.spec.name}: {where} changed since it was opened. Run it again when it is written whole."
            )


def with_overrides(found: ModelInfo, opened: Opened) -> ModelInfo:
    """Facts under the checkpoint's own name, with what the configuration says of it.

    Facts that are of another source no longer go: of what is said to be trained on other data, the size is not known; a
    number that is given is not from the paper.
    """
    given = dict(opened.spec.overrides)
    facts: dict[str, Any] = {"model": opened.spec.name, "pretrained": opened.spec.pretrained}
    facts["checkpoint_sha256"] = opened.sha256
    if "source" in given:
        facts |= {"source_family": zoo.family(given["source"]), "unique_samples": math.nan, "mixture": ""}
    if "samples_seen" in given:
        facts |= {"samples_seen_from": "card"}
    found = ModelInfo(**{**vars(found), **facts, **given})
    return ModelInfo(**{**vars(found), "gmacs_total": found.gmacs * found.samples_seen})
