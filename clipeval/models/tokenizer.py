"""Tokenizers: what they are made of, and how they are made without anything in their files being run."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import ModelError, first_line, foreign
from clipeval.models import hub, library, schema
from clipeval.regular import read_regular
from clipeval.remote.hub import Repository, Snapshot

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken")
_CONFIGURATIONS = ("config.json", "tokenizer_config.json")
_FILES = (*_CONFIGURATIONS, *_VOCABULARIES, "merges.txt", "special_tokens_map.json", "added_tokens.json")
_FILE_BYTES = 1 << 28


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer that is not made yet: that of ``open_clip``, or one of ``transformers``.

    ``files`` are the SHA-256 of all files it is made of, by their names in ``folder``. ``wanted_by`` is the model's
    name in messages.
    """

    kind: str
    settings: dict[str, Any]
    folder: Path
    files: dict[str, str]
    wanted_by: str

    @property
    def digest(self) -> str:
        """The digest of all that decides which tokens a text has."""
        return digest.of_value([self.kind, self.settings, self.files])

    def make(self) -> Any:
        """The tokenizer: called with texts, it gives ``[n, context_length]`` int64. Raises ModelError, also when a file
        is no longer the one that ``files`` says."""
        with foreign(lambda e: ModelError(f"{self.wanted_by}: cannot get the tokenizer: {first_line(e):.300}")):
            if self.kind == "open_clip":
                return library.simple_tokenizer(**self.settings)
            return self._of_transformers()  # its files can make transformers raise anything

    def _of_transformers(self) -> Any:
        """From a folder of its own, that holds the files of this tokenizer and nothing else: what is read is what was
        hashed, and neither code nor pickles lie beside it."""
        folder = Path(tempfile.mkdtemp(prefix="clipeval-tokenizer-"))
        try:
            for name, expected in self.files.items():
                (folder / name).write_bytes(self._content(name, expected))
            made = library.transformers_tokenizer(folder, self.settings)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)  # some read their vocabulary again in workers
        return made

    def _content(self, name: str, expected: str) -> bytes:
        path = self.folder / name
        data = _read(path, self.wanted_by)
        if hashlib.sha256(data).hexdigest() != expected:
            raise ModelError(f"{self.wanted_by}: '{path}' changed while the model was loaded. Run it again.")
        if name not in _CONFIGURATIONS:
            return data
        config = schema.read_json_text(data, path)
        schema.refuse_code(config, path)
        # paths that were true where the tokenizer was written: here they would name other files
        return json.dumps({key: value for key, value in config.items() if not key.endswith("_file")}).encode()


def of(
    text_cfg: dict[str, Any], wanted_by: str, *, folder: Path | None, own: Snapshot | None = None, offline: bool
) -> Tokenizer:
    """The tokenizer that open_clip's ``text_cfg`` asks for, its files fetched where needed and ``offline`` allows.

    ``folder`` holds those of a checkpoint that comes with its own, ``own`` is where a checkpoint of the hub comes from.
    Raises ModelError when they are not to be had or
    would run code, and for settings other than ``schema.TOKENIZER``.
    """
    given = text_cfg.get("tokenizer_kwargs") or {}
    schema.check(given, schema.TOKENIZER, f"{wanted_by}: text_cfg.tokenizer_kwargs")
    settings = {"context_length": text_cfg.get("context_length", 77), **given}
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        vocabulary = library.simple_vocabulary()
        files = {vocabulary.name: digest.of_file(vocabulary)}
        return Tokenizer("open_clip", settings, vocabulary.parent, files, wanted_by)
    settings["tokenizer_mode"] = text_cfg.get("tokenizer_mode")
    if folder is None:
        folder = Path(name)
    if not folder.is_dir():
        folder = _from_hub(Repository("model", name), wanted_by, own, offline)
    if not any(True for pattern in _VOCABULARIES for _ in folder.glob(pattern)):
        raise ModelError(f"{wanted_by}: the folder '{folder}' holds no tokenizer: none of {', '.join(_VOCABULARIES)}.")
    found = sorted({path.name for pattern in _FILES for path in folder.glob(pattern)})
    files = {}
    for file in found:
        data = _read(folder / file, wanted_by)
        if file in _CONFIGURATIONS:
            schema.refuse_code(schema.read_json_text(data, folder / file), folder / file)
        files[file] = hashlib.sha256(data).hexdigest()
    return Tokenizer("transformers", settings, folder, files, wanted_by)


def _from_hub(repository: Repository, wanted_by: str, own: Snapshot | None, offline: bool) -> Path:
    """A folder with the tokenizer's files."""
    names = tuple(name for name in _VOCABULARIES if "*" not in name)
    found = hub.snapshot(repository, names, wanted_by, offline=offline, own=own)
    with hub.as_model_errors(wanted_by):
        for path in found.matching(_FILES):
            found.file(path)
    return found.folder


def _read(path: Path, wanted_by: str) -> bytes:
    try:
        return read_regular(path, _FILE_BYTES)
    except OSError as error:
        raise ModelError(f"{wanted_by}: '{path}' cannot be read: {error.strerror or error}.") from error
