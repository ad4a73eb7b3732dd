"""Tokens of texts, made once per tokenizer: most checkpoints of a run have the same one, and the same texts."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_MOST = 1 << 26
"""Tokens that are kept of all tokenizers, of four bytes each; before there are more, all are forgotten."""


@dataclass
class _Kept:
    """What one tokenizer has made: the row of every text in ``tokens`` ``[n, L]`` int32."""

    rows: dict[str, int]
    tokens: np.ndarray


_kept: dict[tuple[str, int], _Kept] = {}
_lock = threading.Lock()


class Remembering:
    """A tokenizer whose tokens of a text are the same whatever texts it comes with, so that they can be kept.

    ``content`` is the digest of all that decides which tokens a text has (``tokenizer.Tokenizer.digest``).
    """

    def __init__(self, tokenizer: Any, content: str) -> None:
        self.context_length: int = tokenizer.context_length
        self._tokenizer, self._content = tokenizer, content

    def __call__(self, texts: list[str], context_length: int | None = None) -> torch.Tensor:
        """``[n, context_length]`` int64. Raises whatever the tokenizer raises."""
        import torch

        length = context_length or self.context_length
        with _lock:
            kept = self._kept(list(dict.fromkeys(texts)), length)
            return torch.from_numpy(kept.tokens[[kept.rows[text] for text in texts]].astype(np.int64))

    def _kept(self, texts: list[str], length: int) -> _Kept:
        """What is kept, with the tokens of ``texts``, which are unique."""
        nothing = _Kept({}, np.empty((0, length), np.int32))
        kept = _kept.get((self._content, length), nothing)
        new = [text for text in texts if text not in kept.rows]
        if new and sum(one.tokens.size for one in _kept.values()) + len(new) * length > _MOST:
            _kept.clear()
            kept, new = nothing, texts
        if new:
            made = self._tokenizer(new, context_length=length).numpy().astype(np.int32)
            rows = kept.rows | {text: len(kept.tokens) + number for number, text in enumerate(new)}
            kept = _kept[self._content, length] = _Kept(rows, np.concatenate([kept.tokens, made]))
        return kept
