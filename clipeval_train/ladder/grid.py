"""The plan file of a ladder, and the runs it stands for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from clipeval.errors import UsageError, suggest
from clipeval.explained import explain
from clipeval.yaml_file import read_yaml
from clipeval_train.config import Frozen, Place, PretrainConfig, Real, apply_setting, numbers, parse_pretrain
from clipeval_train.initial import Initial
from clipeval_train.model import Architecture

_NOT_VARIED = {"out", "resume", "arch", "data"}
_AXES = ["model", "source", *(key for key in PretrainConfig.model_fields if key not in {"model", *_NOT_VARIED})]
"""What ``grid`` may vary, in the order in which values are put together to a run's name."""
_SHORT_NAMES = ("model", "source", "samples")
"""Their values say enough: in a run's name the key is left out."""


class LadderConfig(Frozen):
    """What a plan file says."""

    grid: dict[str, tuple[Any, ...]] = Field(min_length=1)
    """Key of a pre-training configuration, or ``source``, and the values it takes. Every combination is one run."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """The other keys of the runs' configurations."""
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Names for ``grid.model`` and inline open_clip configurations; open_clip's own names need no entry."""
    sources: dict[str, dict[str, Any] | tuple[dict[str, Any], ...]] = Field(default_factory=dict)
    """Names for ``grid.source`` and the ``data`` entries each stands for, one or a list of them."""
    price_per_hour: Real | None = Field(None, ge=0)
    """Of what one run occupies: a GPU, or on a CPU one of the processes that train side by side."""
    out: Place


class _WithoutAliases(yaml.SafeDumper):
    """A value that comes twice is written twice: configurations are read without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class Run:
    """One pre-training run: ``document`` is its configuration as a file holds it, ``config`` the same, validated."""

    name: str
    document: dict[str, Any]
    config: PretrainConfig
    architecture: Architecture

    @property
    def file(self) -> Path:
        """Where its configuration is kept."""
        return hidden(Path(self.config.out).parent) / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.file.with_suffix(".log")

    @property
    def yaml(self) -> str:
        """The configuration's text: ``clipeval-train pretrain`` takes a file of it."""
        return yaml.dump(self.document, Dumper=_WithoutAliases, sort_keys=False)


@dataclass(frozen=True)
class Ladder:
    """All runs of a plan, in the order of its grid."""

    runs: tuple[Run, ...]
    out: Path
    price_per_hour: float | None


def hidden(out: Path) -> Path:
    """The folder for everything that is not a run."""
    return out / ".ladder"


def load_ladder(path: Path, settings: Sequence[str] = ()) -> Ladder:
    """Read a plan file, with ``key=value`` settings on top (``defaults.lr=1e-3``), and expand its grid.

    Raises UsageError that names the file and the key for an unknown key or name, an empty grid, two equal runs and
    whatever a run's configuration may not say.
    """
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping with the keys {', '.join(LadderConfig.model_fields)}.")
    for setting in settings:
        apply_setting(document, setting)
    origin = " ".join([str(path), *settings])
    try:
        config = LadderConfig.model_validate(numbers(document))
    except ValidationError as error:
        raise UsageError(explain(error, origin, lambda _: LadderConfig)) from error
    _check_keys(config, origin)
    axes = [key for key in _AXES if key in config.grid]
    cells = [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*(enumerate(config.grid[key]) for key in axes))
    ]
    _refuse_equal_runs(cells, origin)
    return Ladder(tuple(_run(cell, config, origin) for cell in cells), Path(config.out), config.price_per_hour)


Cell = Mapping[str, tuple[int, Any]]
"""Key of the grid -> position in its list of values, and the value."""


def _check_keys(config: LadderConfig, origin: str) -> None:
    for key, values in config.grid.items():
        if key in ("data", "arch"):
            raise UsageError(f"{origin}: grid.{key}: vary `source` and name the data of each under `sources`.")
        if key not in _AXES:
            raise UsageError(f"{origin}: grid.{key}: unknown key.{suggest(key, _AXES)} Keys here: {', '.join(_AXES)}.")
        if not values:
            raise UsageError(f"{origin}: grid.{key}: an empty list leaves nothing to run. Name at least one value.")
        if key in config.defaults:
            raise UsageError(f"{origin}: defaults.{key}: grid.{key} gives its values. Leave one of the two out.")
    if "out" in config.defaults:
        raise UsageError(f"{origin}: defaults.out: every run has a folder of its own. Give `out` at the top.")
    if "source" in config.grid and "data" in config.defaults:
        raise UsageError(f"{origin}: defaults.data: grid.source gives the data. Leave one of the two out.")


def _refuse_equal_runs(cells: Sequence[Cell], origin: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(_name(cell), cell)
        if other is not cell:
            places = [f"grid.{key}[{other[key][0]}] and [{cell[key][0]}]" for key in cell if other[key] != cell[key]]
            raise UsageError(
                f"{origin}: {', '.join(places)}: two runs would be equal, or at least both be called '{_name(cell)}'. "
                "Every run needs other values."
            )


def _name(cell: Cell) -> str:
    """``xs-a-32000``; further keys with theirs: ``xs-a-32000-seed1``."""
    words = [_word(value) if key in _SHORT_NAMES else f"{key}{_word(value)}" for key, (_, value) in cell.items()]
    return "-".join(words)


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"[^\w.+-]+", "_", str(value)).strip("_.")


def _run(cell: Cell, config: LadderConfig, origin: str) -> Run:
    name = _name(cell)
    document = config.defaults | {key: value for key, (_, value) in cell.items() if key != "source"}
    places = {key: f"grid.{key}[{position}]" for key, (position, _) in cell.items()}
    if "source" in cell:
        chosen, listed = cell["source"][1], config.sources.get(str(cell["source"][1]))
        if listed is None:
            raise UsageError(
                f"{origin}: {places['source']}: '{chosen}' is not in `sources`.{suggest(str(chosen), config.sources)} "
                f"There are: {', '.join(config.sources) or 'none'}."
            )
        entries = listed if isinstance(listed, tuple) else (listed,)
        document["data"] = [{"source": chosen} | entry for entry in entries]
        places["data"] = f"sources.{chosen}"
        if isinstance(listed, dict):
            places["data[0]"] = places["data"]
    if (chosen := document.get("model")) in config.models:
        document |= {"arch": chosen, "model": config.models[chosen]}
        places["model"] = f"models.{chosen}"
    document["out"] = (Path(config.out) / name).as_posix()
    try:
        parsed = parse_pretrain(document, "")
        return Run(name, document, parsed, Initial(parsed).architecture)
    except UsageError as error:
        raise UsageError(f"{origin}: {_placed(str(error).removeprefix(': '), places)}") from error


def _placed(message: str, places: Mapping[str, str]) -> str:
    """A message on a run's configuration, which starts with the key, as one on the plan file."""
    for key in sorted(places, key=len, reverse=True):
        if re.match(rf"{re.escape(key)}[.:\[]", message):
            return places[key] + message.removeprefix(key)
    return f"defaults.{message}"
