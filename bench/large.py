"""CPU seconds and peak memory of ``run --plan``, and of report, fit and check, on tables of very many cells."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import tiny_checkpoint, write_picture
from bench.measure import machine, timed

CHECKPOINTS, DATASETS = 169, 35
"""The zoo on VTAB+."""
MANY_CHECKPOINTS, MANY_DATASETS = 1_000, 40
_METRICS = ("acc1", "acc5", "mean_per_class_recall")
_SOURCES = ("LAION-2B", "LAION-400M", "DataComp-1B", "CLIP-WIT", "DFN-5B")


def main(part: str = "") -> None:
    """Measure all, or of ``plan`` and ``tables`` one."""
    print(machine(), "- one core")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CLIPEVAL_CACHE": f"{folder}/cache", "HF_HOME": f"{folder}/hub", "OMP_NUM_THREADS": "1"}
        for number, measured in enumerate((_plans, _tables)):
            if part in ("", ("plan", "tables")[number]):
                measured(Path(folder))


def _clipeval(what: str, *words: str | Path) -> None:
    used = timed([Path(sys.executable).with_name("clipeval"), *words])
    print(f"{what:55} {used.cpu:7.1f} s of CPU, {used.peak_mib:6,.0f} MiB", flush=True)


def _plans(folder: Path) -> None:
    used = timed([sys.executable, "-c", "import clipeval.models.library, clipeval.cli, numpy, pandas"])
    print(f"{'imports of a plan alone':55} {used.cpu:7.1f} s of CPU, {used.peak_mib:6,.0f} MiB", flush=True)
    _clipeval(
        "plan of the zoo on VTAB+, nothing of it here",
        *["run", "-m", "open_clip", "-d", "vtab+", "--plan"],
        "-o",
        folder / "a",
    )
    words = list(_small_zoo(folder))
    plan = f"plan of {CHECKPOINTS} x {DATASETS} small ones, all here,"
    _clipeval(f"{plan} nothing measured", "run", *words, "-o", folder / "b", "--plan")
    _measured(words, folder / "b")
    _clipeval(f"{plan} all measured", "run", *words, "-o", folder / "b", "--plan")
    _clipeval(
        f"run of {CHECKPOINTS} x {DATASETS} small ones, all measured", "run", *words, "-o", folder / "b", "--json"
    )


def _small_zoo(folder: Path) -> Iterator[str]:
    """The words that name as many checkpoints and data sets as the zoo and VTAB+ have; files of the same content."""
    first = tiny_checkpoint(folder / "zoo" / "m000.pt")
    for number in range(1, CHECKPOINTS):
        os.link(first, folder / "zoo" / f"m{number:03}.pt")
    yield from ("-m", str(folder / "zoo" / "*.pt"))
    rng = np.random.default_rng(0)
    for number in range(DATASETS):
        for label in range(3):
            write_picture(folder / "sets" / f"d{number:02}" / "test" / f"class {label}" / "0.png", rng, label)
        yield from ("-d", f"folder:{folder / 'sets'}/d{number:02}")


def _measured(words: list[str], out: Path) -> None:
    """A ledger in which every cell of a plan is done, with made-up values."""
    from clipeval import config
    from clipeval.evaluation import plan
    from clipeval.evaluation.request import Options, Request
    from clipeval.results.ledger import Ledger

    given = {
        kind: [word for flag, word in zip(words[::2], words[1::2], strict=True) if flag == kind]
        for kind in ("-m", "-d")
    }
    request = Request(config=config.load(None), options=Options(out=out), models=given["-m"], datasets=given["-d"])
    ledger = Ledger(out)
    os.fsync, flush = lambda handle: None, os.fsync  # 6,000 of them measure the disk
    try:
        for cell in plan.build(request, ledger).cells:
            named = {
                "model": cell.model.name,
                "dataset": cell.dataset,
                "split": cell.entry.split,
                "task": cell.task.name,
            }
            drawn = {name: getattr(cell, name) for name in ("shots", "seed", "protocol", "precision", "limit")}
            values = {"metric": "acc1", "value": 0.5, "status": "ok", "n": 3, "device": "cpu", "images_per_second": 9.0}
            ledger.add_cell(cell.id, [named | drawn | values])
    finally:
        os.fsync = flush


def _tables(folder: Path) -> None:
    from clipeval.results import table

    write = "import sys; from pathlib import Path; from bench import large; large.write(Path(sys.argv[1]))"
    used = timed([sys.executable, "-c", write, folder / "many"])
    print(f"{'(the ledger and the table are made)':55} {used.cpu:7.1f} s of CPU, {used.peak_mib:6,.0f} MiB", flush=True)
    again = "import sys; from pathlib import Path; from clipeval.results import table, ledger; o = Path(sys.argv[1]); "
    again += "table.write(o, table.current_rows(l := ledger.Ledger(o)), l.digest)"
    used = timed([sys.executable, "-c", again, folder / "many"])
    print(f"{'ledger read, table written':55} {used.cpu:7.1f} s of CPU, {used.peak_mib:6,.0f} MiB", flush=True)
    assert table.current(folder / "many") is None
    many = f"of {MANY_CHECKPOINTS:,} x {MANY_DATASETS}"
    _clipeval(f"check {many} against itself", "check", folder / "many", "--against", folder / "many")
    _clipeval(f"report {many}", "report", folder / "many", "-o", folder / "page")
    _clipeval(f"fit {many}", "fit", folder / "many", "--json")


def write(out: Path) -> None:
    """A results folder of made-up measurements: every checkpoint on every data set, by laws with scatter."""
    from clipeval.results import table
    from clipeval.results.ledger import Ledger

    os.fsync = lambda handle: None
    ledger = Ledger(out)
    rng = np.random.default_rng(0)
    slopes, levels = rng.uniform(-0.16, -0.04, MANY_DATASETS), rng.uniform(2, 8, MANY_DATASETS)
    for number in range(MANY_CHECKPOINTS):
        facts = _facts(number, rng)
        ledger.add_checkpoint(facts)
        for place in range(MANY_DATASETS):
            error = levels[place] * facts["gmacs_total"] ** slopes[place] * np.exp(rng.normal(0, 0.1))
            ledger.add_cell(f"{number * MANY_DATASETS + place:032x}", list(_rows(facts, place, min(error, 0.97))))
    table.write(out, table.current_rows(ledger), ledger.digest)


def _facts(number: int, rng: np.random.Generator) -> dict[str, Any]:
    from clipeval.models.base import ModelInfo

    source, gmacs, samples = _SOURCES[number % len(_SOURCES)], 10 ** rng.uniform(0, 2.5), 10 ** rng.uniform(8, 10.5)
    name = f"Arch-{number % 37},tag{number}"
    info = ModelInfo(name, arch=f"Arch-{number % 37}", pretrained=f"tag{number}", checkpoint_sha256=f"{number:064x}")
    numbers = {
        "unique_samples": 4e8,
        "samples_seen": samples,
        "params": 1e8,
        "gmacs": gmacs,
        "gmacs_total": gmacs * samples,
    }
    return asdict(replace(info, source=source, source_family=source.split("-")[0], **numbers))


def _rows(facts: dict[str, Any], place: int, error: float) -> Iterator[dict[str, Any]]:
    names = {name: facts[name] for name in ("model", "checkpoint_sha256")}
    for metric, share in zip(_METRICS, (1.0, 0.4, 1.02), strict=True):
        value = 1 - min(error * share, 0.99)
        yield names | {
            "checkpoint_identity": facts["checkpoint_sha256"],
            "dataset": f"set-{place:02}",
            "split": "test",
            "dataset_fingerprint": f"{place:064x}",
            "task": "zeroshot_classification",
            "shots": None,
            "seed": 0,
            "task_version": "1",
            "metric": metric,
            "value": value,
            "ci_low": value - 0.01,
            "ci_high": min(value + 0.01, 1.0),
            "n": 5_000,
            "higher_is_better": True,
            "status": "ok",
            "precision": "fp32",
            "device": "cuda",
            "seconds": 3.0,
            "images_per_second": 2_000.0,
            "started_at": "2026-01-01T00:00:00+00:00",
            "clipeval_version": "1.0.0",
            "packages": "numpy 2.0, torch 2.5, open_clip 3.0, Pillow 11, scikit-learn 1.5, faiss 1.9",
            "prompts": "default",
            "prompts_digest": f"{place:064x}",
            "protocol": "default",
            "limit": None,
        }
