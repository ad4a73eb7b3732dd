"""Checkpoints on disk: written whole or not at all, and found again.

    OUT/checkpoints/samples_000000128000.pt    one file per saved point
    OUT/latest                                 path of the newest, relative to OUT

A file is a dictionary of tensors and plain Python values, so ``torch.load(weights_only=True)`` reads it:

    format        "clipeval-train-1"
    arch          the architecture's name
    model_cfg     its open_clip configuration: ``open_clip.CLIP(**model_cfg)`` takes ``state_dict``
    state_dict    weights in fp32
    ema           their running average, or None
    metadata      source, source_family, mixture, unique_samples, samples_seen, seed, config, gpu_hours, energy_kwh, ...
    resume        what training goes on from; None in the last checkpoint of a run whose learning rate ended at zero
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from clipeval.errors import StoreError, UsageError
from clipeval.files import write_atomically, write_bytes, write_json, write_text
from clipeval.models import weights
from clipeval.models.checkpoint import CONFIG_FILE
from clipeval.models.layout import weights_in
from clipeval.regular import read_regular
from clipeval.results.ledger import exclusive
from clipeval_train.distributed import World
from clipeval_train.model import IMAGE_MEAN, IMAGE_STD

_POINTER_BYTES = 4096


def newest(out: Path) -> Path | None:
    """The file OUT/latest points to, or None when the run has not saved yet. Raises StoreError."""
    try:
        return out / read_regular(out / "latest", _POINTER_BYTES).decode("utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{out / 'latest'}: cannot read: {error}. Choose another `out`.") from error


def find(path: Path) -> Path:
    """The checkpoint at ``path``: the file itself, or the newest one of a run's folder. Raises UsageError."""
    with suppress(OSError):  # of a name that no file can have
        file = newest(path) if path.is_dir() else path
        if file is not None and file.is_file():
            return file
    raise UsageError(f"'{path}': no checkpoint of clipeval-train is there. Give a .pt file or the folder of a run.")


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; code inside is never executed. Raises ModelError when it is not one of ours."""
    return weights.require_trained(weights.read(path), path)


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the run's folder alone, and clear away what a killed process left half done in it.

    That is temporary files only: a checkpoint gets its name when it is whole.

    Raises UsageError when another process trains into it, StoreError when it cannot be written.
    """
    with exclusive(out, "`out`"):
        for path in [*out.glob(".*.tmp"), *(out / "checkpoints").glob(".*.tmp")]:
            path.unlink()
        yield


class Saver(AbstractContextManager["Saver"]):
    """Writes checkpoints of one run in a thread of its own while training goes on; an error surfaces in the next call.

    Leaving the block waits for the last one.
    """

    def __init__(self, keep: int | None = None, stays: Callable[[Path], bool] = lambda path: False) -> None:
        """``keep`` is how many stay, the newest ones, besides those of which ``stays`` says so; None: all."""
        self._keep, self._stays = keep, stays
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()
        if error[0] is None:
            self.wait()

    def save(self, path: Path, content: dict[str, Any]) -> None:
        """Begin to save; the content is copied before this returns. Waits for the one before. Raises StoreError."""
        self.wait()
        self._pending = self._thread.submit(save, path, _snapshot(content), self._keep, self._stays)

    def wait(self) -> None:
        """Until the last checkpoint is on disk. Raises StoreError when it could not be written."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()


def save(
    path: Path,
    content: dict[str, Any],
    keep: int | None = None,
    stays: Callable[[Path], bool] = lambda path: False,
) -> None:
    """Write OUT/checkpoints/WORD_NUMBER.pt, point OUT/latest to it, and delete all but the ``keep`` newest up to it.

    Not those of which ``stays`` says so. Those with higher numbers than the new one are of work that this run was told
    to go back behind: it comes to them again. Raises StoreError.
    """
    write_atomically(path, partial(_write, {"format": weights.TRAINED_FORMAT, **content}))
    write_text(path.parents[1] / "latest", f"checkpoints/{path.name}\n")
    if keep:
        files = sorted(path.parent.glob(f"{path.stem.rpartition('_')[0]}_*.pt"))
        for old in [file for file in files if file.name <= path.name and not stays(file)][:-keep]:
            old.unlink()


def averaged(path: Path, out: Path, world: World) -> Path:
    """A checkpoint of its own of the running average in the one at ``path``: the only one in OUT/ema. Collective.

    Raises StoreError, in process 0.
    """
    target = out / "ema" / path.name
    if world.is_main and not (target.exists() and target.stat().st_mtime_ns >= path.stat().st_mtime_ns):
        saved = load(path)
        content = {**saved, "state_dict": saved["ema"], "ema": None, "resume": None}
        for old in target.parent.glob("samples_*.pt"):
            old.unlink()
        write_atomically(target, partial(_write, content))
    world.barrier()
    return target


def export(path: Path, folder: Path, ema: bool = False) -> None:
    """Write a checkpoint's weights as safetensors with a configuration: what open_clip loads as ``local-dir:FOLDER``.

    ``ema`` takes their running average. Raises UsageError when the checkpoint has none, ModelError, StoreError.
    """
    from safetensors.torch import save as as_bytes

    saved = load(path)
    tensors = saved.get("ema" if ema else "state_dict")
    if ema and tensors is None:
        raise UsageError(f"{path}: holds no running average of the weights: `ema` was not set. Leave --ema out.")
    tensors = {name: tensor.contiguous() for name, tensor in weights_in(tensors, path).tensors.items()}
    preprocessing = {"mean": IMAGE_MEAN, "std": IMAGE_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {
        "model_cfg": saved["model_cfg"],
        "preprocess_cfg": saved.get("preprocess_cfg", preprocessing),
        "arch": saved.get("arch", ""),
        "metadata": saved["metadata"],
    }
    write_bytes(folder / "open_clip_model.safetensors", as_bytes(tensors))
    write_json(folder / CONFIG_FILE, config)


def _snapshot(value: Any) -> Any:
    """A copy on the CPU that later steps do not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_snapshot(item) for item in value)
    return value


def _write(content: dict[str, Any], path: Path) -> None:
    try:
        torch.save(content, path)
    except RuntimeError as error:  # how torch reports a full disk
        raise OSError(str(error)) from error
