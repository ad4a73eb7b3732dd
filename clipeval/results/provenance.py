"""What a value depends on besides checkpoint and data: versions, commit, device."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from clipeval.version import __version__

_PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "clip-benchmark",
    "faiss-gpu",
    "faiss-cpu",
    "scikit-learn",
    "numpy",
    "Pillow",
)
_OURS, _DECIDING = ("clipeval", "clipeval_train"), (".py", ".json", ".csv")


@cache
def packages() -> str:
    """``name==version`` of the packages that decide a value, separated by spaces, in this process.

    What the cache held was embedded and decoded by an earlier process. Keys of embeddings hold the versions of
    clipeval's encoder and of open_clip, those of pixels the versions of what decodes; torch's is in neither.
    """
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return " ".join(found)


@cache
def sources() -> dict[str, str]:
    """The digest of every file of the two packages here that may decide a value, by its path. A wheel has others beside
    them (``clipeval/published``), which say what can be asked for."""
    root = Path(__file__).parents[2]
    files = (path for package in _OURS for path in sorted((root / package).rglob("*")) if path.suffix in _DECIDING)
    digests = {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}
    return {name.as_posix(): found for name, found in digests.items() if "published" not in name.parts}


def columns() -> dict[str, str]:
    """What made a value, as tables and checkpoints have it."""
    return {"clipeval_version": __version__, "git_commit": git_commit(), "packages": packages()}


@cache
def git_commit() -> str:
    """The commit of clipeval's own checkout, with ``+dirty`` where files differ from it; empty outside a checkout."""
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--error-unmatch", "__init__.py"):
            return ""  # an installed copy that lies inside somebody's own repository
        commit = git("rev-parse", "HEAD")
        return f"{commit}+dirty" if commit and git("status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return ""
