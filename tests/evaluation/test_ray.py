"""Runs on real Ray clusters as people have them: heads without cores, nodes that come later, lack files, run other
code, share no cache or die. The table is the one a local run gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint
from ray_nodes import HAS_NAMESPACES, Nodes
from waiting import until

import clipeval
from clipeval.errors import MeasureError, UsageError
from clipeval.results.schema import TIMING_COLUMNS

SECRET = "hf_" + "s3cret" * 5
_WATCH = """
import os, signal, sys, time

def watch(event, arguments):
    if event != "open" or not isinstance(arguments[0], str) or not arguments[0].endswith(".pt"):
        return
    name = os.path.basename(arguments[0])
    with open(os.environ["SEEN"], "a") as file:
        file.write(f"{name} {os.environ.get('HF_TOKEN')} {os.environ.get('AWS_PROFILE')}\\n")
    while name == "toy-c.pt" and not os.path.exists(os.environ.get("WAITS_FOR", "/")):
        time.sleep(0.05)
    with open(os.environ["DEATHS"]) as file:
        deaths = dict(line.split() for line in file)
    left = int(deaths.get(name, 0))
    if left:
        deaths[name] = left - 1
        with open(os.environ["DEATHS"], "w") as file:
            file.writelines(f"{key} {value}\\n" for key, value in deaths.items())
        if name == "toy-c.pt":
            raise MemoryError
        os.kill(os.getpid(), signal.SIGKILL)

words = " ".join(sys.orig_argv)
if "DEATHS" in os.environ and ("default_worker" in words or "evaluation.child" in words):
    sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    for seed, source in enumerate(["toy-a", "toy-b", "toy-c"]):
        tiny_checkpoint(root / "run" / "checkpoints" / f"{source}.pt", seed, source=source)
    image_folder(root / "colours")
    (root / "colours" / "test" / "red" / "notes.heic").write_text("for a remark that every table has to have")
    caption_shards(root / "pairs", images=41)
    (root / "site").mkdir()
    (root / "site" / "sitecustomize.py").write_text(_WATCH)
    (root / "deaths").write_text("")
    (root / "seen").write_text("")
    return root


@pytest.fixture(scope="module")
def words(zoo):
    tasks = ["classification", "retrieval", "probe"]
    return [str(zoo / "run/checkpoints/*.pt")], [f"folder:{zoo}/colours", f"wds:{zoo}/pairs"], tasks


def table(words, out, **more) -> pd.DataFrame:
    return clipeval.run(*words, out=out, shots=[None, 2], batch_size=2, **more).drop(columns=list(TIMING_COLUMNS))


@pytest.fixture(scope="module")
def reference(words, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPEVAL_CACHE", str(tmp_path_factory.mktemp("reference-cache")))
        return table(words, tmp_path_factory.mktemp("reference"), workers=0, executor="local")


def require_equal(found: Path | pd.DataFrame, reference: pd.DataFrame) -> None:
    if isinstance(found, Path):
        found = clipeval.read_results(found).drop(columns=list(TIMING_COLUMNS))
    pd.testing.assert_frame_equal(found, reference)


@pytest.fixture
def watched(zoo, monkeypatch):
    """``watched(name=k)``: the next k workers that open ``name.pt`` are killed; of toy-c, they are out of memory."""
    monkeypatch.setenv("PYTHONPATH", f"{zoo}/site:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("DEATHS", str(zoo / "deaths"))
    monkeypatch.setenv("SEEN", str(zoo / "seen"))

    def plan(**counts: int):
        (zoo / "deaths").write_text("".join(f"{name}.pt {count}\n" for name, count in counts.items()))
        return zoo / "deaths"

    return plan


@pytest.mark.parametrize("executor", ["ray", "processes"])
def test_killed_workers_cost_nothing_and_a_deadly_checkpoint_only_its_own_rows(
    words, reference, tmp_path, watched, executor
):
    left = watched(**{"toy-a": 2, "toy-b": 100, "toy-c": 1})
    found = table(words, tmp_path / "out", executor=executor, workers=2)
    assert {"toy-a.pt 0", "toy-c.pt 0"} <= set(left.read_text().splitlines())
    deadly = found.model.str.endswith("toy-b.pt") & (found.status != "skipped")
    assert set(found[deadly].status) == {"failed"}
    assert found[deadly].error.str.contains("3 workers died at .*toy-b.pt, the last one at").all()
    kept = reference[~reference.model.str.endswith("toy-b.pt")]
    others = found[~found.model.str.endswith("toy-b.pt")]
    pd.testing.assert_frame_equal(others.reset_index(drop=True), kept.reset_index(drop=True), check_dtype=False)
    watched()
    require_equal(table(words, tmp_path / "out", workers=0, executor="local"), reference)


def test_what_cannot_be_joined(words, tmp_path):
    with pytest.raises(MeasureError, match=r"--ray-address 127\.0\.0\.1:1: cannot join this Ray cluster"):
        table(words, tmp_path, executor="ray", ray_address="127.0.0.1:1")
    with pytest.raises(UsageError, match="only --executor ray joins a cluster"):
        table(words, tmp_path, ray_address="127.0.0.1:1")
    with pytest.raises(UsageError, match="Choose from: local, processes, ray"):
        table(words, tmp_path, executor="dask")


class Run:
    """``clipeval run --executor ray`` in a process of its own."""

    def __init__(self, nodes: Nodes, words, out: Path, *more: str, **environment: str) -> None:
        flags = [
            word for flag, values in zip(("-m", "-d", "-t"), words, strict=True) for v in values for word in (flag, v)
        ]
        command = [sys.executable, "-m", "clipeval", "run", *flags, "-o", str(out), "--batch-size", "2", *more]
        command += ["--shots", "full,2", "--executor", "ray", "--ray-address", nodes.address]
        self._log = out.with_suffix(".log")
        self.out = out
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | environment, start_new_session=True
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        self._until(lambda: text in self.said)

    def wait_for_a_value(self) -> None:
        ledger = self.out / "ledger.jsonl"
        self._until(lambda: ledger.exists() and '"status": "ok"' in ledger.read_text())

    def _until(self, done) -> None:
        until(done, 120, lambda: self.said, self.process)

    def end(self, code: int) -> str:
        assert self.process.wait(timeout=180) == code, self.said
        assert "Traceback" not in self.said
        assert "\x1b" not in self.said
        return self.said


@pytest.fixture(scope="module")
def nodes(zoo, tmp_path_factory):
    if not HAS_NAMESPACES:
        pytest.skip("nodes with files of their own need mount namespaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        seen = {"PYTHONPATH": f"{zoo}/site:{os.environ.get('PYTHONPATH', '')}", "SEEN": str(zoo / "seen")}
        with Nodes(DEATHS=str(zoo / "deaths"), **seen) as started:
            yield started


def test_nodes_that_come_later_and_are_not_alike(nodes, zoo, words, reference, tmp_path, cache):
    """One run from a cluster without workers to its end, in an order that meets every kind of node."""
    run = Run(nodes, words, tmp_path / "out", HF_TOKEN=SECRET, AWS_PROFILE="birds")
    run.wait_for("waiting: no node of the cluster has a core yet")
    lacking = ["tmpfs none", zoo / "pairs"], ["tmpfs none", cache]
    absent = f"--bind /dev/null {zoo}/run/checkpoints/toy-b.pt"
    nodes.add(
        "poor", "--num-cpus=1", *(f"-t {kind} {folder}" for kind, folder in lacking), absent, WAITS_FOR=f"{zoo}/go"
    )
    run.wait_for(f"does not have the checkpoint {zoo}/run/checkpoints/toy-b.pt")
    assert "does not have the data set pairs" in run.said
    changed = zoo / "changed.py"
    source = Path(clipeval.__file__).parent / "tasks" / "zeroshot_classification.py"
    changed.write_text(source.read_text() + "\n# another version\n")
    nodes.add("older", "--num-cpus=1", f"--bind {changed} {source}")
    run.wait_for("gets no work")
    nodes.add("rich", "--num-cpus=1")
    run.wait_for("2 workers on 2 nodes, ")
    (zoo / "go").touch()
    said = run.end(0)
    require_equal(run.out, reference)
    assert "--device auto: cpu, as no node of the cluster has a GPU now" in said
    assert said.count("older (") == 1
    assert "has another clipeval (different: clipeval/tasks/zeroshot_classification.py)" in said
    seen = set((zoo / "seen").read_text().splitlines())
    assert {f"{name}.pt {SECRET} birds" for name in ("toy-a", "toy-b", "toy-c")} <= seen
    assert not [path for path in nodes.folder.rglob("*") if path.is_file() and SECRET in path.read_text("latin-1")]
    nodes.kill("older")
    nodes.kill("poor")


_DEMAND = """
import sys
from ray.autoscaler.v2.sdk import get_cluster_status
demands = get_cluster_status(sys.argv[1]).resource_demands.ray_task_actor_demand
print(*(f"{counted.count} x {counted.bundle}" for demand in demands for counted in demand.bundles_by_count))
"""


def test_gpus_that_are_not_there(nodes, words, tmp_path):
    said = Run(nodes, words, tmp_path / "none", "--device", "cuda").end(3)
    assert "--device cuda: no node of the cluster has a GPU. The largest node is " in said
    run = Run(nodes, words, tmp_path / "out", "--device", "cuda", "--workers", "3")
    run.wait_for("waiting: no node of the cluster has a GPU yet")
    demand = subprocess.run([sys.executable, "-c", _DEMAND, nodes.address], capture_output=True, text=True)
    assert demand.stdout == "3 x {'GPU': 1.0}\n", "what an autoscaler goes by"
    nodes.add("numbers", "--num-cpus=0 --num-gpus=2")
    said = run.end(3)
    assert "no machine can do the work: numbers (" in said
    assert "cannot run workers: --device cuda: this machine has no such GPU that PyTorch can use" in said
    nodes.kill("numbers")


def workers_of(nodes: Nodes) -> list[int]:
    found = []
    for pid in nodes.pids():
        try:
            if b"RayWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_whatever_dies_the_same_command_continues(nodes, words, reference, tmp_path, monkeypatch):
    nodes.add("last")
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "3")
    run = Run(nodes, words, tmp_path / "out", "--device", "cpu")
    run.wait_for_a_value()
    assert workers_of(nodes)
    run.process.kill()
    run.process.wait()
    until(lambda: not workers_of(nodes), 20)

    run = Run(nodes, words, tmp_path / "out", "--rerun", "always", "--device", "cpu")
    run.wait_for("[19/36]")
    os.kill(run.process.pid, signal.SIGINT)
    run.end(130)
    assert clipeval.read_results(run.out).status.eq("ok").any()
    until(lambda: not workers_of(nodes), 20)

    run = Run(nodes, words, tmp_path / "out", "--rerun", "always", "--device", "cpu")
    run.wait_for("[19/36]")
    nodes.kill("head")
    said = run.end(3)
    assert f"the Ray cluster at {nodes.address} is gone" in said
    assert "the same command continues" in said
    require_equal(table(words, run.out, executor="local", workers=0), reference)


_HOLD = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
class Holder:
    def hold(self):
        return "held"

holder = Holder.remote()
print(ray.get(holder.hold.remote()), flush=True)
time.sleep(300)
"""


def test_a_cluster_that_is_held_by_others_and_a_lost_node(words, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    if not HAS_NAMESPACES:
        pytest.skip("nodes with names of their own need namespaces")
    with Nodes("--num-cpus=1") as two:
        holder = subprocess.Popen([sys.executable, "-c", _HOLD, two.address], stdout=subprocess.PIPE, text=True)
        with holder:
            assert holder.stdout.readline() == "held\n"
            run = Run(two, words, tmp_path / "out")
            run.wait_for("waiting for the first of 1 worker, each with 1 core: 0 of 1 core free, the rest is held")
            holder.kill()
        two.add("weak")
        run.wait_for("2 workers on 2 nodes")
        run.wait_for_a_value()
        two.kill("weak")
        run.end(0)
    require_equal(run.out, reference)
