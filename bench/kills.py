"""kill -9 all over every command that writes, then the same command again: what is lost, wrong, doubled or left behind.

Commands run in forked children of this process, which has imported everything, so that kills fall into their work. Half
of the kills come at a random moment of a phase, the other half just before one of its system calls that change files,
or in the middle of a write. After each kill everything that can be read must be as before the command or as after an
undisturbed one; after some of them the command is left to end, and all of it must be as after the undisturbed one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

KILLS_PER_ROUND = 6
SECONDS_TO_END = 300.0
RUN = (
    *("clipeval", "run", "-m", "a.pt", "-d", "builtin:digits", "-d", "wds:pairs", "-t", "classification"),
    *("-t", "retrieval", "-t", "probe", "--shots", "2", "--device", "cpu", "--batch-size", "24", "--workers", "2"),
)
State = dict[str, str]


@dataclass(frozen=True)
class Command:
    """A command line, the functions that are its phases, how to read what it leaves, and its part of the kills."""

    name: str
    words: tuple[str, ...]
    phases: dict[str, str]
    state: Callable[[Path], State]
    share: int
    before: str = ""
    """The folder that lies at OUT when the command starts; empty: none."""


def commands() -> list[Command]:
    """Every command that writes. Paths are those of ``prepare``; ``out`` and ``cache`` are made anew for each round."""
    phases = {
        "planning": "clipeval.evaluation.plan:build",
        "texts": "clipeval.embeddings.texts:embed",
        "images": "clipeval.embeddings.images:embed",
        "scoring": "clipeval.evaluation.workbench:Workbench.measure",
        "ledger": "clipeval.evaluation.journal:Journal.finish",
        "table": "clipeval.results.table:write",
    }
    save = {"saving": "clipeval_train.checkpoint:save"}
    return [
        Command("run", (*RUN, "-m", "b.pt", "-o", "out"), phases, results_state, 40),
        Command("report", ("clipeval", "report", "new", "-o", "out"), {}, files_state, 12, "old_page"),
        Command(
            "fit",
            (
                "clipeval",
                "fit",
                "-d",
                "flickr30k",
                "--metric",
                "image_retrieval_recall@5",
                "--bootstrap",
                "100",
                "-o",
                "out",
            ),
            {"writing": "clipeval.scaling.output.result:FitResult.write"},
            files_state,
            10,
        ),
        Command("import", ("clipeval", "import", "new/results.csv", "-o", "out"), {}, files_state, 8, "old_table"),
        Command(
            "baseline",
            ("clipeval", "check", "new", "--against", "out", "--update-baseline"),
            {"updating": "clipeval.checks.baseline:update"},
            files_state,
            12,
            "old",
        ),
        Command("pretrain", ("clipeval-train", "pretrain", "pretrain.yaml", "out=out"), save, weights_state, 10),
        Command("finetune", ("clipeval-train", "finetune", "finetune.yaml", "out=out"), save, weights_state, 8),
    ]


# What a command leaves, as name -> digest. Only whole, visible things count: a half-written one has a name of its own.


def files_state(out: Path) -> State:
    """Every visible file by its bytes."""
    return {
        str(path.relative_to(out)): _digest(path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


_KEY = ("model", "dataset", "task", "shots", "seed", "metric")


def results_state(out: Path) -> State:
    """Rows of both tables without what a clock decides, finished cells of the ledger, and per-sample files."""
    import clipeval
    from clipeval.results.schema import TIMING_COLUMNS

    state = {f"samples/{path.name}": _digest(path.read_bytes()) for path in (out / "samples").glob("*.parquet")}
    for file in ("results.parquet", "results.csv"):
        if (out / file).exists():
            frame = clipeval.read_results(out / file).drop(columns=[*TIMING_COLUMNS, "git_commit"])
            rows = frame.astype(object).to_dict("records")
            state |= _numbered((f"{file}: {' '.join(str(row[name]) for name in _KEY)}", row) for row in rows)
    lines = (out / "ledger.jsonl").read_bytes().splitlines() if (out / "ledger.jsonl").exists() else []
    cells = [entry for line in lines if (entry := _entry(line)).get("kind") == "cell"]
    return state | _numbered(
        (f"ledger: {cell['cell']}", [(row["metric"], row["value"], row["status"]) for row in cell["rows"]])
        for cell in cells
    )


def weights_state(out: Path) -> State:
    """Every tensor of every checkpoint up to the one that OUT/latest names: those that are there for good."""
    import torch

    if not (out / "latest").exists():
        return {}
    latest = Path((out / "latest").read_text().strip()).name
    state = {}
    for path in (out / "checkpoints").glob("*.pt"):
        if path.name <= latest:
            content = torch.load(path, weights_only=True)
            for part in ("state_dict", "ema"):
                for name, tensor in (content.get(part) or {}).items():
                    state[f"{path.name}: {part} {name}"] = _digest(tensor.numpy().tobytes())
    return state


def _numbered(items: Iterator[tuple[str, Any]]) -> State:
    """A digest per name; a name that comes again gets a number and so shows as doubled."""
    state: State = {}
    seen: Counter[str] = Counter()
    for name, value in items:
        seen[name] += 1
        state[f"{name} ({seen[name]})"] = _digest(repr(value).encode())
    return state


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:  # cut off by a kill
        return {}
    return entry if isinstance(entry, dict) else {}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# The child: a command with a watch on its phases and its writes


class Watch:
    """What a child tells its parent through shared memory: the phase it is in, and of each phase writes and seconds."""

    def __init__(self, phases: list[str]) -> None:
        self.phases = phases
        self._shared = np.frombuffer(mmap.mmap(-1, 8 * (1 + 2 * len(phases))), np.float64)
        self.writes, self.seconds = self._shared[1:].reshape(2, -1)

    @property
    def phase(self) -> int:
        """The number of the phase that the child is in, or was in when it died."""
        return int(self._shared[0])

    def clear(self) -> None:
        """Before another child."""
        self._shared[:] = 0

    @contextmanager
    def during(self, phase: int) -> Iterator[None]:
        """The child is in this phase."""
        before = self.phase
        self._switch(phase)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, phase: int) -> None:
        now = time.monotonic()
        self.seconds[self.phase] += now - getattr(self, "_since", now)
        self._since, self._shared[0] = now, phase

    def install(self, functions: dict[str, str], aim: tuple[int, int] | None) -> None:
        """Watch this process, and let it die at write ``aim[1]`` of phase ``aim[0]``."""
        self._since = time.monotonic()
        for name, address in functions.items():
            module, _, path = address.partition(":")
            *owners, function = path.split(".")
            owner = import_module(module)
            for part in owners:
                owner = getattr(owner, part)
            setattr(owner, function, self._watched(getattr(owner, function), self.phases.index(name)))
        pwrite, fsync = os.pwrite, os.fsync

        def is_aimed() -> bool:
            self.writes[self.phase] += 1
            return aim == (self.phase, int(self.writes[self.phase]))

        def half_written(file: int, data: Any, offset: int) -> int:
            if is_aimed():
                pwrite(file, data[: len(data) // 2], offset)
                _die()
            return pwrite(file, data, offset)

        def before_event(event: str, arguments: tuple[Any, ...]) -> None:
            if (event in _CHANGES or (event == "open" and _is_written(arguments))) and is_aimed():
                _die()

        os.pwrite = half_written
        os.fsync = lambda file: _die() if is_aimed() else fsync(file)
        sys.addaudithook(before_event)

    def _watched(self, function: Callable[..., Any], phase: int) -> Callable[..., Any]:
        @wraps(function)
        def called(*words: Any, **options: Any) -> Any:
            with self.during(phase):
                return function(*words, **options)

        return called


_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.copyfile"}


def _is_written(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    inside = not isinstance(path, int) and not os.fsdecode(path).startswith(("/dev/", "/proc/"))
    return inside and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _die() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)  # with the decoders


def _start(command: Command, watch: Watch, aim: tuple[int, int] | None = None) -> int:
    """The command in a process group of its own, its words going to ``log``; the process number."""
    watch.clear()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        watch.install(command.phases, aim)
        sys.argv = list(command.words)
        with watch.during(0):
            import_module("clipeval.cli" if command.words[0] == "clipeval" else "clipeval_train.cli").main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _ended(child: int, timeout: float = SECONDS_TO_END) -> int | None:
    """How the child ended: its exit code, or minus the signal; None when it has not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def _asked(function: Callable[[Path], State], out: Path) -> State:
    """``function(out)``, called in a child: this process stays without threads."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = function(out) if out.exists() else {}
        except BaseException as error:
            answer = {f"not readable: {type(error).__name__}: {error}": ""}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.load(pipe)
    os.waitpid(child, 0)
    return answer


# Rounds


@dataclass
class Tally:
    """What the kills of one command have done. ``hits`` counts by phase, ``faults`` by phase and kind."""

    hits: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def find(self, kind: str, phase: str, names: list[str]) -> None:
        """Faults of a kind that showed after a kill in ``phase``."""
        self.faults[phase, kind] += len(names)
        self.said += [f"{kind} after a kill in {phase}: {name}" for name in names[:3]]


def kill(command: Command, kills: int, chance: random.Random) -> Tally:
    """Kill ``command`` so many times, in rounds that end with a whole result."""
    watch = Watch(["elsewhere", *command.phases])
    before = _fresh(command)
    if _ended(_start(command, watch)) != 0:
        raise RuntimeError(f"{' '.join(command.words)} fails undisturbed:\n{Path('log').read_text()[-3000:]}")
    calm, writes, seconds = _asked(command.state, Path("out")), watch.writes.copy(), watch.seconds.copy()
    tally = Tally()
    while sum(tally.hits.values()) < kills:
        _fresh(command)
        reached = {name for name, digest in before.items() if name in calm}
        phase = ""
        for _ in range(min(KILLS_PER_ROUND, kills - sum(tally.hits.values()))):
            if not _killed(command, watch, writes, seconds, chance):
                break
            phase = watch.phases[watch.phase]
            tally.hits[phase] += 1
            state = _asked(command.state, Path("out"))
            tally.find("lost", phase, sorted(reached - state.keys()))
            known = {(name, digest) for whole in (before, calm) for name, digest in whole.items()}
            odd = sorted(name for name, digest in state.items() if (name, digest) not in known)
            _find_odd(tally, phase, odd)
            reached |= state.keys() & calm.keys()
        code = _ended(_start(command, watch))
        if code != 0:
            tally.find("wrong", phase, [f"then exit {code}: {Path('log').read_text()[-500:]}"])
        end = _asked(command.state, Path("out"))
        tally.find("lost", phase, sorted(calm.keys() - end.keys()))
        _find_odd(tally, phase, sorted(name for name in end if end[name] != calm.get(name)))
        tally.left += [str(path) for top in ("out", "cache") for path in Path(top).rglob("*") if ".tmp" in path.name]
    return tally


def _find_odd(tally: Tally, phase: str, names: list[str]) -> None:
    doubled = [name for name in names if name.endswith(")") and not name.endswith("(1)")]
    tally.find("doubled", phase, doubled)
    tally.find("wrong", phase, [name for name in names if name not in doubled])


def _fresh(command: Command) -> State:
    """A round begins: what lies at OUT, and an empty cache."""
    for path in ("out", "cache"):
        shutil.rmtree(path, ignore_errors=True)
    Path("log").write_text("")
    if command.before:
        shutil.copytree(command.before, "out")
    return _asked(command.state, Path("out"))


def _killed(command: Command, watch: Watch, writes: np.ndarray, seconds: np.ndarray, chance: random.Random) -> bool:
    """Start the command and kill it somewhere in a phase; False when it had ended before."""
    phase = chance.choice([number for number, spent in enumerate(seconds) if spent > 0])
    if writes[phase] and chance.random() < 0.5:
        child = _start(command, watch, (phase, chance.randint(1, int(writes[phase]))))
        return _ended(child) == -signal.SIGKILL and _all_gone(child)
    child = _start(command, watch)
    while (code := _ended(child, 0.002)) is None and watch.phase != phase:
        pass
    code = _ended(child, chance.uniform(0.0, seconds[phase])) if code is None else code
    if code is not None:
        return False
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(child, signal.SIGKILL)
    return _ended(child) == -signal.SIGKILL and _all_gone(child)


def _all_gone(group: int) -> bool:
    """Wait until the decoders are dead, too: each holds the lock of the results folder."""
    while any(_lives(process, group) for process in Path("/proc").glob("[0-9]*")):
        time.sleep(0.001)
    return True


def _lives(process: Path, group: int) -> bool:
    try:
        state, _, its_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:  # it has ended meanwhile
        return False
    return int(its_group) == group and state not in "ZX"


# Inputs


def prepare() -> None:
    """Checkpoints, data, configurations, and the results that other commands read, in the working folder."""
    from bench.data import write_split

    for seed, name in enumerate("ab"):
        _tiny_checkpoint(Path(f"{name}.pt"), seed)
    rng = np.random.default_rng(0)
    write_split(Path("pairs/test"), [{"png": _png(rng), "txt": f"thing {i}".encode()} for i in range(100)])
    Path("pairs/dataset_type.txt").write_text("retrieval")
    vision = "{image_size: 16, patch_size: 8, width: 8, layers: 1, head_width: 4}"
    Path("pretrain.yaml").write_text(
        f"model: {{embed_dim: 8, vision_cfg: {vision}, text_cfg: {{context_length: 12, width: 8, heads: 2, layers: 1}}}}\n"
        "data: [{source: digits, shards: 'builtin:digits'}]\n"
        "samples: 1287\nbatch_size: 32\nlr: 0.01\nwarmup: 100\nsave_every: 128\nema: 0.9\nworkers: 0\nout: out\n"
    )
    Path("finetune.yaml").write_text(
        "model: a.pt\ndata: ['builtin:digits']\ntrain_head: false\niterations: 12\nbatch_size: 16\nlr: 0.001\n"
        "warmup: 2\nsave_every: 3\nworkers: 0\nout: out\n"
    )
    for words in (
        (*RUN, "-m", "b.pt", "-o", "new"),
        (*RUN, "-o", "old"),
        ("clipeval", "report", "old", "-o", "old_page"),
        ("clipeval", "import", "old/results.csv", "-o", "old_table"),
    ):
        prepared = Command("inputs", words, {}, files_state, 0)
        if _ended(_start(prepared, Watch(["elsewhere"]))) != 0:
            raise RuntimeError(f"{' '.join(words)} failed:\n{Path('log').read_text()[-3000:]}")


def _tiny_checkpoint(path: Path, seed: int) -> None:
    import open_clip
    import torch

    torch.manual_seed(seed)
    config: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    }
    facts = {"source": "toy", "samples_seen": 1000 + seed}
    weights = open_clip.CLIP(**json.loads(json.dumps(config))).state_dict()
    content = {"format": "clipeval-train-1", "arch": "tiny", "model_cfg": config, "metadata": facts}
    torch.save(content | {"state_dict": weights}, path)


def _png(rng: np.random.Generator) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _import_everything() -> None:
    for name in (
        *("torch", "open_clip", "pandas", "pyarrow.parquet", "sklearn.linear_model", "faiss", "matplotlib.pyplot"),
        *("clipeval.cli", "clipeval_train.cli", "clipeval_train.loop", "clipeval_train.finetune.classification"),
        *("clipeval.evaluation.run", "clipeval.scaling.fit"),
        *("clipeval.scaling.output.show", "clipeval.scaling.output.plots"),
        *("clipeval.reporting.page", "clipeval.checks.gate", "clipeval.checks.emit", "clipeval.checks.baseline"),
        *("clipeval.importers.import_files", "clipeval.models.loader", "torch.utils.data", "torchvision.transforms"),
        *("pyarrow.dataset", "pyarrow.pandas_compat", "fontTools.subset", "fontTools.ttLib"),
    ):
        import_module(name)


def main(*words: str) -> None:
    """Kill every command, and print per phase what came of it. Exits with 1 when something was lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how many shall hit, over all commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", nargs="+", metavar="COMMAND", help="only these")
    asked = parser.parse_args(words)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CLIPEVAL_CACHE": "cache"}
    _import_everything()
    chosen = [command for command in commands() if not asked.of or command.name in asked.of]
    shares = sum(command.share for command in chosen)
    faults = Counter[str]()
    hits = left = 0
    print(f"{'command':10} {'phase':10} {'kills':>6} {'lost':>6} {'wrong':>6} {'doubled':>8}", flush=True)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            prepare()
            for command in chosen:
                tally = kill(command, max(1, round(asked.kills * command.share / shares)), random.Random(asked.seed))
                for phase, count in tally.hits.items():
                    found = [tally.faults[phase, kind] for kind in ("lost", "wrong", "doubled")]
                    print(f"{command.name:10} {phase:10} {count:6} {found[0]:6} {found[1]:6} {found[2]:8}", flush=True)
                for line in [*tally.said[:20], *(f"left behind: {path}" for path in tally.left[:5])]:
                    print(f"           {line}")
                hits, left = hits + sum(tally.hits.values()), left + len(tally.left)
                for (_, kind), count in tally.faults.items():
                    faults[kind] += count
        finally:
            os.chdir(home)
    kinds = ", ".join(f"{faults[kind]} {kind}" for kind in ("lost", "wrong", "doubled"))
    print(f"{hits} kills hit: {kinds}; {left} temporary files left behind")
    if faults.total():
        sys.exit(1)
