"""Display names: what people read in place of full specs. Files and ``--json`` keep the specs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

SEPARATOR = " · "
_CHECKPOINT = re.compile(r"^(?P<run>.+)/checkpoints/(?:samples|iteration)_0*(?P<at>\d+)\.pt$")
_SPEC = re.compile(r"^(hf-hub:|transformers:|local-dir:|python:)|,")


@dataclass(frozen=True)
class Names:
    """Display names of the checkpoints of one table, each of which stands for one of them.

    ``names[model]`` is the display name of a value of the column ``model``, and the value itself for one that is not
    in the table. ``folder`` is what all files have in common and no display name repeats, with a slash at its end.
    """

    folder: str = ""
    short: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, model: str) -> str:
        return self.short.get(model) or model


NO_NAMES = Names()
"""Every checkpoint is called by its spec."""


def display_names(rows: Iterable[Mapping[str, Any]]) -> Names:
    """Of rows of the results table with the columns ``model`` and, where known, ``arch``, ``source``, ``pretrained``
    and ``samples_seen``.

    A public checkpoint is ``ViT-H-14 · LAION-2B · 34.7B``: architecture, data source, samples seen at the end of
    training; a file or a run is its path below the folder that all have in common; a name that somebody gave stays.
    Names that would be equal get their tag, or are the full specs.
    """
    facts: dict[str, dict[str, Any]] = {}
    for row in rows:
        seen = _number(row.get("samples_seen"))
        known = facts.setdefault(str(row["model"]), {"samples_seen": seen} | {k: _text(row.get(k)) for k in _FACTS})
        known["samples_seen"] = max((n for n in (known["samples_seen"], seen) if n is not None), default=None)
    files = [model for model in facts if "/" in model and not _SPEC.search(model)]
    folder = _common_folder(files)
    short = {
        model: _file(model.removeprefix(folder)) if model in files else _public(model, known)
        for model, known in facts.items()
    }
    for more in (_with_tag, lambda model, *_: model):
        taken = Counter(short.values())
        short |= {model: more(model, name, facts[model]) for model, name in short.items() if taken[name] > 1}
    return Names(folder, short)


_FACTS = ("arch", "source", "pretrained")


def _public(model: str, known: Mapping[str, Any]) -> str:
    if not _SPEC.search(model) or model.startswith("python:"):
        return model
    arch = (known["arch"] or model.partition(",")[0].rpartition("/")[2].rpartition(":")[2]).removesuffix("-quickgelu")
    source = known["source"] or PurePosixPath(known["pretrained"] or model.partition(",")[2]).stem
    parts = [arch, source, samples(known["samples_seen"])]
    return SEPARATOR.join(part for part in parts if part)


def _with_tag(model: str, name: str, known: Mapping[str, Any]) -> str:
    tag = PurePosixPath(known["pretrained"] or model.partition(",")[2] or model).stem
    return f"{name} ({tag})" if tag and tag not in name else model


def samples(count: float | None) -> str:
    """A number of samples seen with three digits: ``34.7B``, ``64k``; empty when unknown."""
    if count is None:
        return ""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{suffix}"
    return f"{count:.3g}"


def _file(path: str) -> str:
    """A checkpoint of a run as ``b32 · 10k``."""
    found = _CHECKPOINT.match(path)
    return f"{found['run']}{SEPARATOR}{samples(float(found['at']))}" if found else path


def _common_folder(files: list[str]) -> str:
    """The folders that all ``files`` begin with; of one file those above its run."""
    if not files:
        return ""
    above = [PurePosixPath(re.sub(r"/checkpoints/[^/]*$", "", path)).parts[:-1] for path in files]
    common: list[str] = []
    for level in zip(*above, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    folder = "/".join(common).replace("//", "/")
    return f"{folder}/" if folder and all(path.startswith(f"{folder}/") for path in files) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
