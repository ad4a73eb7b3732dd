"""What towers compute in: the five precisions, what each asks of a device, and how torch is told of it.

``fp32`` is IEEE's everywhere, and ``tf32`` what NVIDIA's tensor cores make of it: 10 bits of mantissa in convolutions
and matrix products. ``bf16`` and ``fp16`` are autocast over fp32 weights: sums, norms and softmax stay fp32. With
``bf16-weights`` the weights are rounded too, and nothing is fp32 but what torch's kernels add up in. Each is a
precision of its own: it is part of every key and cell id.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from clipeval import choices

if TYPE_CHECKING:
    import torch

PRECISIONS = choices.words(choices.Precision)
FULL = ("fp32", "tf32")
"""Those of 32 bits."""
NEED_GPU = ("tf32", "fp16")
_TENSOR_CORES_OF_TF32 = (8, 0)
_turn = threading.RLock()
_AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}


def refusal(precision: str, device: str) -> str:
    """Why ``device`` cannot compute in a precision, and what to do, to be put behind its name; empty where it can."""
    if precision not in PRECISIONS:
        return f"is none of {', '.join(PRECISIONS)}."
    if precision not in NEED_GPU:
        return ""
    if not device.startswith("cuda"):
        return f"needs a CUDA GPU, and the device is {device}. Use fp32 or bf16."
    import torch

    capability = torch.cuda.get_device_capability(device)
    if precision == "tf32" and torch.version.hip is None and capability < _TENSOR_CORES_OF_TF32:
        return f"needs tensor cores that {device} does not have. Use fp32 or fp16."
    return ""


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What ``torch.autocast`` computes in; None where there is no need of it."""
    import torch

    name = _AUTOCAST.get(precision)
    found: torch.dtype | None = getattr(torch, name) if name else None
    return found


def weights_dtype(precision: str) -> torch.dtype:
    """What weights are kept in, and so what a tower is given."""
    import torch

    return torch.bfloat16 if precision == "bf16-weights" else torch.float32


@contextmanager
def computing(precision: str, device: str) -> Iterator[None]:
    """Inside, torch infers in ``precision`` on ``device``. Outside it is as the caller had it: whether fp32 is IEEE's
    is a setting of the process, by which convolutions are TF32 unless somebody says otherwise."""
    import torch

    dtype = autocast_dtype(precision)
    with (
        exactness("tf32" if precision == "tf32" else "ieee"),
        torch.inference_mode(),
        torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None),
    ):
        yield


@contextmanager
def exactness(name: str) -> Iterator[None]:
    """Inside, 32-bit convolutions and matrix products are ``ieee`` or ``tf32``. oneDNN on the CPU is IEEE's always.
    The settings are the process's, so threads take turns."""
    with _turn, ExitStack() as undo:
        for holder, setting, wanted in _settings(name):
            before = getattr(holder, setting)
            if before != wanted:
                undo.callback(setattr, holder, setting, before)
                setattr(holder, setting, wanted)
        yield


def _settings(name: str) -> list[tuple[Any, str, Any]]:
    """(object, attribute, value) of all that torch asks. Newer versions refuse to read the old settings after the new
    were set, so only one kind is touched."""
    import torch

    backends: Any = torch.backends
    nvidia = backends.cudnn, backends.cuda.matmul
    if not hasattr(backends, "fp32_precision"):  # torch before 2.9
        return [(holder, "allow_tf32", name == "tf32") for holder in nvidia]
    cudnn, onednn = backends.cudnn, backends.mkldnn
    gpu = [(holder, "fp32_precision", name) for holder in (cudnn.conv, cudnn.rnn, backends.cuda.matmul)]
    return gpu + [(holder, "fp32_precision", "ieee") for holder in (onednn.conv, onednn.rnn, onednn.matmul)]
