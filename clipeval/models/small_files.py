"""Configurations and vocabularies of transformers: copied to a folder of their own, so that what is read is what was
hashed, and neither code nor pickles lie beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipeval.errors import ModelError
from clipeval.models import bounds, rules
from clipeval.regular import read_regular

TOKENIZER = ("tokenizer_config.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken")
_CONFIGURATIONS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_FILE_BYTES = 1 << 28


@dataclass(frozen=True)
class SmallFiles:
    """Files in ``folder`` with their SHA-256 by name. ``wanted_by`` is the model's name in messages."""

    folder: Path
    digests: dict[str, str]
    wanted_by: str

    def copied(self) -> Path:
        """A new temporary folder with these files alone, and no path that leads out of it. Raises ModelError when a
        file is no longer the one that ``digests`` says, or names code."""
        copy = Path(tempfile.mkdtemp(prefix="clipeval-files-"))
        try:
            for name, expected in self.digests.items():
                (copy / name).write_bytes(self._content(name, expected))
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        return copy

    def _content(self, name: str, expected: str) -> bytes:
        path = self.folder / name
        data = _read(path, self.wanted_by)
        if hashlib.sha256(data).hexdigest() != expected:
            raise ModelError(f"{self.wanted_by}: '{path}' changed while the model was loaded. Run it again.")
        if name not in _CONFIGURATIONS:
            return data
        config = rules.read_json_text(data, path)
        bounds.refuse_code(config, path)
        # paths that were true where the tokenizer was written: here they would name other files
        return json.dumps({key: value for key, value in config.items() if not key.endswith("_file")}).encode()


def of(folder: Path, patterns: Sequence[str], wanted_by: str) -> SmallFiles:
    """The files in ``folder`` that match one of ``patterns``. Raises ModelError for one that cannot be read or names
    code to run."""
    digests = {}
    for name in sorted({path.name for pattern in patterns for path in folder.glob(pattern)}):
        data = _read(folder / name, wanted_by)
        if name in _CONFIGURATIONS:
            bounds.refuse_code(rules.read_json_text(data, folder / name), folder / name)
        digests[name] = hashlib.sha256(data).hexdigest()
    return SmallFiles(folder, digests, wanted_by)


def _read(path: Path, wanted_by: str) -> bytes:
    try:
        return read_regular(path, _FILE_BYTES)
    except OSError as error:
        raise ModelError(f"{wanted_by}: '{path}' cannot be read: {error.strerror or error}.") from error
