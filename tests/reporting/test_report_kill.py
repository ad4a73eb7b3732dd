"""``kill -9`` while the page is written: each file is the old one or the new one, and the next report has them all."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from made import row, table

import clipeval

FILES = ("index.html", "results.csv", "report.md", "model-index.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


def report_killed_at(results: Path, out: Path, number: int) -> int:
    """Run ``report`` in a child that is killed before it puts file ``number`` in its place; how the child ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    replace, calls = Path.replace, iter(range(100))

    def replaced(path: Path, target: Path) -> Path:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = replaced
    clipeval.report(results, out)
    os._exit(0)


def test_killed_at_each_file(tmp_path):
    old, new = (table([row("a", value=value), row("b")], tmp_path / f"results{value}") for value in (0.25, 0.75))
    clipeval.report(old, tmp_path / "old")
    clipeval.report(new, tmp_path / "new")
    before, after = contents(tmp_path / "old"), contents(tmp_path / "new")
    assert set(before) == set(FILES)
    assert all(before[name] != after[name] for name in FILES)
    out = tmp_path / "page"
    clipeval.report(old, out)
    for number in range(len(FILES)):
        assert report_killed_at(new, out, number) == -signal.SIGKILL
        found = contents(out)
        assert all(found[name] in (before[name], after[name]) for name in FILES)
        assert sum(found[name] == after[name] for name in FILES) == number
        clipeval.report(old, out)
        assert contents(out) == before
    assert report_killed_at(new, out, len(FILES)) == 0
    assert contents(out) == after
