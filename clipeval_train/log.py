"""What a run tells: a line of JSON now and then in OUT/log.jsonl, and progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType

from clipeval.console import say
from clipeval.errors import StoreError
from clipeval.results.files import write_atomically

_LINES_PER_RUN = 200
_PLAIN_INTERVAL_SECONDS = 10.0


class TrainingLog(AbstractContextManager["TrainingLog"]):
    """Collects losses; every 1/200 of the run it writes their mean to the log.

    On a terminal progress is one live line, elsewhere a plain line at most every ten seconds.
    """

    def __init__(self, out: Path, samples: int, start: int, seconds: float) -> None:
        """``start`` samples and ``seconds`` of training were done before; later lines of the log are dropped."""
        self._path, self._name, self._samples = out / "log.jsonl", str(out), samples
        self._seen = self._since = self._first = start
        self._started = self._line_at = self._shown_at = time.monotonic()
        self._seconds_before = seconds
        self._loss_sum = 0.0
        self.loss = float("nan")
        """Mean loss of the last log line."""
        self._every = max(1, samples // _LINES_PER_RUN)
        _keep_lines_until(self._path, start)
        self._live = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
            self._live = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar = self._live.add_task(self._name, total=samples, completed=start, state="")
            self._live.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a restart included."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Samples per second since this process began to train."""
        return (self._seen - self._first) / max(time.monotonic() - self._started, 1e-9)

    def step(self, samples: int, loss: float, lr: float, scale: float) -> None:
        """A step on ``samples`` pairs is done, with this mean loss, learning rate and logit scale."""
        before, self._seen = self._seen, self._seen + samples
        self._loss_sum += loss * samples
        if self._seen // self._every > before // self._every or self._seen == self._samples:
            self._write(lr, scale)

    def _write(self, lr: float, scale: float) -> None:
        now = time.monotonic()
        fresh = self._seen - self._since
        self.loss, rate = self._loss_sum / fresh, fresh / max(now - self._line_at, 1e-9)
        record = {
            "samples": self._seen,
            "loss": self.loss,
            "lr": lr,
            "logit_scale": scale,
            "samples_per_second": rate,
            "seconds": self.seconds,
        }
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise StoreError(
                f"{self._path}: cannot write: {error.strerror}. Free space or choose another `out`."
            ) from error
        self._since, self._line_at, self._loss_sum = self._seen, now, 0.0
        state = f"{self._seen:,} of {self._samples:,} samples, loss {self.loss:.3f}, {rate:,.0f} samples/s"
        if self._live:
            self._live.update(self._bar, completed=self._seen, state=state)
        elif now - self._shown_at >= _PLAIN_INTERVAL_SECONDS:
            self._shown_at = now
            say(f"{self._name}: {state}")


def _keep_lines_until(path: Path, samples: int) -> None:
    """Drop the lines of work that was lost: it is done, and logged, again. Creates the file where there is none."""
    try:
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror}. Choose another `out`.") from error
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["samples"] <= samples]
    write_atomically(path, partial(_fill, "".join(kept)))


def _fill(text: str, path: Path) -> None:
    path.write_text(text, "utf-8")
