"""What a run tells: a line of JSON now and then in OUT/log.jsonl, the same for other loggers, progress on stderr."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from clipeval.console import duration, is_watched, live, say
from clipeval.errors import StoreError, UsageError
from clipeval.files import write_text
from clipeval.plain import printable

_LINES_PER_RUN = 1000
_PLAIN_INTERVAL_SECONDS = 10.0
_COSTS = ("seconds", "gpu_hours", "energy_kwh")


class Exporter(Protocol):
    """Somewhere else the lines of the log go."""

    def write(self, samples: int, values: dict[str, float]) -> None:
        """Numbers by name at this many samples seen."""

    def close(self) -> None:
        """Everything has been written."""


class TrainingLog(AbstractContextManager["TrainingLog"]):
    """Lines at every 1/1000 of the run, in samples seen.

    On a terminal progress is one live line, elsewhere a plain line at most every ten seconds.
    """

    def __init__(
        self, out: Path, samples: int, start: int, batch_size: int, exporters: Sequence[Exporter] = ()
    ) -> None:
        """``start`` samples were done before; lines behind them are of lost work, and are dropped."""
        self._path, self._name, self._samples, self._batch_size = out / "log.jsonl", str(out), samples, batch_size
        self._exporters = exporters
        self.loss = float("nan")
        """Mean loss of the last line whose step took a whole batch: a loss is lower among fewer pairs."""
        self._shown_at = time.monotonic()
        _keep_lines_until(self._path, start)
        self._live = None
        if is_watched():
            self._live = live()
            self._bar = self._live.add_task(printable(out.name), total=samples, completed=start, state="")
            self._live.start()

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()
        for exporter in self._exporters:
            exporter.close()

    def write(self, record: dict[str, Any]) -> None:
        """A line: ``samples``, ``loss``, ``samples_per_second`` and what else there is to tell. Raises StoreError."""
        append(self._path, record)
        if record.get("batch", self._batch_size) == self._batch_size or self.loss != self.loss:
            self.loss = record["loss"]
        numbers = {key: float(value) for key, value in record.items() if isinstance(value, int | float)}
        for exporter in self._exporters:
            exporter.write(record["samples"], numbers)
        seen, speed = record["samples"], record["samples_per_second"]
        left = [f"{duration((self._samples - seen) / speed)} left"] if speed and seen < self._samples else []
        told = [f"loss {record['loss']:.3f}", f"{speed:,.0f} samples/s", *left]
        if self._live:
            self._live.update(self._bar, completed=seen, state=", ".join(told))
        elif time.monotonic() - self._shown_at >= _PLAIN_INTERVAL_SECONDS:
            self._shown_at = time.monotonic()
            say(f"{self._name}: {seen:,} of {self._samples:,} samples, {', '.join([*told, *_shares(record)])}")

    def roll_back(self, event: dict[str, Any]) -> None:
        """Training went back to ``event["samples"]``: drop the lines behind it and write the event in their place."""
        _keep_lines_until(self._path, event["samples"])
        append(self._path, event)


def due(before: int, seen: int, samples: int) -> bool:
    """Whether a step that led from ``before`` to ``seen`` of ``samples`` ends in a line of the log."""
    every = max(1, samples // _LINES_PER_RUN)
    return seen // every > before // every or seen == samples


def last_costs(out: Path) -> dict[str, Any]:
    """``seconds``, ``gpu_hours`` and ``energy_kwh`` of the log's last line: work undone by a kill has cost them too."""
    costs: dict[str, Any] = {}
    for record in records(out / "log.jsonl"):
        costs |= {key: value for key, value in record.items() if key in _COSTS}
    return costs


def records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that a killed process left unfinished is not among them. Raises StoreError, and
    UsageError for a file that no run wrote, which would be lost."""
    try:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror}. Choose another `out`.") from error
    try:
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        ours = all(line.startswith("{") for line in lines) and all(isinstance(one["samples"], int) for one in found)
    except (ValueError, KeyError, RecursionError):
        ours = False
    if not ours:
        raise UsageError(f"{path}: not the log of a run: it would be overwritten. Choose another `out`, or move it.")
    return found


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line to a log. Raises StoreError."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(record))
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror}. Free space or choose another `out`.") from error


def open_exporters(names: Sequence[str], out: Path, config: dict[str, Any], start: int) -> list[Exporter]:
    """The loggers of these ``names`` for the run in ``out``, which goes on from ``start`` samples.

    Raises UsageError when their package is missing.
    """
    return [_EXPORTERS[name](out, config, start) for name in names]


class _TensorBoard:
    def __init__(self, out: Path, config: dict[str, Any], start: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)

    def write(self, samples: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, samples)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, out: Path, config: dict[str, Any], start: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        known = out / "wandb_id"  # a run that goes on is one run there too
        if not known.exists():
            write_text(known, uuid.uuid4().hex)
        name = known.read_text("utf-8")
        self._run = wandb.init(dir=str(out), name=out.name, config=config, id=name, resume="allow")

    def write(self, samples: int, values: dict[str, float]) -> None:
        self._run.log(values, step=samples)

    def close(self) -> None:
        self._run.finish()


_EXPORTERS: dict[str, Callable[[Path, dict[str, Any], int], Exporter]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}


def _missing(package: str) -> UsageError:
    return UsageError(f"loggers: {package} is not installed here: pip install {package}, or leave it out.")


def _shares(record: dict[str, Any]) -> list[str]:
    words = {"mfu": "MFU", "data_wait": "waiting for data"}
    return [f"{record[key]:.0%} {word}" for key, word in words.items() if record.get(key) is not None]


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _keep_lines_until(path: Path, samples: int) -> None:
    """Drop the lines of work that was lost: it is done, and logged, again. Creates the file where there is none."""
    kept = [record for record in records(path) if record["samples"] <= samples]
    write_text(path, "".join(map(_line, kept)))
