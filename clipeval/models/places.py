"""MODEL specs that are folders, files or repositories: told by what lies there, of which nothing but names is read."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from clipeval.errors import UsageError, suggest
from clipeval.models import zoo
from clipeval.models.spec import ModelSpec
from clipeval.regular import read_regular
from clipeval.remote.hub import Repository

HUB_PREFIX, LOCAL_PREFIX, HF_PREFIX, TRANSFORMERS_PREFIX = "hf-hub:", "local-dir:", "hf://", "transformers:"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz", ".npy")
OPEN_CLIP_CONFIG = "open_clip_config.json"
_LATEST_BYTES, _CONFIG_BYTES = 4096, 1 << 20
_REVISION = r"refs/(?:pr|convert)/[\w.-]+|[^/@\s]+"
_FILE = re.compile(rf"hf://(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>{_REVISION}))?/(?P<file>.*[^/])")
_REPOSITORY = re.compile(r"(?:hf-hub|transformers):(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")


def is_file_of_hub(pretrained: str) -> bool:
    """Whether it is of the form hf://ORG/REPO[@REV]/FILE."""
    return _FILE.fullmatch(pretrained) is not None


def repository_of(pretrained: str) -> tuple[Repository, str]:
    """The repository that ``hf-hub:ORG/NAME[@REV]``, ``transformers:ORG/NAME[@REV]`` or ``hf://ORG/REPO[@REV]/FILE``
    names, and the file, if any."""
    match = _FILE.fullmatch(pretrained) or _REPOSITORY.fullmatch(pretrained)
    assert match, pretrained
    parts = match.groupdict()
    revision = unquote(parts["revision"] or "")
    return Repository("model", parts["name"], "" if revision == "main" else revision), parts.get("file", "")


def of_hub(word: str, where: str) -> ModelSpec:
    """``hf-hub:ORG/NAME[@REV]``."""
    if not _REPOSITORY.fullmatch(word):
        raise UsageError(f"{where}'{word}' is not of the form {HUB_PREFIX}ORG/NAME[@REV].")
    return ModelSpec(word, "hub", pretrained=word)


def of_transformers(word: str, where: str) -> ModelSpec:
    """``transformers:FOLDER`` or ``transformers:ORG/NAME[@REV]``."""
    path = Path(word.removeprefix(TRANSFORMERS_PREFIX))
    if path.is_dir():
        if not (path / "config.json").is_file():
            hint = f" Use {LOCAL_PREFIX}{path}" if (path / OPEN_CLIP_CONFIG).is_file() else ""
            raise UsageError(f"{where}'{word}': the folder '{path}' has no file config.json.{hint}")
        return _transformers_folder(path)
    if not _REPOSITORY.fullmatch(word):
        raise UsageError(
            f"{where}'{word}' is neither a folder that exists nor of the form {TRANSFORMERS_PREFIX}ORG/NAME[@REV]."
        )
    return ModelSpec(word, "transformers", pretrained=word)


def of_folder(word: str, where: str) -> ModelSpec:
    """``local-dir:PATH``."""
    path = Path(word.removeprefix(LOCAL_PREFIX))
    if not (path / OPEN_CLIP_CONFIG).is_file():
        kind = _transformers_kind(path)
        what = f"is one of transformers ({kind}): use {TRANSFORMERS_PREFIX}{path}" if kind else ""
        raise UsageError(f"{where}'{word}': the folder '{path}' {what or f'has no file {OPEN_CLIP_CONFIG}.'}")
    return _open_clip_folder(path)


def _open_clip_folder(path: Path, guess: str = "") -> ModelSpec:
    name = LOCAL_PREFIX + path.as_posix()
    return ModelSpec(name, "local-dir", pretrained=name, path=str(path), guess=guess)


def _transformers_folder(path: Path, guess: str = "") -> ModelSpec:
    name = TRANSFORMERS_PREFIX + path.as_posix()
    return ModelSpec(name, "transformers", pretrained=name, path=str(path), guess=guess)


def _transformers_kind(folder: Path) -> str:
    """What the configuration of a folder of transformers says it is; empty for other folders."""
    try:
        return f"model_type '{json.loads(read_regular(folder / 'config.json', _CONFIG_BYTES))['model_type']!s:.40}'"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def of_paths(word: str, where: str, names: Sequence[str], config_path: str) -> list[ModelSpec]:
    """A file of clipeval-train, a folder of any kind, or a pattern of them; ``names`` are those that ``word`` is not
    one of."""
    if glob.has_magic(word):
        matches = sorted(glob.glob(word), key=_natural_order)  # noqa: PTH207 Path.glob takes no absolute pattern
        if not matches:
            raise UsageError(f"{where}no file matches '{word}'.")
        return [_of_path(Path(match), where) for match in matches]
    path = Path(word)
    if path.exists():
        return [_of_path(path, where)]
    if "/" in word or word.endswith(WEIGHT_SUFFIXES):
        raise UsageError(f"{where}the file or run folder '{word}' does not exist.")
    if word in zoo.architectures():
        example = (zoo.tags(word) or ["FILE"])[0]
        raise UsageError(f"{where}which checkpoint of {word}? Write '{word},TAG' or '{word},FILE', as {word},{example}")
    raise UsageError(
        f"{where}'{word}' is neither a model nor a zoo of {config_path} nor a file."
        f"{suggest(word, [*names, *zoo.architectures()])} Zoos: {', '.join(dict.fromkeys([*names, *zoo.NAMES]))}."
    )


def _of_path(path: Path, where: str) -> ModelSpec:
    """A file of clipeval-train, or a folder: a run of it, which stands for its newest checkpoint, or one of open_clip
    or transformers, by what it holds."""
    name = path.as_posix()
    if not path.is_dir():
        if path.suffix != ".pt":
            raise UsageError(
                f"{where}'{name}' is not a checkpoint of clipeval-train (a .pt file). "
                f"For other files say the architecture: ViT-B-32,{name}"
            )
        return ModelSpec(name, "trained", pretrained=name, path=str(path))
    if (path / "latest").is_file():
        return ModelSpec(name, "trained", pretrained=name, path=str(_newest_of_run(path, where)))
    if (path / OPEN_CLIP_CONFIG).is_file():
        return _open_clip_folder(path, f"read as a checkpoint of open_clip: the folder holds {OPEN_CLIP_CONFIG}")
    if kind := _transformers_kind(path):
        return _transformers_folder(path, f"read as a checkpoint of transformers: its config.json says {kind}")
    raise UsageError(
        f"{where}'{name}' is no folder of a checkpoint: it has no file 'latest' (a run of clipeval-train), no "
        f"{OPEN_CLIP_CONFIG} (open_clip) and no config.json with a model_type (transformers)."
    )


def _newest_of_run(folder: Path, where: str) -> Path:
    latest = folder / "latest"
    try:
        path = folder / read_regular(latest, _LATEST_BYTES).decode("utf-8").strip()
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}'{latest.as_posix()}' does not hold the path of a checkpoint: {error}.") from error
    if not found:
        raise UsageError(f"{where}'{latest.as_posix()}' points to '{path.as_posix()}', which does not exist.")
    return path


def _natural_order(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
