"""docs/clusters.md and the files it names: commands as pasted, as far as they go without Slurm and Kubernetes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from clipeval.evaluation import environment

ROOT = Path(__file__).parents[2]
DOCUMENT = re.sub("```.*?```", "", (ROOT / "docs/clusters.md").read_text("utf-8"), flags=re.DOTALL)
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (\S.*)$", DOCUMENT, re.MULTILINE)]
RUN = ["clipeval", "run", "--executor", "ray"]


def planned(command, words: list[str], folder: Path) -> None:
    """The words are a run that starts: only Ray's part of it is left out."""
    assert words[:2] == ["clipeval", "run"]
    words = [str(folder / "results") if word in ("results", "/shared/results") else word for word in words]
    code, out, err = command(*words, "--offline", "--plan")
    assert code == 0, err
    assert "cells: " in out


def test_there_is_a_command_for_each_kind_of_cluster():
    assert [words[0] for words in COMMANDS] == ["sbatch", "clipeval", "ray", "kubectl"]


def test_slurm(command, tmp_path):
    words = next(words for words in COMMANDS if words[0] == "sbatch")
    script = words.index("examples/ray-slurm.sh")
    assert (ROOT / words[script]).stat().st_mode & 0o111
    assert words[1:script] == ["--nodes", "8", "--gpus-per-node", "8"]
    text = (ROOT / words[script]).read_text()
    assert text.splitlines()[2] == f"#   {shlex.join(words)}"
    assert text.rstrip().endswith('clipeval run --executor ray "$@"')
    planned(command, [*RUN, *words[script + 1 :]], tmp_path)


def test_a_cluster_that_is_there(command, tmp_path):
    planned(command, next(words for words in COMMANDS if words[0] == "clipeval"), tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_ray_job_submit(command, tmp_path):
    from ray.dashboard.modules.job.cli import submit

    words = next(words for words in COMMANDS if words[0] == "ray")
    assert words[:3] == ["ray", "job", "submit"]
    given = submit.make_context("submit", words[3:]).params
    assert (given["address"], given["no_wait"]) == ("http://10.0.0.1:8265", True)
    assert list(given["entrypoint"])[:4] == RUN
    planned(command, list(given["entrypoint"]), tmp_path)


def test_kubernetes(command, tmp_path):
    words = next(words for words in COMMANDS if words[0] == "kubectl")
    assert words[:3] == ["kubectl", "apply", "-f"]
    job = yaml.safe_load((ROOT / words[3]).read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    entrypoint = shlex.split(spec["entrypoint"])
    assert entrypoint[:4] == RUN
    planned(command, entrypoint, tmp_path)
    cluster = spec["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert 0 < workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {variable["value"].split("/")[1] for variable in container["env"]} == {"shared"}
    assert head["template"]["spec"]["containers"][0]["image"] == workers["template"]["spec"]["containers"][0]["image"]
    assert entrypoint[entrypoint.index("--workers") + 1] == str(workers["maxReplicas"])
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_variables_that_are_named_are_those_that_are_handed_over():
    (line,) = re.findall(r"\*\*Variables\*\* (.*?) are handed", DOCUMENT, re.DOTALL)
    named = set(re.findall(r"`(\w+?)\*?`", line))
    prefixes = {
        prefix
        for prefix in environment._HANDED_OVER
        if prefix not in ("GCSFS_", "HUGGING_FACE_HUB_", "HUGGINGFACE_HUB_")
    }
    assert named >= prefixes
    assert named - prefixes <= set(environment._NAMES)
