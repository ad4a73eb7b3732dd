"""Encoders that a function returns (``functions``): checked, and brought into the shape of all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import digest
from clipeval.errors import ModelError, few, first_line
from clipeval.extensions import at_work
from clipeval.identity import CheckpointIdentity
from clipeval.models import functions
from clipeval.models.base import ORIGINS, ModelInfo, PixelRecords, Tokenized
from clipeval.models.opened import Opened, with_overrides
from clipeval.models.spec import ModelSpec
from clipeval.precision import FULL, exactness

if TYPE_CHECKING:
    import torch
    from PIL import Image

_ENCODER_VERSION = 1
"""Raised whenever the same encoder would be used in another way."""
_LARGEST = 1 << 28
_METHODS = ("pixels", "encode_images", "encode_texts")
_TEXTS = ("arch", "source", "source_family", "samples_seen_from")
_OURS = {"model", "pretrained", "checkpoint_sha256", "gmacs_total", "mixture"}
_FACTS = frozenset(f.name for f in fields(ModelInfo)) - _OURS
_kept: list[tuple[ModelSpec, Any]] = []
"""The encoder that was made last: a function is called once for a plan and its run, unless others come between."""


@dataclass(frozen=True)
class Own:
    """What a function returned: ``made``, whose attributes are checked here. ``whose`` names it in messages."""

    spec: ModelSpec
    made: Any
    whose: str

    @cached_property
    def text(self) -> str:
        """Its identity: the text that changes whenever its embeddings would."""
        found = self._attribute("identity")
        if not isinstance(found, str) or not found.strip():
            raise self._wrong("identity", found, "text that changes whenever its embeddings would")
        return found

    @cached_property
    def embed_dim(self) -> int:
        """The length of an embedding."""
        found = self._attribute("embed_dim")
        if not _is_count(found):
            raise self._wrong("embed_dim", found, "a number of at least 1")
        return int(found)

    @cached_property
    def record_shape(self) -> tuple[int, ...]:
        """The shape of one image's pixels."""
        found = self._attribute("record_shape")
        if not isinstance(found, tuple | list) or not found or not all(map(_is_count, found)):
            raise self._wrong("record_shape", found, "numbers of at least 1, as (224, 224, 3)")
        if math.prod(map(int, found)) > _LARGEST:
            raise self._wrong("record_shape", found, f"at most {_LARGEST:,} values")
        return tuple(map(int, found))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What it says of itself in ``facts``, a mapping of columns of the results table, if anything."""
        found = getattr(self.made, "facts", None) or {}
        if not isinstance(found, dict) or not set(found) <= _FACTS:
            raise self._wrong("facts", found, f"a mapping with some of {few(sorted(_FACTS), 30)}")
        origin = found.get("samples_seen_from", "")
        if origin not in (*ORIGINS, ""):
            raise self._wrong("facts['samples_seen_from']", origin, f"one of {', '.join(ORIGINS)}")
        return {key: str(value) if key in _TEXTS else value for key, value in found.items()}

    def function(self, name: str) -> Callable[..., Any]:
        """One of its methods. Raises ModelError where there is none."""
        found = self._attribute(name)
        if not callable(found):
            raise self._wrong(name, found, "a function")
        return found  # type: ignore[no-any-return]

    def told(self, what: str) -> AbstractContextManager[None]:
        """Errors of its code, while it does ``what``, as those of this checkpoint."""
        return at_work(
            lambda error: ModelError(
                f"{self.spec.name}: {self.whose} fails {what}: {type(error).__name__}: {first_line(error):.300}"
            )
        )

    def _attribute(self, name: str) -> Any:
        with self.told(f"to give `{name}`"):
            if not hasattr(self.made, name):
                raise ModelError(
                    f"{self.spec.name}: {self.whose} returns <{type(self.made).__name__}>, which has no `{name}`. An "
                    f"encoder has identity, embed_dim, record_shape, {', '.join(_METHODS)}."
                )
            return getattr(self.made, name)

    def _wrong(self, name: str, found: Any, expected: str) -> ModelError:
        return ModelError(f"{self.spec.name}: {self.whose}: `{name}` is {found!r:.80}; expected {expected}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1


class OwnCheckpoint(Opened):
    """The encoder of a function as a checkpoint, made once to be asked who it is."""

    @cached_property
    def own(self) -> Own:
        """The encoder."""
        return _made(self.spec)

    @cached_property
    def sha256(self) -> str:
        """The digest of the text that identifies it."""
        return digest.of_value(self.own.text)

    @cached_property
    def identity(self) -> CheckpointIdentity:
        """Of its own text, and of the function and its arguments."""
        return CheckpointIdentity(
            weights=self.sha256,
            model=digest.of_value([self.spec.pretrained, self.own.embed_dim]),
            preprocessing=digest.of_value(list(self.own.record_shape)),
            tokenizer="",
            encoder=f"clipeval {_ENCODER_VERSION}, a function",
        )

    @cached_property
    def pixels(self) -> PixelRecords:
        """What its function makes of an image, which is its own affair."""
        shape = self.own.record_shape
        settings = {"encoder": self.own.text, "function": self.spec.pretrained, "shape": list(shape)}
        return PixelRecords(shape, settings)

    @cached_property
    def info(self) -> ModelInfo:
        """What it says of itself; ``spec.overrides`` win."""
        with self.own.told("to give its facts"):
            return with_overrides(ModelInfo(self.spec.name, **self.own.facts), self)

    @property
    def file(self) -> Any:
        """No file: nothing is fetched, and nothing removed."""
        return self.spec.name, self.sha256


def opened(spec: ModelSpec, *, offline: bool) -> OwnCheckpoint:
    """The encoder that ``spec`` names. Raises ModelError."""
    found = OwnCheckpoint(spec, (), offline)
    for name in _METHODS:
        found.own.function(name)
    _kept[:] = [(spec, found.own)]
    assert found.identity
    assert found.info
    assert found.pixels
    vars(found).pop("own")  # many may be planned, and one is held at a time
    return found


def load(checkpoint: OwnCheckpoint, *, device: str, precision: str) -> OwnEncoder:
    """The encoder itself. It knows its own device and precision, within ``exactness``. Raises ModelError."""
    kept = [own for spec, own in _kept if spec == checkpoint.spec]
    _kept.clear()
    own = kept[0] if kept else _made(checkpoint.spec)
    if digest.of_value(own.text) != checkpoint.sha256:
        raise ModelError(
            f"{checkpoint.spec.name}: {own.whose} returns an encoder of another identity than before. It has changed, "
            "or its identity is not the same for the same encoder."
        )
    return OwnEncoder(own, checkpoint, device, precision)


def _made(spec: ModelSpec) -> Own:
    call, whose = functions.call_of(spec)
    with Own(spec, None, whose).told("to make an encoder"):
        return Own(spec, call(), whose)


def _left_to_itself(precision: str, compiled: bool) -> Iterator[str]:
    if precision not in FULL:
        yield f"it is a function, which chooses its own precision: {precision} is what was asked for"
    if compiled:
        yield "it is a function, which compiles its own model or does not: --compile does nothing"


class OwnEncoder:
    """``base.Encoder`` around an encoder of somebody else. It gets and gives arrays."""

    context_length = 0

    def __init__(self, own: Own, checkpoint: OwnCheckpoint, device: str, precision: str) -> None:
        self._own = own
        self.info, self.identity = checkpoint.info, checkpoint.identity
        self.embed_dim, self.record_shape = own.embed_dim, own.record_shape
        self.pixel_settings = checkpoint.pixels.settings
        self.device, self.precision = device, precision
        self.remarks = tuple(_left_to_itself(precision, own.spec.compiled))

    def pixels(self, image: Image.Image) -> np.ndarray:
        """``[*record_shape]`` uint8. Raises ModelError for anything else that its function gives."""
        with self._own.told("on an image"):
            found = np.asarray(self._own.function("pixels")(image))
        if found.shape != self.record_shape or found.dtype != np.uint8:
            raise ModelError(
                f"{self.info.model}: {self._own.whose}: `pixels` gives {list(found.shape)} {found.dtype}; expected "
                f"{list(self.record_shape)} uint8."
            )
        return found

    def __getstate__(self) -> Any:
        raise TypeError("what a function returned is not copied: processes are forked with it")

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[n, *record_shape]`` uint8 -> ``[n, embed_dim]`` float32."""
        return self._embeddings("encode_images", pixels.cpu().numpy(), len(pixels))

    def tokenized(self, texts: list[str]) -> Tokenized:
        """The texts themselves, those of about the same length together."""
        lengths = np.array([len(text) for text in texts])
        return Tokenized(
            lengths, lambda rows: self._embeddings("encode_texts", [texts[row] for row in rows], len(rows))
        )

    def are_cut(self, texts: list[str]) -> np.ndarray:
        """``[n]`` bool: not known, so none."""
        return np.zeros(len(texts), dtype=bool)

    def _embeddings(self, name: str, given: Any, count: int) -> torch.Tensor:
        import torch

        exact = exactness("tf32" if self.precision == "tf32" else "ieee")
        with self._own.told(f"in `{name}`"), exact, torch.inference_mode():
            found = torch.as_tensor(self._own.function(name)(given)).detach().to("cpu", torch.float32)
        if found.shape != (count, self.embed_dim):
            raise ModelError(
                f"{self.info.model}: {self._own.whose}: `{name}` gives {list(found.shape)}; expected "
                f"{[count, self.embed_dim]}."
            )
        return found
