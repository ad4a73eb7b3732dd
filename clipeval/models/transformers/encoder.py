"""From a checkpoint of transformers to an encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from clipeval import precision as precisions
from clipeval.errors import ModelError, first_line, foreign
from clipeval.models import assembly, stream, weights
from clipeval.models.base import Tokenized
from clipeval.models.compiling import Compiler
from clipeval.models.transformers import library
from clipeval.models.transformers.checkpoint import TransformersCheckpoint

_NO_TOKEN = -1


def load(checkpoint: TransformersCheckpoint, *, device: str, precision: str) -> TransformersEncoder:
    """Load a checkpoint for inference on ``device``, with weights in fp32 whatever they are stored in, which
    ``bf16-weights`` then rounds.

    Raises ModelError when the weights are unsafe, broken, not those of the model in config.json, or no longer those
    that were opened; MemoryError where there is no room.
    """
    where = str(checkpoint.paths[0] if len(checkpoint.paths) == 1 else checkpoint.paths[0].parent)
    tensors: dict[str, torch.Tensor] = {}
    for path in checkpoint.paths:
        content = weights.read(path)
        named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
        if not named or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise ModelError(f"{path}: not a dictionary of tensors by name, as weights files of transformers are.")
        tensors |= assembly.own_copies(content, path)
    _check_size(checkpoint, tensors, where)
    model, unused = library.loaded(checkpoint.pieces.config, checkpoint.kind, tensors, where)
    del tensors
    checkpoint.require_unchanged()
    with foreign(lambda e: ModelError(f"{checkpoint.spec.name}: cannot be moved to '{device}': {first_line(e):.300}")):
        model = model.to(device, precisions.weights_dtype(precision))
    return TransformersEncoder(checkpoint, model, unused, device, precision)


def _check_size(checkpoint: TransformersCheckpoint, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Before room is made for what the configuration describes."""
    described = library.empty(checkpoint.pieces.config, checkpoint.kind).state_dict()
    held = sum(tensor.numel() for tensor in tensors.values())
    if (count := sum(tensor.numel() for tensor in described.values())) > 2 * held:
        raise ModelError(
            f"{where}: config.json describes {count:,} weights, but there are {held:,}. They do not belong together."
        )


class TransformersEncoder:
    """A two-tower model of transformers; ``base.Encoder`` says what its attributes and methods mean."""

    def __init__(
        self, checkpoint: TransformersCheckpoint, model: Any, unused: list[str], device: str, precision: str
    ) -> None:
        self.info, self.identity = checkpoint.info, checkpoint.identity
        self.device, self.precision = device, precision
        self.remarks = (f"{len(unused)} tensors of its weights are not used, as '{unused[0]}'",) if unused else ()
        self.pixels = checkpoint.images.pixels
        self.record_shape = checkpoint.images.record_shape
        self.pixel_settings = checkpoint.images.pixel_settings
        self.context_length = library.text_length(checkpoint.pieces, checkpoint.kind)
        self._images, self._kind = checkpoint.images, checkpoint.kind
        self._scaled = checkpoint.images.scaling(device)
        self._tokenizer = checkpoint.pieces.tokenizer
        self._text = checkpoint.pieces.config.text_config
        self._model, self._dtype = model, precisions.weights_dtype(precision)
        self._code = Compiler(self.info.model, checkpoint.spec.compiled)
        self.embed_dim = len(self.encode_tokens(self.tokenize(["a"]))[0])

    @property
    def model(self) -> Any:
        """The model of transformers."""
        return self._model

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[n, *record_shape]`` uint8 -> ``[n, embed_dim]`` float32 on the device."""
        with self._computing():
            inputs = self._images.inputs(stream.sent(pixels, self.device), self._scaled)
            inputs["pixel_values"] = inputs["pixel_values"].to(self._dtype)
            embeddings = library.feature(self._code(self._model.get_image_features)(**inputs)).float()
        if embeddings.shape[1] != self.embed_dim:
            raise ModelError(
                f"{self.info.model}: its images have {embeddings.shape[1]} numbers, its texts {self.embed_dim}: they "
                "cannot be compared."
            )
        return embeddings

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """``[n, L]`` int64 on the CPU, L the longest of ``texts``, or the context length where the tower was trained
        so; ``-1`` where a mask hides a pad. Raises ModelError for a token that the model does not have."""
        made = self._tokens(texts, padding="max_length" if self._kind.whole else True, truncation=True)
        tokens = torch.tensor(made["input_ids"], dtype=torch.long).reshape(len(texts), -1)
        if tokens.numel() and (highest := int(tokens.max())) >= self._text.vocab_size:
            raise ModelError(
                f"{self.info.model}: its tokenizer gives token {highest}, but its text tower has "
                f"{self._text.vocab_size}. They do not belong together."
            )
        if self._kind.whole:
            return tokens
        return tokens.masked_fill(torch.tensor(made["attention_mask"]).reshape(tokens.shape) == 0, _NO_TOKEN)

    def tokenized(self, texts: list[str]) -> Tokenized:
        """``texts`` as ``tokenize`` makes them, a batch cut to its longest text where pads are hidden on the right."""
        tokens = self.tokenize(texts)
        on_the_right = self._tokenizer.padding_side == "right"
        lengths = (tokens != _NO_TOKEN).sum(1).numpy() if on_the_right else np.full(len(tokens), tokens.shape[1])
        return Tokenized(lengths, lambda rows: self.encode_tokens(tokens[rows][:, : int(lengths[rows].max())]))

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, L]`` int64 as of ``tokenize`` -> ``[n, embed_dim]`` float32 on the device."""
        with self._computing():
            tokens = stream.sent(tokens, self.device)
            encode = self._code(self._model.get_text_features, axes=2)
            if self._kind.whole:
                return library.feature(encode(input_ids=tokens)).float()
            seen = tokens != _NO_TOKEN
            # position ids of RoBERTa tell pads by the number that the configuration gives them
            tokens = tokens.masked_fill(~seen, self._text.pad_token_id if self._kind.offset else self._pad)
            mask = {"attention_mask": seen.long()}
            return library.feature(encode(input_ids=tokens, **mask)).float()

    def are_cut(self, texts: list[str]) -> np.ndarray:
        """``[n]`` bool: which texts have more tokens than the context holds."""
        if not texts:
            return np.zeros(0, dtype=bool)
        whole = self._tokens(texts, padding=False, truncation=False)["input_ids"]
        return np.array([len(ids) > self.context_length for ids in whole])

    @property
    def _pad(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    def _tokens(self, texts: list[str], **how: Any) -> Any:
        # it is what its files say, and may lack what it needs
        with foreign(lambda error: ModelError(f"{self.info.model}: its tokenizer fails: {first_line(error):.300}")):
            return self._tokenizer(texts, max_length=self.context_length, verbose=False, **how)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        # its configuration may describe what does not fit together
        with (
            foreign(lambda error: ModelError(f"{self.info.model}: its model fails: {first_line(error):.300}")),
            precisions.computing(self.precision, self.device),
        ):
            yield
