"""What of this process's environment a worker on another machine needs too: where data comes from, and who asks."""

from __future__ import annotations

import os

from clipeval import paths

_HANDED_OVER = (
    "AWS_",
    "AZURE_STORAGE_",
    "CLIPEVAL_",
    "FSSPEC_",
    "GCSFS_",
    "HF_",
    "HUGGING_FACE_HUB_",
    "HUGGINGFACE_HUB_",
)
_NAMES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "OMP_NUM_THREADS",
    "TORCH_HOME",
    "TRANSFORMERS_OFFLINE",
)


def handed_over() -> dict[str, str]:
    """Its variables, secrets among them: they belong into no log and no ``runtime_env``, which Ray shows."""
    found = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_OVER) or name in _NAMES}
    return found | {"CLIPEVAL_CACHE": str(paths.cache_dir().absolute())}


def take_over(environment: dict[str, str]) -> None:
    """Use what was handed over. Ray sets OMP_NUM_THREADS to the worker's cores; that is ours to choose."""
    os.environ.pop("OMP_NUM_THREADS", None)
    os.environ |= environment
