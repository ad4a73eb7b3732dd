"""Ladders on a real Slurm of this machine; and what stands in a script, without one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from one_machine_slurm import LACKING, Slurm
from tiny_ladder import ladder, plan_file, tower
from tiny_run import assert_weights_close
from waiting import until

from clipeval.errors import UsageError
from clipeval_train import checkpoint
from clipeval_train.ladder import slurm as scripts
from clipeval_train.ladder.command import Request, run_ladder
from clipeval_train.ladder.runs import FINISHED, hidden, state
from clipeval_train.loop import pretrain

TINY = {"batch_size": 32, "lr": 1e-2, "warmup": 40}
BRANCHED = TINY | {"schedule": "constant", "cooldown": 0.2}
GRID = {"model": ["xs"], "source": ["a"], "samples": [160, 320]}


@pytest.fixture(scope="module")
def cluster():
    if LACKING:
        pytest.skip(f"{', '.join(LACKING)}: not on this machine (apt-get install slurm-wlm munge)")
    with Slurm() as found:
        yield found


@pytest.fixture
def slurm(cluster, monkeypatch):
    """The cluster, which this process finds too."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    return cluster


def submitted(capsys, request):
    """The ids of the jobs that the commands of ``ladder --slurm`` have made."""
    capsys.readouterr()
    assert run_ladder(request) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [subprocess.run(line, shell=True, check=True, capture_output=True, text=True).stdout for line in lines]
    return [line.removeprefix("Submitted batch job ").strip() for line in said]


def assert_same_weights(found, expected, tolerance=0.0):
    assert_weights_close(checkpoint.load(found)["state_dict"], checkpoint.load(expected)["state_dict"], atol=tolerance)


def test_a_ladder_of_trunks_and_of_several_processes(slurm, tmp_path, capsys):
    """A folder with a blank; two scripts, as a job has one number of processes; the same weights as without Slurm."""
    folder = tmp_path / "a 50% b"
    folder.mkdir()
    models = {"xs": tower(4), "s": {"model": tower(8), "processes": 2}}
    changes = {"models": models, "grid": GRID | {"model": ["xs", "s"]}, "defaults": BRANCHED}
    plan = plan_file(folder, **changes, slurm={"comment": 'for "us"', "setup": ["export TEST_SETUP=1"]})
    jobs = submitted(capsys, Request(plan, slurm=True))
    assert [slurm.wait(job) for job in jobs] == [{"0": "COMPLETED"}] * 2
    runs = ladder(folder, **changes).runs
    assert all(state(run) == FINISHED for run in runs)
    for run in (run for run in runs if not run.is_trunk):
        alone = run.config.model_copy(update={"start_from": None, "out": str(tmp_path / run.name)})
        # several processes round differently; a step moves a weight by up to 1e-2
        assert_same_weights(checkpoint.newest(Path(run.config.out)), pretrain(alone), 1e-3 * (run.processes - 1))
    job = slurm.said("scontrol", "show", "job", jobs[0])
    assert 'Comment=for "us"' in job
    assert "JobName=runs" in job
    log = runs[-1].log.read_text()
    assert re.match(rf"== .* job {jobs[1]}_0, restart 0\n|== .* job {jobs[0]}_0, restart 0\n", log)
    assert "320 samples" in log
    assert {path.name for path in hidden(folder / "runs").glob("slurm-*")} == {f"slurm-{job}_0.out" for job in jobs}


def test_what_is_told_to_stop_goes_on_and_what_is_cancelled_does_not(slurm, tmp_path, capsys):
    """The warning before the time limit is SIGTERM to the step; the rest of the array is not put back with it."""
    grid = {"model": ["xs"], "source": ["a", "b"], "samples": [24_000]}
    plan = plan_file(tmp_path, grid=grid, defaults=TINY)
    (job,) = submitted(capsys, Request(plan, slurm=True))
    runs = ladder(tmp_path, grid=grid, defaults=TINY).runs
    for run in runs:
        until(lambda run=run: "samples_per_second" in read(Path(run.config.out) / "log.jsonl"))
    capsys.readouterr()
    assert run_ladder(Request(plan, slurm=True)) == 0  # while they train
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 are training or in the queue, and left out: xs-a-24000, xs-b-24000" in captured.err

    slurm.said("scancel", f"{job}_1")
    slurm.said("scancel", "--signal=TERM", f"{job}_0")
    until(lambda: "Restarts=1" in slurm.said("scontrol", "show", "job", f"{job}_0"))
    saved = checkpoint.newest(Path(runs[0].config.out))
    assert 0 < checkpoint.load(saved)["metadata"]["samples_seen"] < 24_000
    assert slurm.wait(job) == {"0": "COMPLETED", "1": "CANCELLED"}
    text = runs[0].log.read_text()
    assert text.count("== ") == 2
    assert f"job {job}_0, restart 1" in text
    assert "told to stop; saved at" in text
    alone = runs[0].config.model_copy(update={"out": str(tmp_path / "alone")})
    assert_same_weights(checkpoint.newest(Path(runs[0].config.out)), pretrain(alone))


def test_what_waits_in_the_queue_is_left_out(slurm, tmp_path, capsys):
    """Its script stays, whatever is asked for meanwhile: a task reads its runs there when it starts."""
    plan = plan_file(tmp_path, grid=GRID, slurm={"hold": True})
    (job,) = submitted(capsys, Request(plan, slurm=True))
    first = hidden(tmp_path / "runs") / "array.sbatch"
    before = first.read_text()
    more = Request(plan, ("grid.samples=[160,320,480]",), slurm=True, as_json=True)
    assert run_ladder(more) == 0
    found = json.loads(capsys.readouterr().out)
    second = first.with_name("array-2.sbatch")
    assert found == {
        "commands": [["sbatch", str(second)]],
        "runs": ["xs-a-480"],
        "under_way": ["xs-a-160", "xs-a-320"],
    }
    assert first.read_text() == before
    slurm.said("scancel", job)
    slurm.wait(job)
    assert run_ladder(more) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == ["xs-a-160", "xs-a-320", "xs-a-480"]
    assert not second.exists()


def test_more_runs_than_an_array_may_have_tasks(slurm, tmp_path, capsys):
    grid = GRID | {"seed": list(range(10))}
    (job,) = submitted(capsys, Request(plan_file(tmp_path, grid=grid, slurm={"hold": True}), slurm=True))
    assert set(scripts.in_queue(tmp_path / "runs")) == {run.name for run in ladder(tmp_path, grid=grid).runs}
    assert len(slurm.said("squeue", "--noheader", "--array", f"--jobs={job}").splitlines()) == 16
    slurm.said("scancel", job)
    slurm.wait(job)


def test_a_whole_study_in_three_lines(slurm, tmp_path, monkeypatch, capsys):
    """As README says it, but for the data sets."""
    plan = plan_file(tmp_path, grid=GRID | {"model": ["xs", "s"]})
    monkeypatch.chdir(tmp_path)
    assert run_ladder(Request(plan, ("out=runs",), slurm=True)) == 0
    assert capsys.readouterr().out == "sbatch runs/.ladder/array.sbatch\n"
    clipeval = f"{sys.executable} -m clipeval"
    lines = f"""
        J=$(sbatch --parsable runs/.ladder/array.sbatch)
        E=$(sbatch --parsable --dependency=afterany:$J --wrap "{clipeval} run -m 'runs/*' -d digits -o R")
        sbatch --parsable --dependency=afterok:$E --wrap "{clipeval} fit R -o fitted"
    """
    done = subprocess.run(["bash", "-e", "-c", lines], check=True, capture_output=True, text=True)
    last = done.stdout.strip()
    until(lambda: "JobState=COMPLETED" in slurm.said("scontrol", "show", "job", last), 300)
    assert (tmp_path / "R" / "results.parquet").is_file()
    assert any((tmp_path / "fitted").iterdir())


def read(path):
    return path.read_text() if path.exists() else ""


# without Slurm


def test_a_task_knows_how_many_share_its_machine(slurm):
    asked = "from clipeval import machine; print(machine.ranks_here())"
    assert slurm.said("srun", "-n", "3", sys.executable, "-c", asked) == "3\n3\n3\n"


def test_a_script_that_has_fewer_tasks_than_are_in_the_queue(tmp_path, monkeypatch):
    script = hidden(tmp_path) / "array.sbatch"
    script.parent.mkdir()
    script.write_text("tasks=(\n  'a b'\n)\n")
    monkeypatch.setattr(scripts, "_said", lambda words: f"0|{script}\n3|{script}\n")
    assert scripts.in_queue(tmp_path) == {"a": script, "b": script}


def test_what_a_task_trains(tmp_path):
    runs = ladder(tmp_path, grid=GRID | {"source": ["a", "b"]}, defaults=BRANCHED).runs
    parts = [[run.name for run in part] for part in scripts.tasks(runs, 9)]
    assert parts == [
        [f"xs-{source}-{end}" for end in ("trunk-128", "trunk-256", "160", "320")] for source in ("a", "b")
    ]
    assert [run.name for run in scripts.tasks(runs, 1)[0]] == parts[0] + parts[1]
    branches = [run for run in runs if not run.is_trunk]  # the trunks are finished
    assert [len(part) for part in scripts.tasks(branches, 9)] == [1, 1, 1, 1]
    assert [len(part) for part in scripts.tasks(branches, 3)] == [2, 1, 1]


def test_options_of_sbatch(tmp_path):
    runs = ladder(tmp_path, grid=GRID).runs
    settings = {"gpus_per_task": 1, "time": "1:00:00", "signal": "TERM@300", "exclusive": True, "comment": None}
    text = scripts.script(runs, tmp_path / "my runs", settings | {"setup": "module load cuda"})
    options = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        *("job-name=my_runs", "array=0-1", "ntasks=1"),
        f'output="{tmp_path}/my runs/.ladder/slurm-%A_%a.out"',
        *("open-mode=append", "signal=TERM@300", "requeue", "gpus-per-task=1", "time=1:00:00", "exclusive"),
    ]
    assert text.index("module load cuda") < text.index("set -uo pipefail")
    unlucky = scripts.script(runs, tmp_path, {"requeue": False})
    assert "#SBATCH --no-requeue\n" in unlucky
    assert "#SBATCH --requeue" not in unlucky
    assert "scontrol requeue" not in unlucky


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"array": "0-3"}, r"slurm\.array: cannot be given: the runs decide it"),
        ({"ntasks": 8}, r"slurm\.ntasks: cannot be given: give `processes`"),
        ({"--time": "1"}, r"slurm\.--time: expected an option of sbatch without its dashes"),
        ({"time": 3600}, r"slurm\.time: 3600: YAML reads 1:00:00 as a number"),
        ({"gres": ["gpu"]}, r"slurm\.gres: expected one value\."),
        ({"comment": "a\nb"}, r"slurm\.comment: expected one line"),
        ({"setup": [["a"]]}, r"slurm\.setup: expected one value, or a list of lines"),
    ],
)
def test_mistakes_in_the_plan(tmp_path, settings, message):
    with pytest.raises(UsageError, match=rf"plan\.yaml: {message}"):
        ladder(tmp_path, slurm=settings)
