"""Signals in real processes: what was finished is in the table, nothing is left running, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import image_folder, tiny_checkpoint
from waiting import until

import clipeval

SLOW = """
import sys, time
from clipeval import cli
from clipeval.models import loader

encode = loader.OpenClipEncoder.encode_images

def slow(self, pixels):
    time.sleep(0.2)
    return encode(self, pixels)

loader.OpenClipEncoder.encode_images = slow
if {slow_end}:
    from clipeval.results import table
    write = table.write
    table.write = lambda *a: (print("writing", file=sys.stderr, flush=True), time.sleep(30), write(*a))
sys.argv[0] = "clipeval"
cli.main()
"""


@pytest.fixture
def zoo(tmp_path):
    tiny_checkpoint(tmp_path / "m.pt")
    image_folder(tmp_path / "few", per_class={"train": 1, "test": 2})
    image_folder(tmp_path / "many", per_class={"train": 1, "test": 40})
    return tmp_path


class Running:
    """A run in its own process group that has measured the first data set and is embedding the second."""

    def __init__(self, zoo: Path, slow_end: bool = False, before=None) -> None:
        words = ["run", "-m", zoo / "m.pt", "-d", f"folder:{zoo}/few", "-d", f"folder:{zoo}/many", "-o", zoo / "out"]
        command = [sys.executable, "-c", SLOW.format(slow_end=slow_end), *words, "-t", "classification"]
        self.words = [str(word) for word in words] + ["-t", "classification"]
        self._log = zoo / "stderr"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in (*command, "--workers", "2", "--batch-size", "8")],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                preexec_fn=before,
            )
        self.wait_for("[1/2]")
        until(lambda: len(self.group()) >= 3, 60, lambda: self.said, self.process)  # the decoders

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.said, 60, lambda: self.said, self.process)

    def group(self) -> list[int]:
        """The processes of this run that are alive."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid and fields[0] != "Z":
                found.append(int(folder.name))
        return found

    def end(self) -> int:
        code = self.process.wait(timeout=30)
        until(lambda: not self.group(), 5, self.group)
        return code


@pytest.mark.parametrize(
    ("kind", "to_all"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, True), (signal.SIGINT, False)],
)
def test_a_signal_ends_a_run_with_its_table_written(zoo, kind, to_all, command):
    run = Running(zoo)
    (os.killpg if to_all else os.kill)(run.process.pid, kind)
    assert run.end() == 130
    assert "Interrupted. What was finished is in" in run.said
    assert "Traceback" not in run.said
    frame = clipeval.read_results(zoo / "out")
    assert set(frame[frame.status == "ok"].dataset) == {"few"}
    code, _, err = command("clipeval", *run.words, "--workers", "0")
    assert code == 0, err
    assert set(clipeval.read_results(zoo / "out").dataset) == {"few", "many"}


def test_a_second_signal_ends_it_at_once(zoo):
    run = Running(zoo, slow_end=True)
    os.killpg(run.process.pid, signal.SIGINT)
    run.wait_for("writing")
    started = time.monotonic()
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.end() == 130
    assert time.monotonic() - started < 10
    assert "Traceback" not in run.said
    assert set(clipeval.read_results(zoo / "out").dataset) == {"few"}, "of the ledger"


def test_nohup_is_respected(zoo):
    run = Running(zoo, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    os.kill(run.process.pid, signal.SIGHUP)
    assert run.end() == 0
    assert set(clipeval.read_results(zoo / "out").dataset) == {"few", "many"}


def test_a_folder_that_is_gone_below_the_process(zoo):
    gone = zoo / "gone"
    gone.mkdir()
    words = ["run", "-m", zoo / "m.pt", "-d", f"folder:{zoo}/few", "-o", zoo / "out", "-t", "classification"]
    program = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); from clipeval import cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(clipeval.read_results(zoo / "out").status) == {"ok"}
    gone.mkdir()
    words[words.index("-o") + 1] = "out"
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)
    assert (done.returncode, "Give an absolute path" in done.stderr) == (2, True)
