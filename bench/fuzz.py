"""Broken and hostile inputs: no traceback, no hang over 20 s, no more than 2 GB, nothing executed.

``python -m bench fuzz`` takes 100,000 of them (``--inputs N``); a failing one is told by its kind and number, and
``--only KIND:NUMBER`` feeds that one alone, in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from bench import hostile

MOST_SECONDS, MOST_BYTES = 20, 2 << 30
SHARES = {"specs": 22, "yaml": 12, "table": 12, "ledger": 12, "tar": 16, "image": 20, "checkpoint": 6}
"""Per cent of all inputs."""
_FAULTS = ("traceback", "hang", "memory", "executed")


def main(*words: str) -> None:
    """Feed all kinds and print what became of them. Exits with 1 where an input did harm."""
    parser = argparse.ArgumentParser(prog="python -m bench fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, metavar="N")
    parser.add_argument("--only", metavar="KIND:NUMBER")
    options = parser.parse_args(words)
    if options.only:
        kind, _, number = options.only.partition(":")
        with _sandbox() as folder:
            print(_fed(_Feeder(folder), kind, int(number)))
        return
    total = options.inputs
    found = fuzz({kind: total * share // 100 for kind, share in SHARES.items()})
    print(f"{'kind':<12}{'inputs':>9}{'done':>9}{'refused':>9}" + "".join(f"{fault:>11}" for fault in _FAULTS))
    for kind, counts in found.outcomes.items():
        print(
            f"{kind:<12}{counts.total():>9,}{counts['done']:>9,}{counts['refused']:>9,}"
            + "".join(f"{counts[f]:>11}" for f in _FAULTS)
        )
    print(
        f"slowest: {found.slowest[0]:.1f} s ({found.slowest[1]}); most memory of a process: {found.peak / 1e9:.2f} GB"
    )
    for line in found.faults[:40]:
        print(line)
    if found.faults:
        sys.exit(1)


class Found:
    """What became of the inputs."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {}
        self.faults: list[str] = []
        self.slowest = 0.0, ""
        self.peak = 0

    def add(self, kind: str, number: int, outcome: str, detail: str, seconds: float, peak: int) -> None:
        """One input's end."""
        self.outcomes.setdefault(kind, Counter())[outcome] += 1
        self.slowest = max(self.slowest, (seconds, f"{kind}:{number}"))
        self.peak = max(self.peak, peak)
        if outcome in _FAULTS:
            self.faults.append(f"{outcome}: --only {kind}:{number} {detail}")


def fuzz(counts: dict[str, int], processes: int = 2) -> Found:
    """Feed ``counts`` inputs of each kind. A process that hangs or dies is replaced and its input counted."""
    jobs = [(kind, number) for kind, count in counts.items() for number in range(count)]
    Random(0).shuffle(jobs)
    found = Found()
    workers = [_Worker() for _ in range(processes)]
    try:
        while jobs or any(worker.job for worker in workers):
            for worker in workers:
                if worker.job is None and jobs:
                    worker.give(jobs.pop())
            for ended in worker_results(workers):
                found.add(*ended)
    finally:
        for worker in workers:
            worker.stop()
    return found


def worker_results(workers: list[_Worker]) -> list[tuple[str, int, str, str, float, int]]:
    """What ended within a moment, hangs and deaths included."""
    multiprocessing.connection.wait([worker.pipe for worker in workers if worker.job], timeout=1)
    return [ended for worker in workers if worker.job and (ended := worker.ended())]


class _Worker:
    """A process that feeds one input after the other."""

    def __init__(self) -> None:
        self.job: tuple[str, int] | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_feed, args=(theirs,), daemon=False)
        self._process.start()
        theirs.close()
        self.pipe.recv()

    def give(self, job: tuple[str, int]) -> None:
        self.job, self._since = job, time.monotonic()
        self.pipe.send(job)

    def ended(self) -> tuple[str, int, str, str, float, int] | None:
        assert self.job is not None
        kind, number = self.job
        seconds = time.monotonic() - self._since
        try:
            if self.pipe.poll():
                outcome, detail, peak = self.pipe.recv()
                if peak > MOST_BYTES:
                    self._again()
                    outcome = "memory"
                self.job = None
                return kind, number, outcome, detail, seconds, peak
        except (EOFError, ConnectionResetError):
            self._again()
            self.job = None
            return kind, number, "traceback", f"the process died with code {self._code}", seconds, 0
        if seconds > MOST_SECONDS:
            self._again()
            self.job = None
            return kind, number, "hang", f"more than {MOST_SECONDS} s", seconds, 0
        return None

    def _again(self) -> None:
        self.stop()
        self._code = self._process.exitcode
        self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _feed(pipe: Connection) -> None:
    with _sandbox() as folder:
        feeder = _Feeder(folder)
        pipe.send("ready")
        while True:
            try:
                kind, number = pipe.recv()
            except EOFError:
                return
            pipe.send((*_fed(feeder, kind, number), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


@contextlib.contextmanager
def _sandbox() -> Any:
    """A working folder and a cache of its own, no way to a hub; what would start a program is an error of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {
            "CLIPEVAL_CACHE": f"{folder}/cache",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": f"{folder}/hf",
            "HOME": folder,
        }
        os.environ |= {"OMP_NUM_THREADS": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        warnings.simplefilter("ignore")
        yield Path(folder)
        os.chdir("/")


_PROGRAMS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pty.spawn"}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An input that makes clipeval start a program does so by one of these. Its own `git` and `ldconfig` are known."""
    if event in _PROGRAMS and _watching and "git" not in str(arguments)[:40]:
        raise _ProgramStarted(f"{event}{str(arguments)[:120]}")


class _ProgramStarted(BaseException):
    pass


_watching: list[bool] = []


def _fed(feeder: _Feeder, kind: str, number: int) -> tuple[str, str]:
    """(outcome, detail) of one input."""
    from clipeval.errors import ClipevalError

    rng = Random(f"{kind}:{number}")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            getattr(feeder, kind)(rng, Path(f"{kind}-{number}"))
        outcome, detail = "done", ""
    except ClipevalError as error:
        outcome, detail = ("refused", "") if error.exit_code in (2, 3) and str(error) else ("traceback", repr(error))
    except _ProgramStarted as error:
        outcome, detail = "executed", str(error)
    except BaseException as error:
        lines = traceback.format_exception(error)
        outcome, detail = "traceback", f"{type(error).__name__}: {str(error)[:200]!r} at {lines[-2].strip()[:160]}"
    if Path(hostile.MARKER).exists():
        Path(hostile.MARKER).unlink()
        outcome = "executed"
    for path in Path().glob(f"{kind}-{number}*"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return outcome, detail


class _Feeder:
    """Sound inputs, and for each kind the functions that an input of it meets in a run."""

    def __init__(self, folder: Path) -> None:
        import torch

        import clipeval
        from bench.data import tiny_study

        torch.set_num_threads(1)
        study = tiny_study(folder / "study")
        self._table = clipeval.read_results(study / "out")
        self._ledger = (study / "out" / "ledger.jsonl").read_bytes()
        self._checkpoint = (study / "good.pt").read_bytes()
        self._content = torch.load(study / "good.pt", weights_only=True)
        self._encoder = self._loaded(str(study / "good.pt"))
        sys.addaudithook(_watch)
        _watching.append(True)

    def specs(self, rng: Random, path: Path) -> None:
        """A word after -m, -d or -t."""
        from clipeval import config, datasets, models, tasks
        from clipeval.console import say

        word, packaged = hostile.text(rng), config.packaged()
        say(word)
        which = rng.randrange(3)
        if which == 0:
            models.resolve([word], packaged)
        elif which == 1:
            self._open_all(datasets.resolve([word], packaged).datasets)
        else:
            tasks.canonical_name(word)

    def yaml(self, rng: Random, path: Path) -> None:
        """A benchmarks.yaml: read, resolved, its own data sets opened."""
        from clipeval import config, datasets, models
        from clipeval.checks.rules import Rules

        found = config.load(hostile.write(path.with_suffix(".yaml"), hostile.yaml_file(rng, _YAML)))
        Rules(found)
        _refused(lambda: models.resolve([], found))
        _refused(lambda: self._open_all(datasets.resolve(found.own_datasets, found).datasets))

    def table(self, rng: Random, path: Path) -> None:
        """A results table: read, and one command's use of it."""
        import clipeval
        from clipeval.checks import emit
        from clipeval.importers.import_files import import_files
        from clipeval.results.reading import read_tables
        from clipeval.scaling.output.show import print_fit

        suffix, data = hostile.table_file(rng, self._table)
        file = hostile.write(path.with_suffix(suffix), data)
        clipeval.read_results(file)
        use = rng.random()
        if use < 0.4:
            import_files([file])
        elif use < 0.8:
            result = clipeval.check(file, file)
            assert all(form(result) for form in emit.FORMATS.values())
        elif use < 0.97:
            print_fit(clipeval.fit(read_tables([str(file)]), bootstrap=100))
        else:
            clipeval.report(file, out=path)

    def ledger(self, rng: Random, path: Path) -> None:
        """A results folder with this ledger: the table a run writes of it, now and then the gate and the report."""
        import clipeval
        from clipeval.results import table
        from clipeval.results.ledger import Ledger

        hostile.write(path / "ledger.jsonl", hostile.ledger_file(rng, self._ledger))
        table.write(path, table.current_rows(Ledger(path)))
        use = rng.random()
        if use < 0.2:
            clipeval.check(path, path)
        elif use < 0.22:
            clipeval.report(path, out=path / "report")

    def tar(self, rng: Random, path: Path) -> None:
        """A shard of an evaluation set and of a training source, all samples read."""
        file = hostile.write(path.with_suffix(".tar"), hostile.tar_file(rng, hostile.sound_images()))
        _refused(lambda: self._train_on(file))
        self._read(f"wds:{file}")

    def image(self, rng: Random, path: Path) -> None:
        """An image file: decoded as evaluation and as training do, resized and cropped."""
        import torch

        from clipeval.datasets.images import decode
        from clipeval_train.input.bad import BadSample
        from clipeval_train.input.decode import decode_image

        data = hostile.image_file(rng, hostile.sound_images())
        with contextlib.suppress(BadSample):
            assert decode_image(data).dtype == torch.uint8
        self._encoder.pixels(decode(data, "the image"))

    def checkpoint(self, rng: Random, path: Path) -> None:
        """A checkpoint: described, loaded, an image and a text encoded."""
        data = hostile.checkpoint_file(rng, self._checkpoint, self._content)
        file = hostile.write(path.with_suffix(".pt"), data)
        encoder = self._loaded(str(file))
        encoder.encode_tokens(encoder.tokenize(["a photo"]))

    def _loaded(self, word: str) -> Any:
        from clipeval import config, models

        spec = models.resolve([word], config.packaged())[0]
        return models.load(spec, device="cpu", precision="fp32", offline=True)

    def _open_all(self, entries: dict[str, Any]) -> None:
        for entry in list(entries.values())[:5]:
            if entry.spec.startswith(_LOCAL) and "://" not in entry.spec:
                self._read(entry.spec, entry)

    def _read(self, spec: str, entry: Any = None) -> None:
        from clipeval import datasets
        from clipeval.config import DatasetEntry

        dataset = datasets.open_dataset("x", entry or DatasetEntry(spec=spec), offline=True)
        for index in range(min(len(dataset), 6)):
            self._encoder.pixels(dataset.image(index))

    def _train_on(self, file: Path) -> None:
        from clipeval_train.config import SourceEntry
        from clipeval_train.input.bad import BadSample
        from clipeval_train.input.shards import ShardSource

        source = ShardSource(SourceEntry(source="x", shards=str(file)))
        for index in range(int(source.units.sum())):
            with contextlib.suppress(BadSample):
                source.read(index)


_LOCAL = ("wds:", "folder:", "builtin:")
_YAML = """
models:
  - {name: mine, arch: ViT-B-32, pretrained: runs/epoch_32.pt, source: LAION-400M, samples_seen: 1.28e10}
  - {spec: "study/good.pt", source_family: LAION, unique_samples: 4.0e8}
zoos:
  both: [mine, "ViT-B-32,laion2b_s34b_b79k"]
datasets:
  birds: folder:study/colours
  pairs: {spec: "wds:study/pairs", n: 23, tasks: [retrieval], split: test, main_metric: image_retrieval_recall@5}
suites:
  ours: [birds, vtab/pets, imagenet1k]
tasks:
  linear_probe: {shots: [1, 5], seeds: 2}
rules:
  - {dataset: "birds*", metric: acc1, max_drop: 0.01}
"""


def _refused(act: Callable[[], Any]) -> None:
    """Let one function refuse the input, and go on to the next."""
    from clipeval.errors import ClipevalError

    try:
        act()
    except ClipevalError as error:
        if error.exit_code not in (2, 3) or not str(error):
            raise
