"""On an NVIDIA GPU, in under ten minutes: what evaluator, probe and trainer do there, against CLIP_benchmark and the CPU.

``python -m bench gpu`` needs such a machine with PyTorch. Every section is a process of its own, so that one broken path
hides no other; what is broken is a line at the end, and exit code 1. ``--device cpu --small`` runs the same sections on
a few images anywhere, to see that they run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import machine

SECTIONS = {
    "evaluator ViT-B-32": "Evaluator, ViT-B-32",
    "evaluator ViT-L-14": "Evaluator, ViT-L-14",
    "memory": "A batch that finds no memory",
    "compile": "--compile",
    "probe": "Linear probe",
    "trainer": "Trainer",
}
"""Words for ``bench.gpu_sections`` and the title of what they measure."""
LIMIT, BUDGET = 240, 570
"""Seconds of a section, and of all."""
ANSWER = "RESULT "
FOLDER = Path("results/gpu")


def main(*words: str) -> None:
    """Print a table per section; ends in 1 where one is broken, says so and does nothing where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="a toy model and a few images")
    parser.add_argument("-o", dest="out", nargs="?", const=FOLDER, type=Path, help=f"write to FOLDER ({FOLDER})")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all")
    options = parser.parse_args(words)
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"no section '{unknown[0]}'; there are {', '.join(SECTIONS)}")
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU that PyTorch can use on this machine: not measured")
        return
    card = torch.cuda.get_device_name() if options.device == "cuda" else machine()
    head = f"{card}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}, {time.strftime('%Y-%m-%d')}"
    print(head)
    found, problems, begun = {}, [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sections or SECTIONS:
            limit = min(LIMIT, BUDGET - (time.monotonic() - begun))
            rows, broken = _run(name, folder, options.device, options.small, max(1, round(limit)))
            found[name] = rows
            problems += [f"{name}: {problem}" for problem in broken]
            print(f"\n{SECTIONS[name]}\n\n{markdown(rows)}", flush=True)
    for problem in problems:
        print(f"BROKEN: {problem}")
    if options.out:
        _write(options.out / re.sub(r"[^\w.-]+", "-", card), head, found, problems)
    if problems:
        sys.exit(1)


def _run(name: str, folder: str, device: str, small: bool, limit: int) -> tuple[list[dict], list[str]]:
    """The rows of a section, and what is broken in it."""
    size = "small" if small else "full"
    command = ["timeout", "--kill-after=5", str(limit), sys.executable, "-m", "bench.gpu_sections"]  # with its children
    command += [*name.split(), "--", folder, device, size]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode in (124, 137):
        return [], [f"not done after {limit} s"]
    answers = [line for line in done.stdout.splitlines() if line.startswith(ANSWER)]
    if done.returncode or not answers:
        return [], [f"ended in {done.returncode}: {' | '.join(done.stdout.strip().splitlines()[-3:])}"]
    answer = json.loads(answers[-1].removeprefix(ANSWER))
    return answer["rows"], answer["problems"]


def markdown(rows: list[dict]) -> str:
    """A table with the columns of all rows."""
    if not rows:
        return "nothing measured"
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "–" if value is None else str(value).replace("|", "/")


def _write(path: Path, head: str, found: dict[str, list[dict]], problems: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"# {head}", *(f"## {SECTIONS[name]}\n\n{markdown(rows)}" for name, rows in found.items())]
    parts += ["## Broken\n\n" + "\n".join(f"- {problem}" for problem in problems)] if problems else []
    # a card's name may hold dots
    path.with_name(f"{path.name}.md").write_text("\n\n".join(parts) + "\n")
    document = {"machine": head, "sections": found, "broken": problems}
    path.with_name(f"{path.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{path}.md and .json written")
