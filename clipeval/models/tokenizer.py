"""Tokenizers: what they are made of, and how they are made without anything in their files being run."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import ModelError, first_line, foreign
from clipeval.models import hub, library, rules, schema, small_files
from clipeval.models.small_files import VOCABULARIES, SmallFiles
from clipeval.remote.hub import Repository, Snapshot

_FILES = ("config.json", *small_files.TOKENIZER, *VOCABULARIES)


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer that is not made yet: that of ``open_clip``, or one of ``transformers``, made of ``files``."""

    kind: str
    settings: dict[str, Any]
    files: SmallFiles

    @property
    def digest(self) -> str:
        """The digest of all that decides which tokens a text has."""
        return digest.of_value([self.kind, self.settings, self.files.digests])

    def make(self) -> Any:
        """The tokenizer: called with texts, it gives ``[n, context_length]`` int64. Raises ModelError, also when a file
        is no longer the one that ``files`` says."""
        with foreign(lambda e: ModelError(f"{self.files.wanted_by}: cannot get the tokenizer: {first_line(e):.300}")):
            if self.kind == "open_clip":
                return library.simple_tokenizer(**self.settings)
            return self._of_transformers()  # its files can make transformers raise anything

    def _of_transformers(self) -> Any:
        folder = self.files.copied()
        try:
            made = library.transformers_tokenizer(folder, self.settings)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)  # some read their vocabulary again in workers
        return made


def of(
    text_cfg: dict[str, Any], wanted_by: str, *, folder: Path | None, own: Snapshot | None = None, offline: bool
) -> Tokenizer:
    """The tokenizer that open_clip's ``text_cfg`` asks for, its files fetched where needed and ``offline`` allows.

    ``folder`` holds those of a checkpoint that comes with its own, ``own`` is where a checkpoint of the hub comes from.
    Raises ModelError when they are not to be had or
    would run code, and for settings other than ``schema.TOKENIZER``.
    """
    given = text_cfg.get("tokenizer_kwargs") or {}
    rules.check(given, schema.TOKENIZER, f"{wanted_by}: text_cfg.tokenizer_kwargs")
    settings = {"context_length": text_cfg.get("context_length", 77), **given}
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        vocabulary = library.simple_vocabulary()
        files = {vocabulary.name: digest.of_file(vocabulary)}
        return Tokenizer("open_clip", settings, SmallFiles(vocabulary.parent, files, wanted_by))
    settings["tokenizer_mode"] = text_cfg.get("tokenizer_mode")
    if folder is None:
        folder = Path(name)
    if not folder.is_dir():
        folder = _from_hub(Repository("model", name), wanted_by, own, offline)
    require_vocabulary(folder, wanted_by)
    return Tokenizer("transformers", settings, small_files.of(folder, _FILES, wanted_by))


def require_vocabulary(folder: Path, wanted_by: str) -> None:
    """Raises ModelError for a folder without the vocabulary of a tokenizer."""
    if not any(True for pattern in VOCABULARIES for _ in folder.glob(pattern)):
        raise ModelError(f"{wanted_by}: the folder '{folder}' holds no tokenizer: none of {', '.join(VOCABULARIES)}.")


def _from_hub(repository: Repository, wanted_by: str, own: Snapshot | None, offline: bool) -> Path:
    """A folder with the tokenizer's files."""
    names = tuple(name for name in VOCABULARIES if "*" not in name)
    found = hub.snapshot(repository, names, wanted_by, offline=offline, own=own)
    with hub.as_model_errors(wanted_by):
        for path in found.matching(_FILES):
            found.file(path)
    return found.folder
