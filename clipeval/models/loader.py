"""From a checkpoint to an encoder."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from clipeval import precision as precisions
from clipeval.errors import ModelError, first_line, foreign
from clipeval.models import assembly, library, specs, weights
from clipeval.models.checkpoint import Checkpoint
from clipeval.models.encoder import OpenClipEncoder, PixelTransform
from clipeval.models.layout import weights_in
from clipeval.models.tokens import Remembering

_SOME = 10_000_000
"""Weights that a model may have and its file may not: position embeddings, which open_clip can stretch."""


def load(checkpoint: Checkpoint, *, device: str, precision: str) -> OpenClipEncoder:
    """Load a checkpoint for inference on ``device`` (``cpu``, ``cuda``, ``cuda:1``).

    ``precision`` is one of ``clipeval.precision``. Raises ModelError when the weights
    are unsafe, broken, of another shape than the architecture, trained with another activation than it computes,
    or no longer those that were opened; MemoryError where there is no room. A weights file does not tell its
    activation; it is compared where it is on record: for tags, for files that have the digest a tag's weights were
    published with, and for files of clipeval-train.
    """
    content = checkpoint.read()
    description = checkpoint.description
    _check_activation(checkpoint)
    if content and not checkpoint.spec.arch:
        _check_size(checkpoint, content)
    with assembly.without_storage() if content else contextlib.nullcontext():
        model = library.build(description.model_cfg, description.tower)
    tokenizer = checkpoint.tokenizer.make()
    _check_vocabulary(checkpoint, tokenizer)
    _load_weights(model, checkpoint, content)
    del content
    checkpoint.require_unchanged()
    if library.image_size(model) != checkpoint.preprocessing.size:
        raise ModelError(f"{checkpoint.spec.name}: its model takes images of another size than its configuration says.")
    with foreign(lambda e: ModelError(f"{checkpoint.spec.name}: cannot be moved to '{device}': {first_line(e):.300}")):
        model = model.to(device, precisions.weights_dtype(precision))
    return OpenClipEncoder(
        model=model.eval().requires_grad_(False),
        text_tower=library.trimmable_tower(model),
        tokenizer=Remembering(tokenizer, checkpoint.tokenizer.digest),
        pixels=PixelTransform(library.pixel_steps(checkpoint.preprocessing)),
        preprocessing=checkpoint.preprocessing,
        info=checkpoint.info,
        embed_dim=description.model_cfg["embed_dim"],
        identity=checkpoint.identity,
        device=device,
        precision=precision,
        vocab_size=_vocabulary(checkpoint),
        compiled=checkpoint.spec.compiled,
    )


def _check_activation(checkpoint: Checkpoint) -> None:
    spec, description = checkpoint.spec, checkpoint.description
    trained_with = description.trained_with_quick_gelu
    if trained_with is not None and trained_with != description.model_cfg.get("quick_gelu", False):
        raise ModelError(specs.wrong_activation(spec.arch, spec.pretrained, trained_with))


def _check_size(checkpoint: Checkpoint, content: Any) -> None:
    """A configuration that comes with its weights is compared with them before room is made for what it describes."""
    with torch.device("meta"):
        model = library.build(checkpoint.description.model_cfg, checkpoint.description.tower)
    described = sum(tensor.numel() for tensor in model.state_dict().values())
    held = sum(tensor.numel() for tensor in weights_in(content, checkpoint.path).tensors.values())
    if described > 2 * held + _SOME:
        raise ModelError(
            f"{checkpoint.path}: its configuration describes {described:,} weights, but it holds {held:,}. "
            "They do not belong together."
        )


def _vocabulary(checkpoint: Checkpoint) -> int | None:
    described = checkpoint.description.tower or checkpoint.description.model_cfg["text_cfg"]
    return described.get("vocab_size")


def _check_vocabulary(checkpoint: Checkpoint, tokenizer: Any) -> None:
    size = checkpoint.description.model_cfg["text_cfg"].get("vocab_size")
    if size is not None and library.is_simple(tokenizer) and tokenizer.vocab_size > size:
        raise ModelError(
            f"{checkpoint.spec.name}: text_cfg.vocab_size is {size}, but open_clip's tokenizer has "
            f"{tokenizer.vocab_size} tokens."
        )


def _load_weights(model: Any, checkpoint: Checkpoint, content: Any) -> None:
    spec, path = checkpoint.spec, checkpoint.path
    architecture = spec.arch or spec.name
    expected = _shapes(model)
    if not content:
        with foreign(lambda error: ModelError(f"{path}: does not fit {architecture}: {first_line(error):.300}")):
            library.load_arrays(model, path)
        return
    found = weights_in(content, path)
    tensors = found.tensors | {name: tensor for name, tensor in found.beside.items() if name in expected}
    if spec.kind != "tag" or spec.forced:  # open_clip would silently interpolate position embeddings of another size
        asked = {"visual.positional_embedding"} if "image_size" in dict(spec.forced) else set()
        fixed = {name: shape for name, shape in expected.items() if name not in asked}
        weights.check_shapes(tensors, fixed, architecture, path)

    def why_not(error: Exception) -> ModelError:
        weights.check_shapes(tensors, expected, architecture, path)
        weights.check_names(tensors, expected, architecture, path)
        return ModelError(f"{path}: does not fit {architecture}: {first_line(error):.300}")

    with foreign(why_not):  # open_clip's conversions assume a checkpoint of theirs and may raise anything
        library.load_weights(model, tensors, path)


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
