"""action.yml and the files of runners: valid by their schemas, and each step's shell run as GitHub's runner does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from clipeval.checks.comment import MARKER

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
BASELINE = ROOT / "results" / "baseline"


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-actions", ["action.yml"]),
        ("github-workflows", ["examples/check-workflow.yml", *map(str, (ROOT / ".github/workflows").glob("*.yml"))]),
        ("gitlab-ci", ["examples/gitlab-ci.yml"]),
    ],
)
def test_files_for_runners_are_valid(schema, files):
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    if schema == "gitlab-ci":
        words += ["--data-transform", "gitlab-ci"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Runner:
    """Runs the action's scripts by the rules of GitHub's runner: expressions in ``env`` and ``if`` are put in, bash
    stops at a failure (-eo pipefail), and what a step writes to GITHUB_OUTPUT is known to those behind it."""

    def __init__(self, folder, program, **given):
        self.folder = folder
        self.inputs = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | given
        self.outputs = {}
        self.log = ""
        self.summary = folder / "summary.md"
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        for name, script in program.items():
            (bin_folder / name).write_text(script)
            (bin_folder / name).chmod(0o755)
        self.path = f"{bin_folder}:{Path(sys.executable).parent}:/usr/bin:/bin"

    def value(self, expression):
        """Names such as ``inputs.x`` and ``steps.x.outputs.y``, and ``||``, ``&&``, ``==`` and ``!=`` of them."""
        if "||" in expression:
            return next(filter(None, map(self.value, expression.split("||"))), "")
        if "&&" in expression:
            return all(map(self.value, expression.split("&&")))
        if compared := re.fullmatch(r"\s*(\S+) (==|!=) '(.*)'\s*", expression):
            return (self.value(compared[1]) == compared[3]) == (compared[2] == "==")
        match expression.strip().split("."):
            case ["inputs", name]:
                return self.inputs[name]
            case ["steps", step, "outputs", name]:
                return self.outputs.get(step, {}).get(name, "")
            case _:
                return {
                    "github.action_path": str(self.folder / "action"),
                    "github.token": "no-token",
                    "github.repository": "some/where",
                    "github.event.pull_request.number": "7",
                    "runner.temp": str(self.folder / "temp"),
                }[expression.strip()]

    def put_in(self, text):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(self.value(found[1])), text)

    def run(self):
        """All steps; the exit code of the first that fails, or 0."""
        for step in ACTION["runs"]["steps"]:
            condition = re.fullmatch(r"\$\{\{(.*)\}\}", step.get("if", "${{ github.token }}"))
            if "run" not in step or not self.value(condition[1]):
                continue
            output = self.folder / "output.txt"
            output.write_text("")
            environment = {name: self.put_in(str(text)) for name, text in step.get("env", {}).items()}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.folder,
                env={
                    **os.environ,
                    **environment,
                    "PATH": self.path,
                    "GITHUB_OUTPUT": str(output),
                    "GITHUB_STEP_SUMMARY": str(self.summary),
                },
                capture_output=True,
                text=True,
            )
            self.log += done.stdout + done.stderr
            pairs = [line.partition("=") for line in output.read_text().splitlines()]
            self.outputs[step.get("id")] = {name: value for name, _, value in pairs}
            if done.returncode:
                return done.returncode
        return 0

    def result(self, name):
        return self.put_in(ACTION["outputs"][name]["value"])


# `check` is the program itself, `run` and the other programs note what they are called with
CLIPEVAL = f"""#!/bin/bash
if [ "$1" = check ]; then exec {sys.executable} -m clipeval "$@"; fi
printf '%s\\n' "$@" >> asked.txt
exit "${{MEASURED:-0}}"
"""
NOTES = """#!/bin/bash
printf '%s\\n' "${0##*/}" "$@" >> asked.txt
"""
PIP = f"""#!/bin/bash
if [ "$1" = -m ]; then printf '%s\\n' "$@" >> asked.txt; else exec {sys.executable} "$@"; fi
"""


def test_a_check_that_passes(tmp_path, monkeypatch):
    monkeypatch.setenv("MEASURED", "3")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    runner = Runner(
        tmp_path,
        {"clipeval": CLIPEVAL, "python": PIP, "gh": NOTES},
        model="runs/a b/*.pt\n  ViT-B-32,laion2b_s34b_b79k\n",
        dataset="digits\nfolder:/data/my birds",
        results=str(BASELINE),
        baseline=str(BASELINE),
        compare="demo/ladder/m-material-64000",
        comment="true",
        extras="demo",
        **{"run-args": "--precision bf16 --prompts 'my prompts.json'"},
    )
    assert runner.run() == 0, runner.log
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert asked[:4] == ["-m", "pip", "install", f"{tmp_path}/action[demo]"]
    assert asked[4 : asked.index("gh")] == [
        *("run", "-o", str(BASELINE), "-m", "runs/a b/*.pt", "-m", "ViT-B-32,laion2b_s34b_b79k"),
        *("-d", "digits", "-d", "folder:/data/my birds", "--precision", "bf16", "--prompts", "my prompts.json"),
    ]
    assert "::warning title=clipeval::something could not be measured" in runner.log
    assert runner.summary.read_text().startswith("### check passed")
    assert {name: runner.result(name) for name in ("verdict", "exit-code")} == {"verdict": "pass", "exit-code": "0"}
    assert json.loads(Path(runner.result("json")).read_text())["counts"]["pass"] == 9
    assert ElementTree.parse(runner.result("junit")).getroot()[0].get("tests") == "9"
    assert Path(runner.result("comment-file")).read_text().startswith(MARKER)
    assert asked[asked.index("gh") :][-7:] == [
        *("api", "--silent", "--method", "POST", "repos/some/where/issues/7/comments"),
        *("-F", f"body=@{runner.result('comment-file')}"),
    ]


def test_a_comment_is_renewed_and_a_loss_ends_the_job_behind_it(tmp_path):
    knows = '#!/bin/bash\nif [ "$2" = --paginate ]; then echo 12; echo 34; fi\nprintf "%s\\n" "$@" >> asked.txt\n'
    answers = '#!/bin/bash\nwhile [ "$1" != --output ] && [ $# -gt 0 ]; do shift; done\n'
    answers += "if [ $# -gt 0 ]; then printf '<!-- clipeval check -->\\n' > \"$2\"; fi\nexit 1\n"
    reader = f"#!/bin/bash\nexec {sys.executable} -c 'print(\"fail\")'\n"
    programs = {"gh": knows, "clipeval": answers, "python": reader}
    runner = Runner(tmp_path, programs, baseline="b", install="none", comment="true")
    assert runner.run() == 1, runner.log
    assert (runner.result("verdict"), runner.result("exit-code")) == ("fail", "1")
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert asked[-4:-2] == ["PATCH", "repos/some/where/issues/comments/12"]


@pytest.mark.parametrize("code", [2, 70])
@pytest.mark.parametrize("step", ["measure", "check"])
def test_wrong_usage_ends_the_job_at_once(tmp_path, code, step):
    programs = {"clipeval": f'#!/bin/bash\necho "$1" >> asked.txt\nexit {code}\n'}
    runner = Runner(tmp_path, programs, baseline="b", install="none", model="m" if step == "measure" else "")
    assert runner.run() == code
    assert (tmp_path / "asked.txt").read_text().splitlines() == ["run" if step == "measure" else "check"]
    assert (runner.result("verdict"), runner.result("exit-code")) == ("", str(code))


def test_a_comment_that_may_not_be_written_is_a_warning(tmp_path):
    programs = {
        "gh": "#!/bin/bash\nexit 1\n",
        "clipeval": "#!/bin/bash\nexit 0\n",
        "python": "#!/bin/bash\necho pass\n",
    }
    runner = Runner(tmp_path, programs, baseline="b", install="none", comment="true")
    (tmp_path / "temp" / "clipeval-check").mkdir(parents=True)
    (tmp_path / "temp" / "clipeval-check" / "comment.md").write_text("x\n")
    assert runner.run() == 0, runner.log
    assert "::warning title=clipeval::no comment was written" in runner.log


def test_inputs_reach_no_script_as_text():
    """An expression inside a script would let the words of a pull request run as code."""
    assert [step["name"] for step in ACTION["runs"]["steps"] if "${{" in step.get("run", "")] == []


def test_gitlab_runs_what_the_workflow_runs():
    """So that the test of the workflow's commands is one of GitLab's and Jenkins' too."""
    job = yaml.safe_load((ROOT / "examples" / "gitlab-ci.yml").read_text("utf-8"))["check checkpoint"]
    steps = yaml.safe_load((ROOT / "examples" / "check-workflow.yml").read_text("utf-8"))["jobs"]["check"]["steps"]
    install, measure, compare, junit = (step["run"] for step in steps if "run" in step)
    assert job["script"] == [install, f"{measure} || test $? = 3", compare.replace(" --format github", "")]
    assert job["after_script"] == [junit]
    document = (ROOT / "docs" / "ci.md").read_text("utf-8")
    assert (ROOT / "examples" / "gitlab-ci.yml").read_text("utf-8").strip() in document
    assert re.findall(r"sh '(.*)'", document) == [*job["script"][1:], f"{junit} || true"]


def test_the_workflow_that_the_document_shows_is_valid(tmp_path):
    block = re.search(r"```yaml\n(name: check.*?)```", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "w.yml").write_text(block[1])
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*words, str(tmp_path / "w.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    _, gate, upload = yaml.safe_load(block[1])["jobs"]["check"]["steps"]
    assert set(gate["with"]) <= set(ACTION["inputs"])
    assert {name for name, entry in ACTION["inputs"].items() if entry.get("required")} <= set(gate["with"])
    used = re.findall(r"steps\.(\w+)\.outputs\.([\w-]+)", upload["with"]["path"])
    assert [name for step, name in used if step == gate["id"] and name in ACTION["outputs"]] == ["junit"]


def test_the_document_names_every_input_and_output():
    document = (ROOT / "docs" / "ci.md").read_text("utf-8")
    assert [name for name in [*ACTION["inputs"], *ACTION["outputs"]] if f"`{name}`" not in document] == []
