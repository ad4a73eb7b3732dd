"""The plan file of a ladder, and the runs it stands for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clipeval.errors import UsageError, suggest
from clipeval_train.config import Frozen, Place, PretrainConfig, Real, numbers, read, validated
from clipeval_train.ladder import slurm, trunks
from clipeval_train.ladder.runs import Run, make

_NOT_VARIED = {"out", "resume", "arch", "data"}
_AXES = ["model", "source", *(key for key in PretrainConfig.model_fields if key not in {"model", *_NOT_VARIED})]
"""What ``grid`` may vary, in the order in which values are put together to a run's name."""
_SHORT_NAMES = ("model", "source", "samples")
"""Their values say enough: in a run's name the key is left out."""


class LadderConfig(Frozen):
    """What a plan file says."""

    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Key of a pre-training configuration, or ``source``, and the values it takes. Every combination is one run."""
    runs: tuple[dict[str, Any], ...] = ()
    """Further runs one by one, each with its value of such keys."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """The other keys of the runs' configurations, and ``processes``: how many train a run together."""
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Names for ``grid.model``, and what each stands for: an inline open_clip configuration, or ``model`` (that, or a
    name of open_clip) and beside it the keys in which its runs differ from ``defaults``."""
    sources: dict[str, dict[str, Any] | tuple[dict[str, Any], ...]] = Field(default_factory=dict)
    """Names for ``grid.source`` and the ``data`` entries each stands for, one or a list of them."""
    mixtures: dict[str, dict[str, Annotated[Real, Field(ge=0)]]] = Field(default_factory=dict)
    """More names for ``grid.source``, and the shares of ``sources`` in each, relative to one another:
    ``{material: 1, phosphor-remix: 3}``."""
    slurm: dict[str, Any] = Field(default_factory=dict)
    """For ``--slurm``: options of sbatch without their dashes, and ``setup``, lines of shell before the training."""
    price_per_hour: Real | None = Field(None, ge=0)
    """Of what one run occupies: a GPU, or on a CPU one of the processes that train side by side."""
    out: Place
    """The folder of all runs, each in one of its own."""


@dataclass(frozen=True)
class Ladder:
    """All runs of a plan, in the order of its grid, trunks in front."""

    runs: tuple[Run, ...]
    out: Path
    price_per_hour: float | None
    of_models: tuple[str, ...] = ()
    """The keys that entries of ``models`` give."""
    slurm: Mapping[str, Any] = field(default_factory=dict)


def load_ladder(path: Path, settings: Sequence[str] = ()) -> Ladder:
    """Read a plan file, with ``key=value`` settings on top (``defaults.lr=1e-3``), and expand its grid.

    Raises UsageError that names the file and the key for an unknown key or name, an empty grid, two equal runs and
    whatever a run's configuration may not say.
    """
    document, origin = read(path, settings, LadderConfig)
    config = validated(numbers(document), origin, LadderConfig)
    _check_keys(config, origin)
    _check_models(config, origin)
    _check_mixtures(config, origin)
    with _from(origin):
        slurm.check(config.slurm)
    axes = [key for key in _AXES if key in config.grid]
    placed = ([(f"grid.{key}[{place}]", value) for place, value in enumerate(config.grid[key])] for key in axes)
    cells: list[Cell] = [dict(zip(axes, values, strict=True)) for values in itertools.product(*placed) if axes]
    for place, run in enumerate(config.runs):
        cells.append({key: (f"runs[{place}].{key}", run[key]) for key in _AXES if key in run})
    _refuse_equal_runs(cells, origin)
    runs = [_run(cell, config, origin) for cell in cells]
    runs = trunks.with_trunks(runs, [_name(cell, without=trunks.KEYS) for cell in cells])
    beside = (key for entry in config.models.values() if "model" in entry for key in entry if key != "model")
    of_models = tuple(dict.fromkeys(beside))
    return Ladder(tuple(runs), Path(config.out), config.price_per_hour, of_models, config.slurm)


@contextmanager
def _from(origin: str) -> Iterator[None]:
    """Messages on a key say where it stands."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{origin}: {error}") from error


Cell = Mapping[str, tuple[str, Any]]
"""Key of the grid -> where the plan gives its value, and the value."""


def _check_keys(config: LadderConfig, origin: str) -> None:
    if not config.grid and not config.runs:
        raise UsageError(f"{origin}: grid: this key is required, or `runs`: a list of single runs.")
    for place, run in enumerate(config.runs):
        for key in run:
            _check_axis(key, f"{origin}: runs[{place}]")
    for key, values in config.grid.items():
        if key in ("data", "arch"):
            raise UsageError(f"{origin}: grid.{key}: vary `source` and name the data of each under `sources`.")
        _check_axis(key, f"{origin}: grid")
        if not values:
            raise UsageError(f"{origin}: grid.{key}: an empty list leaves nothing to run. Name at least one value.")
        if key in config.defaults:
            raise UsageError(f"{origin}: defaults.{key}: grid.{key} gives its values. Leave one of the two out.")
    if "out" in config.defaults:
        raise UsageError(f"{origin}: defaults.out: every run has a folder of its own. Give `out` at the top.")
    if "source" in _varied(config) and "data" in config.defaults:
        raise UsageError(f"{origin}: defaults.data: {_varied(config)['source']} gives the data. Leave one of them out.")


def _check_axis(key: str, where: str) -> None:
    if key not in _AXES:
        raise UsageError(f"{where}.{key}: unknown key.{suggest(key, _AXES)} Keys here: {', '.join(_AXES)}.")


def _check_models(config: LadderConfig, origin: str) -> None:
    """Whether entries that hold more than an architecture may say what they say."""
    for name, entry in config.models.items():
        for key in entry:
            where = f"{origin}: models.{name}.{key}"
            if "model" not in entry and key in (*PretrainConfig.model_fields, "processes"):
                raise UsageError(f"{where}: is a key of a run. Put the architecture beside it, under `model`.")
            if "model" in entry and key in _varied(config) and key != "model":
                raise UsageError(f"{where}: {_varied(config)[key]} gives its values. Leave one of the two out.")
            if "model" in entry and key in _NOT_VARIED:
                raise UsageError(f"{where}: architectures cannot differ in it. Leave it out here.")


def _check_mixtures(config: LadderConfig, origin: str) -> None:
    for name, shares in config.mixtures.items():
        where = f"{origin}: mixtures.{name}"
        if name in config.sources:
            raise UsageError(f"{where}: is a name in `sources`, too. Give it another.")
        for source in shares:
            if source not in config.sources:
                raise UsageError(f"{where}.{source}: {_not_there(source, 'sources', config.sources)}")
        if not sum(shares.values()) > 0:
            raise UsageError(f"{where}: no source has a share above 0.")


def _not_there(name: str, key: str, known: Mapping[str, Any]) -> str:
    return f"'{name}' is not in `{key}`.{suggest(name, known)} There are: {', '.join(known) or 'none'}."


def _varied(config: LadderConfig) -> dict[str, str]:
    """Keys in which runs differ, and where that stands."""
    return {key: f"runs.{key}" for run in config.runs for key in run} | {key: f"grid.{key}" for key in config.grid}


def _refuse_equal_runs(cells: Sequence[Cell], origin: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(_name(cell), cell)
        if other is not cell:
            places = [f"{other[key][0]} and {cell[key][0]}" for key in cell if other[key] != cell[key]]
            raise UsageError(
                f"{origin}: {', '.join(places)}: two runs would be equal, or at least both be called '{_name(cell)}'. "
                "Every run needs other values."
            )


def _name(cell: Cell, without: Sequence[str] = ()) -> str:
    """``xs-a-32000``; further keys with theirs: ``xs-a-32000-seed1``."""
    kept = [(key, _word(value)) for key, (_, value) in cell.items() if key not in without]
    return "-".join(word if key in _SHORT_NAMES else f"{key}{word}" for key, word in kept)


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"[^\w.+-]+", "_", str(value)).strip("_.")


def _run(cell: Cell, config: LadderConfig, origin: str) -> Run:
    name = _name(cell)
    document = config.defaults | {key: value for key, (_, value) in cell.items() if key != "source"}
    places = {key: place for key, (place, _) in cell.items()}
    if "source" in cell:
        chosen = str(cell["source"][1])
        if chosen in config.mixtures:
            document["data"] = _mixed(chosen, config)
            places["data"] = f"mixtures.{chosen}"
        elif chosen in config.sources:
            document["data"] = _entries(chosen, config)
            places["data"] = f"sources.{chosen}"
            if isinstance(config.sources[chosen], dict):
                places["data[0]"] = places["data"]
        else:
            raise UsageError(f"{origin}: {places['source']}: {_not_there(chosen, 'sources', config.sources)}")
    if (model := document.get("model")) in config.models:
        entry = config.models[model]
        places["model"] = f"models.{model}"
        if "model" in entry:
            places |= {key: f"models.{model}.{key}" for key in entry}
        else:
            entry = {"model": entry}
        document |= entry
        if isinstance(document["model"], dict):
            document["arch"] = model
    document["out"] = (Path(config.out) / name).as_posix()
    try:
        processes = _processes(document.pop("processes", 1))
        return make(name, _counted(document), Path(config.out), processes=processes)
    except UsageError as error:
        raise UsageError(f"{origin}: {_placed(str(error).removeprefix(': '), places)}") from error


def _entries(source: str, config: LadderConfig) -> list[dict[str, Any]]:
    listed = config.sources[source]
    return [{"source": source} | entry for entry in (listed if isinstance(listed, tuple) else (listed,))]


def _mixed(mixture: str, config: LadderConfig) -> list[dict[str, Any]]:
    """The entries of all sources with a share, which is divided among those of one as their own weights say."""
    found = []
    for source, share in config.mixtures[mixture].items():
        entries = _entries(source, config)
        weights = [numbers(entry.get("weight", 1.0)) for entry in entries]
        if not all(isinstance(weight, int | float) and weight > 0 for weight in weights):
            return entries  # refused where it is validated
        found += [
            entry | {"weight": share * weight / sum(weights)}
            for entry, weight in zip(entries, weights, strict=True)
            if share
        ]
    return found


def _processes(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"processes: {number!r}: expected how many processes train a run, a whole number from 1.")
    return number


def _counted(document: dict[str, Any]) -> dict[str, Any]:
    """With the cooldown in samples: a ladder may give it as a share of them, which suits runs of any length."""
    share, samples = document.get("cooldown"), document.get("samples")
    if isinstance(share, float) and 0 < share < 1 and isinstance(samples, int | float):
        return document | {"cooldown": round(share * samples)}
    return document


def _placed(message: str, places: Mapping[str, str]) -> str:
    """A message on a run's configuration, which starts with the key, as one on the plan file."""
    for key in sorted(places, key=len, reverse=True):
        if re.match(rf"{re.escape(key)}[.:\[]", message):
            return places[key] + message.removeprefix(key)
    return f"defaults.{message}"
