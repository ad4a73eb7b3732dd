"""Runs side by side in processes: resumed, isolated from each other's failures, interrupted; and the Slurm script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_ladder import ladder, plan_file, tower
from waiting import until

from clipeval import machine
from clipeval.cli import guarded
from clipeval.errors import UsageError
from clipeval_train import checkpoint
from clipeval_train.cli import app
from clipeval_train.ladder import jobs
from clipeval_train.ladder.command import Request, run_ladder
from clipeval_train.ladder.outcomes import Outcome, line_of, reason_of
from clipeval_train.ladder.processes import Slot, call, slots, start
from clipeval_train.ladder.runs import hidden

DIGITS = {"shards": "builtin:digits"}


def test_slots(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "_has_nvidia_driver", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert slots(None) == [Slot(1, None)] * 8
    assert slots(3) == [Slot(1, None)] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots(None) == [Slot(3, None)] * 2
    for words, threads in {"4,2": 4, "0": 1, "all": 1}.items():  # OpenMP's list of nested teams, and what it ignores
        monkeypatch.setenv("OMP_NUM_THREADS", words)
        assert slots(None) == [Slot(threads, None)] * (8 // threads)
    monkeypatch.setattr(machine, "_has_nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [slot.gpu for slot in slots(3)] == ["4", "6", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [slot.gpu for slot in slots(None)] == ["0", "1"]


def test_a_ladder_trains_resumes_and_is_found_by_glob(tmp_path, capsys):
    from clipeval import config
    from clipeval.models.specs import resolve

    plan = plan_file(tmp_path, grid={"model": ["xs", "s"], "source": ["a"], "samples": [64, 128]})
    assert run_ladder(Request(plan, jobs=2)) == 0
    assert "[4/4]" in capsys.readouterr().err
    out = tmp_path / "runs"
    names = {"xs-a-64", "xs-a-128", "s-a-64", "s-a-128"}
    assert {Path(spec.name).name for spec in resolve([f"{out}/*"], config.load())} == names
    metadata = {name: checkpoint.load(checkpoint.newest(out / name))["metadata"] for name in names}
    assert {name: facts["samples_seen"] for name, facts in metadata.items()} == {
        name: int(name.split("-")[2]) for name in names
    }
    assert {facts["source"] for facts in metadata.values()} == {"a"}

    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}
    assert run_ladder(Request(plan, settings=("grid.samples=[64,128,192]",), jobs=1, as_json=True)) == 0
    captured = capsys.readouterr()
    assert "4 of 6 runs are finished already" in captured.err
    rows = json.loads(captured.out)["runs"]
    assert [row["run"] for row in rows if "seconds" in row] == ["xs-a-192", "s-a-192"]
    assert written.items() <= {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}.items()


def test_a_finished_run_with_other_settings_is_not_taken_for_this_one(tmp_path, capsys):
    plan = plan_file(tmp_path, grid={"model": ["xs"], "source": ["a"], "samples": [64]})
    assert run_ladder(Request(plan, jobs=1)) == 0
    assert run_ladder(Request(plan, settings=("defaults.lr=0.005",), jobs=1)) == 3
    assert "holds a run with lr: 0.01, and this one says 0.005" in capsys.readouterr().err


def test_a_failure_leaves_the_others_alone(tmp_path, capsys):
    sources = {"a": DIGITS, "bad": {"shards": "builtin:digitz"}}
    plan = plan_file(tmp_path, grid={"model": ["xs"], "source": ["bad", "a"], "samples": [64]}, sources=sources)
    assert run_ladder(Request(plan, jobs=1, as_json=True)) == 3
    captured = capsys.readouterr()
    bad, good = json.loads(captured.out)["runs"]
    assert (bad["state"], good["state"]) == ("failed", "finished")
    assert "Did you mean 'digits'?" in bad["reason"]
    assert "exit code 2" in bad["reason"]
    assert "digitz" in Path(bad["log"]).read_text()
    assert "not trained: xs-bad-64" in captured.err


def _crash(signal_number):
    os.kill(os.getpid(), signal_number)


def test_an_interrupt_in_the_middle_of_a_start_ends_that_run_too(tmp_path, monkeypatch):
    """The run has begun, and the loop does not know it yet."""
    started = []

    def interrupted(function, arguments, slot, log):
        started.append(start(_wait, (str(tmp_path),), slot, log))
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "start", interrupted)
    runs = ladder(tmp_path, grid={"model": ["xs"], "source": ["a"], "samples": [64]}).runs
    with pytest.raises(KeyboardInterrupt):
        jobs.train(runs, [Slot(1, None)])
    assert not started[0].is_alive()


def _end(code, seconds):
    time.sleep(seconds)
    sys.exit(code)


def test_a_run_has_its_own_end_while_others_go_on(tmp_path, monkeypatch):
    ends = iter([(2, 0.0), (4, 2.0)])
    monkeypatch.setattr(jobs, "start", lambda function, arguments, slot, log: start(_end, next(ends), slot, log))
    runs = ladder(tmp_path, grid={"model": ["xs"], "source": ["a"], "samples": [64, 128]}).runs
    outcomes = jobs.train(runs, [Slot(1, None)] * 2)
    assert [outcome.reason for outcome in outcomes] == ["exit code 2: it said nothing", "exit code 4: it said nothing"]


def test_a_crash_is_reported_with_its_signal(tmp_path, monkeypatch):
    assert call(_crash, (signal.SIGSEGV,), Slot(1, None), tmp_path / "log") == -signal.SIGSEGV
    (run,) = ladder(tmp_path, grid={"model": ["xs"], "source": ["a"], "samples": [64]}).runs
    assert reason_of(-9, run) == "killed by SIGKILL"


def test_a_finished_run_whose_log_somebody_has_removed_ends_no_ladder(tmp_path):
    (run,) = ladder(tmp_path, grid={"model": ["xs"], "source": ["a"], "samples": [64]}).runs
    assert line_of(Outcome(run, 2.0, "")) == f"{run.name}: 2 s, its log is empty or gone"


def _wait(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_run_outlives_the_command(tmp_path, number):
    """An interrupt ends in 130; a killed command's runs end by themselves."""
    program = f"""if __name__ == "__main__":
        import sys
        from clipeval.cli import guarded
        sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}
        from test_ladder_jobs import two_waiting_runs
        guarded(lambda prog_name: two_waiting_runs({str(tmp_path)!r}), "test")"""
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "pids").mkdir()
    process = subprocess.Popen([sys.executable, tmp_path / "program.py"])
    children = _children(tmp_path / "pids", 2)
    process.send_signal(number)
    assert process.wait(180) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    until(lambda: not any(_alive(pid) for pid in children))


def _wait_instead(file):
    _wait(Path(file).parents[2] / "pids")


def two_waiting_runs(folder):
    """What the test above interrupts."""
    runs = ladder(Path(folder), grid={"model": ["xs"], "source": ["a", "b"], "samples": [64]}).runs
    jobs.child.pretrain = _wait_instead
    jobs.train(runs, [Slot(1, None)] * 2)


def _children(folder, count):
    until(lambda: len(list(folder.iterdir())) >= count, 300)
    return [int(path.name) for path in folder.iterdir()]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_slurm_script_trains_what_is_left(tmp_path, monkeypatch, capsys):
    plan = plan_file(tmp_path, grid={"model": ["xs", "s"], "source": ["a"], "samples": [64]})
    assert run_ladder(Request(plan, settings=("grid.model=[xs]",), jobs=1)) == 0
    capsys.readouterr()
    assert run_ladder(Request(plan, slurm=True)) == 0
    path = hidden(tmp_path / "runs") / "array.sbatch"
    assert capsys.readouterr().out == f"sbatch {path}\n"
    text = path.read_text()
    assert "#SBATCH --array=0-0\n" in text
    assert "#SBATCH --signal=TERM@120\n" in text
    assert "xs-a-64" not in text
    folder = tmp_path / "bin"  # srun that runs its arguments
    folder.mkdir()
    (folder / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (folder / "srun").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "0",
        "SLURM_ARRAY_JOB_ID": "7",
    }
    subprocess.run(["bash", path], check=True, env=environment, cwd="/")
    assert (tmp_path / "runs/s-a-64/latest").is_file()
    assert "64 samples" in (hidden(tmp_path / "runs") / "s-a-64.log").read_text()
    assert run_ladder(Request(plan, slurm=True)) == 0
    assert "2 of 2 runs are finished already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--plan", "--slurm"], 2, "--plan and --slurm: give one of them at a time"),
        (["--budget", "10"], 2, "--budget and --results belong together"),
        (["--results", "x"], 2, "--budget and --results belong together"),
        (["--jobs", "0"], 2, "--jobs"),
        (["grid.model=[sx]"], 2, "grid.model[0]: 'sx' is not an architecture of open_clip"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, capsys, arguments, code, message):
    plan = plan_file(tmp_path, models={"xs": tower(4), "s": tower(8)})
    monkeypatch.setattr(sys, "argv", ["clipeval-train", "ladder", str(plan), *arguments])
    with pytest.raises(SystemExit) as stop:
        guarded(app, "clipeval-train")
    captured = capsys.readouterr()
    assert (stop.value.code, captured.out) == (code, "")
    assert message in captured.err


def test_requests_that_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="--slurm and --budget"):
        run_ladder(Request(plan_file(tmp_path), slurm=True, budget=1.0, results=["x"]))
