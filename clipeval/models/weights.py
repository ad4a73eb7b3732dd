"""Weight files: read so that nothing inside them is executed, and compared with the model they are meant for."""

from __future__ import annotations

import io
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval.errors import ModelError, few, first_line, foreign
from clipeval.models import rules, schema
from clipeval.paths import readable

if TYPE_CHECKING:
    import torch

TRAINED_FORMAT = "clipeval-train-1"
_NUMPY_SUFFIXES = (".npz", ".npy")
_RIGHT_ONE = "Give the architecture that the checkpoint was trained with."
_TRANSFORMERS = {"`text_model.`", "`vision_model.`"}
_DESCRIPTION = ("arch", "model_cfg", "preprocess_cfg", "metadata")


def require_regular(path: Path) -> None:
    """Raises ModelError for what is no file, whose bytes may never come or never end."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error):.300}") from error
    if not regular:
        raise ModelError(f"{path}: not a regular file: a checkpoint is not read from a folder, a pipe or a device.")


def read(path: Path) -> Any:
    """The content of a checkpoint file: tensors and plain values (``unpickling``), tensors mapped from disk where
    possible.

    A ``.npz`` file of big_vision is not opened here: an empty dictionary stands for it. Raises ModelError for a file
    that is cut off or broken, and for one that would have to execute code to be read; nothing in it is executed.
    """
    require_regular(path)
    if path.suffix in _NUMPY_SUFFIXES:
        return {}
    import torch
    from safetensors.torch import load, load_file

    from clipeval.models.unpickling import plain_data

    with foreign(lambda error: ModelError(_why_unreadable(path, error))), plain_data(), warnings.catch_warnings():
        named = readable(str(path)) == str(path)  # by another name neither library finds a file
        if path.suffix == ".safetensors":
            return load_file(path) if named else load(path.read_bytes())
        warnings.simplefilter("ignore")  # torch announces a TorchScript archive before it refuses it
        if not named:
            return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _why_unreadable(path: Path, error: Exception) -> str:
    from clipeval.models.unpickling import NotPlainError

    text = str(error)
    if "TorchScript" in text:
        return (
            f"{path}: a TorchScript archive, which is a program; refused, nothing was executed. "
            "For OpenAI's checkpoints use the tag, for example ViT-B-32-quickgelu,openai"
        )
    if code := re.search(r"GLOBAL (\S+)", text):
        return (
            f"{path}: reading it would execute code ({code[1]}); refused, nothing was executed. "
            "If you trust its author, convert it to .safetensors elsewhere."
        )
    if isinstance(error, NotPlainError):
        return (
            f"{path}: beside its weights it holds {error}, which may hold code; refused, nothing was executed. "
            "Save it without, or convert it to .safetensors elsewhere if you trust its author."
        )
    reason = first_line(error)
    if isinstance(error, pickle.UnpicklingError):  # torch's own text recommends to load it the unsafe way
        reason = "torch.save did not write it"
    return (
        f"{path}: not readable as a checkpoint: {reason:.200}. It may be cut off or broken: copy or download it again."
    )


def is_trained(content: Any) -> bool:
    """Whether a checkpoint's content was written by clipeval-train, with its configuration and metadata."""
    return isinstance(content, dict) and content.get("format") == TRAINED_FORMAT


def require_trained(content: Any, path: Path) -> dict[str, Any]:
    """The content of a clipeval-train checkpoint. Raises ModelError when it is another file."""
    if not is_trained(content):
        raise ModelError(
            f"{path}: not a checkpoint of clipeval-train, so its architecture is unknown. "
            f"Say it: for example ViT-B-32,{path.as_posix()}"
        )
    schema.check_model_cfg(content, path)
    if not isinstance(content.get("metadata"), dict):
        raise ModelError(f"{path}: `metadata` is missing. Write the checkpoint again.")
    for part in _DESCRIPTION:
        rules.check_size(content.get(part), f"{path}: {part}")
    return dict(content)


def check_shapes(
    tensors: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], architecture: str, path: Path
) -> None:
    """Raises ModelError that names the first tensor whose shape is not the ``expected`` one."""
    for key, tensor in tensors.items():
        shape = expected.get(key, expected.get(f"text.{key}"))  # older checkpoints have no prefix for the text tower
        if shape not in (None, tuple(tensor.shape)) and not key.startswith("logit_"):  # of these () and (1,) are equal
            raise ModelError(
                f"{path}: '{key:.200}' has the shape {tuple(tensor.shape)}, but {architecture} needs {shape}. "
                f"{_RIGHT_ONE}"
            )


def check_names(
    tensors: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], architecture: str, path: Path
) -> None:
    """Raises ModelError that names the first tensor that is missing or not ``expected``."""
    missing = [key for key in expected if key not in tensors and key.removeprefix("text.") not in tensors]
    surplus = [key for key in tensors if key not in expected and f"text.{key}" not in expected]
    if len(missing) == len(expected):
        whose, advice = _whose(tensors, path)
        raise ModelError(f"{path}: {whose}, unlike {architecture}. {advice}")
    for keys, verb in ((missing, "lacks"), (surplus, "has")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ModelError(f"{path}: {verb} '{keys[0]:.200}'{more}, unlike {architecture}. {_RIGHT_ONE}")


def _whose(names: Iterable[str], path: Path) -> tuple[str, str]:
    """How the names of weights begin that are not open_clip's, and what to do."""
    beginnings = list(dict.fromkeys(f"`{name.partition('.')[0]:.100}.`" for name in names))
    if set(beginnings) >= _TRANSFORMERS:
        advice = f"Give the folder with its config.json: transformers:{path.parent.as_posix()}"
        return "its names are those of transformers' own models (`text_model.`, `vision_model.`)", advice
    return f"{'all' if len(beginnings) == 1 else 'its'} names begin with {few(beginnings, 5)}", _RIGHT_ONE
