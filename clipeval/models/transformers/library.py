"""What the installed transformers knows and builds of two-tower models. The one room that asks it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from clipeval.errors import ModelError, few, foreign
from clipeval.models import hub

VERSION: str = transformers.__version__
_HARMLESS = "position_ids"
"""Buffers that files of older versions hold."""


@dataclass(frozen=True)
class Kind:
    """One ``model_type``: its ``model`` class, and how its text tower was trained.

    ``whole``: texts are padded to the full context, pads are seen, and no mask is given (SigLIP: Zhai et al. 2023).
    The others get a mask, and a batch may be cut to its longest text. ``offset`` is how many positions more than tokens
    the text tower has: position ids of RoBERTa begin behind the pad token's id. ``patches``: images keep their shape
    and are a list of patches (NaFlex: Tschannen et al. 2025, section 2.4.2).
    """

    model: str
    whole: bool = False
    offset: bool = False
    patches: bool = False


KINDS = {
    "clip": Kind("CLIPModel"),
    "siglip": Kind("SiglipModel", whole=True),
    "siglip2": Kind("Siglip2Model", whole=True, patches=True),
    "chinese_clip": Kind("ChineseCLIPModel"),
    "altclip": Kind("AltCLIPModel", offset=True),
    "metaclip_2": Kind("MetaClip2Model"),
}
"""By ``model_type`` of config.json, which alone says what a folder is: published SigLIP 2 checkpoints of one resolution
are ``siglip``."""


@dataclass(frozen=True)
class Pieces:
    """What the small files of a folder describe: configuration, image processor and tokenizer of ``wanted_by``."""

    config: Any
    processor: Any
    tokenizer: Any
    wanted_by: str


def pieces(folder: Path, wanted_by: str) -> Pieces:
    """Of a folder of nothing but small files, which is removed. Raises ModelError."""

    def told(error: Exception) -> ModelError:
        return ModelError(f"{wanted_by}: transformers cannot read its configuration: {_in_a_line(error):.400}")

    given: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        with foreign(told), _quiet(), hub.closed():
            config = transformers.AutoConfig.from_pretrained(str(folder), **given)
            both = transformers.AutoProcessor.from_pretrained(str(folder), **given)
            return Pieces(config, both.image_processor, both.tokenizer, wanted_by)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def text_length(pieces: Pieces, kind: Kind) -> int:
    """Tokens of a text: as many as tokenizer and text tower both take. Raises ModelError where that is not said."""
    config, known = pieces.config.text_config, pieces.tokenizer.model_max_length

    def told(_: Exception) -> ModelError:
        return ModelError(
            f"{pieces.wanted_by}: how long a text may be is not known: model_max_length of its tokenizer is "
            f"{known!r:.80}, max_position_embeddings {getattr(config, 'max_position_embeddings', None)!r:.80}."
        )

    with foreign(told):
        positions = config.max_position_embeddings - (config.pad_token_id + 1 if kind.offset else 0)
        length = int(min(known, positions))
        if length < 1:
            raise ValueError
        return length


def empty(config: Any, kind: Kind) -> Any:
    """The model of a configuration without storage. Raises ModelError."""
    with foreign(_not_built), torch.device("meta"), _quiet():
        return getattr(transformers, kind.model)(config)


def loaded(config: Any, kind: Kind, tensors: dict[str, torch.Tensor], where: str) -> tuple[Any, list[str]]:
    """The model with copies of the weights ``tensors`` in fp32, in inference mode, and the names of those that it has
    no use for.

    transformers would draw what is missing at random. Raises ModelError for a tensor that is missing or of another
    shape, and for layers that the configuration does not have.
    """
    with foreign(_not_built), _quiet(), hub.closed():
        model, info = getattr(transformers, kind.model).from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"{where}: lacks {few(map(repr, missing), 3)}: it is not of the model in its config.json.")
    if mismatched := [name for name, *_ in sorted(info["mismatched_keys"])]:
        raise ModelError(f"{where}: {few(map(repr, mismatched), 3)}: of another shape than its config.json says.")
    unused = sorted(name for name in info["unexpected_keys"] if not name.endswith(_HARMLESS))
    if layers := [name for name in unused if {"layers", "layer"} & set(name.split("."))]:
        raise ModelError(f"{where}: has {few(map(repr, layers), 3)}: more layers than its config.json says.")
    return model.eval().requires_grad_(False), unused


def _not_built(error: Exception) -> ModelError:
    return ModelError(f"transformers cannot build this model configuration: {_in_a_line(error):.400}")


def _in_a_line(error: Exception) -> str:
    """What transformers says is in the second line, or the third."""
    return " ".join(str(error).split()) or type(error).__name__


def feature(output: Any) -> torch.Tensor:
    """The projected features, which some versions of transformers wrap."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside, transformers neither draws progress bars nor logs: what matters is an error here."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
