"""Weight files: found or fetched, and read so that nothing inside them is executed."""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipeval.errors import ModelError, first_line
from clipeval.models import zoo
from clipeval.models.specs import HF_PREFIX, HUB_PREFIX, ModelSpec

TRAINED_FORMAT = "clipeval-train-1"
CONFIG_FILE = "open_clip_config.json"
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FOLDER_FILES = (*_HUB_FILES, "open_clip_pytorch_model.safetensors", "model.safetensors", "pytorch_model.bin")
_NUMPY_SUFFIXES = (".npz", ".npy")


def locate(spec: ModelSpec, *, offline: bool) -> Path:
    """The weights of a checkpoint as a file on this machine, downloaded where needed and ``offline`` allows.

    Raises ModelError that names the file, and the hub repository where it would come from.
    """
    if spec.kind == "local-dir":
        return _in_folder(Path(spec.path))
    if spec.path:
        if not Path(spec.path).is_file():
            raise ModelError(f"{spec.name}: the file '{spec.path}' does not exist (any more).")
        return Path(spec.path)
    repository, files = _address(spec)
    return fetch(repository, files, spec.name, offline=offline)


def fetch(repository: str, files: tuple[str, ...], wanted_by: str, *, offline: bool) -> Path:
    """The first of ``files`` that a hub repository has; a copy on this machine is taken as it is.

    Raises ModelError.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def attempt(file: str, local: bool) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file, local_files_only=local))
        except LocalEntryNotFoundError as error:
            if local:
                return None
            raise ModelError(
                f"{wanted_by}: cannot reach the hub for '{file}' of repository '{repository}', and it is not on this "
                "machine. Check the network, or download the file elsewhere and give its path."
            ) from error
        except EntryNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{wanted_by}: cannot fetch '{file}' of repository '{repository}': {first_line(error)}"
            ) from error

    for local in (True,) if offline else (True, False):
        for file in files:
            if path := attempt(file, local):
                return path
    named = " or ".join(f"'{file}'" for file in files)
    if offline:
        raise ModelError(
            f"{wanted_by}: {named} of hub repository '{repository}' is not on this machine, and nothing is downloaded "
            "now (--offline or --plan). A run with a network gets it."
        )
    raise ModelError(f"{wanted_by}: hub repository '{repository}' has no file {named}.")


@contextlib.contextmanager
def hub_access(offline: bool) -> Iterator[None]:
    """Tokenizers and text towers of other libraries fetch from the hub by themselves; not here when ``offline``."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _address(spec: ModelSpec) -> tuple[str, tuple[str, ...]]:
    """(repository, files that hold the same weights, preferred first)."""
    if spec.kind == "hub":
        return spec.pretrained.removeprefix(HUB_PREFIX), _HUB_FILES
    if spec.kind == "hf":
        organisation, name, file = spec.pretrained.removeprefix(HF_PREFIX).split("/", 2)
        return f"{organisation}/{name}", (file,)
    row = zoo.checkpoints().get((spec.arch, spec.pretrained))
    if row is None:
        from clipeval.models import loader

        hub = loader.tag_settings(spec.arch, spec.pretrained).get("hub", "")
    else:
        hub = row.hub
    repository, _, file = hub.rpartition("/")
    if not file:
        return repository, _HUB_FILES
    return repository, tuple(dict.fromkeys((str(Path(file).with_suffix(".safetensors")), file)))


def _in_folder(folder: Path) -> Path:
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for suffix in ("safetensors", "bin", "pth", "pt") for path in folder.glob(f"*.{suffix}"))
    if len(others) == 1:
        return others[0]
    found = f"several: {', '.join(path.name for path in others)}" if others else "none"
    raise ModelError(
        f"local-dir:{folder}: one weights file is needed, named {_HUB_FILES[0]} for example; found {found}."
    )


def read(path: Path) -> Any:
    """The content of a checkpoint file: tensors and plain Python values, tensors mapped from disk where possible.

    A ``.npz`` file of big_vision is not opened here: an empty dictionary stands for it. Raises ModelError for a file
    that is cut off or broken, and for one that would have to execute code to be read; nothing in it is executed.
    """
    if path.suffix in _NUMPY_SUFFIXES:
        return {}
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces a TorchScript archive before it refuses it
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except MemoryError:
        raise
    except Exception as error:  # the bytes of a broken file can make an unpickler raise anything
        raise ModelError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: Exception) -> str:
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
    check_model_cfg(content, path)
    if not isinstance(content.get("metadata"), dict):
        raise ModelError(f"{path}: `metadata` is missing. Write the checkpoint again.")
    return dict(content)


def check_model_cfg(content: Any, path: Path) -> None:
    """Raises ModelError unless ``content["model_cfg"]`` has the parts of an open_clip model configuration."""
    model_cfg = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(model_cfg, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model_cfg):
        raise ModelError(f"{path}: `model_cfg` with embed_dim, vision_cfg and text_cfg is missing.")


def check_shapes(content: Any, expected: dict[str, tuple[int, ...]], architecture: str, path: Path) -> None:
    """Raises ModelError that names the first tensor whose shape is not the ``expected`` one."""
    for key, tensor in _state_dict(content, path).items():
        shape = expected.get(key, expected.get(f"text.{key}"))  # older checkpoints have no prefix for the text tower
        if shape not in (None, tuple(tensor.shape)) and not key.startswith("logit_"):  # of these () and (1,) are equal
            raise ModelError(
                f"{path}: '{key}' has the shape {tuple(tensor.shape)}, but {architecture} needs {shape}. "
                "Give the architecture that the checkpoint was trained with."
            )


def check_names(content: Any, expected: dict[str, tuple[int, ...]], architecture: str, path: Path) -> None:
    """Raises ModelError that names the first tensor that is missing or not ``expected``."""
    found = _state_dict(content, path)
    missing = [key for key in expected if key not in found and key.removeprefix("text.") not in found]
    surplus = [key for key in found if key not in expected and f"text.{key}" not in expected]
    for keys, verb in ((missing, "lacks"), (surplus, "has")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ModelError(
                f"{path}: {verb} '{keys[0]}'{more}, unlike {architecture}. "
                "Give the architecture that the checkpoint was trained with."
            )


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    """The named tensors of a checkpoint. Raises ModelError where there are none."""
    import torch

    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(value) for value in content.values()):
        raise ModelError(f"{path}: holds no model weights (a dictionary of tensors, or one under 'state_dict').")
    return {key.removeprefix("module."): value for key, value in content.items()}
