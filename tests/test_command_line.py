"""What a command line offers: words to choose from, help, examples, completion, names that people use."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from help_texts import SNAPSHOT
from imports import ROOT

from clipeval import __version__, choices, cli, completion
from clipeval_train import cli as trainer

PROGRAMS = {"clipeval": cli.app, "clipeval-train": trainer.app}
COMMANDS = [
    (program, name, command)
    for program, app in PROGRAMS.items()
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
]
LOOKING = [line for _, name, made in COMMANDS if name in ("list", "cache") for line in made.epilog.splitlines()[1:]]


def there_are() -> dict[str, tuple[Any, Any]]:
    from clipeval import cached, lists
    from clipeval.checks import emit
    from clipeval.models import zoo
    from clipeval.scaling import cherti2023, estimate, frontier, laws

    return {
        "Law": (choices.Law, laws.LAWS),
        "Frontier": (choices.Frontier, frontier.FRONTIERS),
        "Estimator": (choices.Estimator, estimate.ESTIMATORS),
        "Preset": (choices.Preset, [cherti2023.PRESET]),
        "CheckFormat": (choices.CheckFormat, emit.FORMATS),
        "CacheKind": (choices.CacheKind, cached.KINDS),
        "Listing": (choices.Listing, lists.LISTS),
        "zoos": (completion._ZOOS, zoo.NAMES),
    }


@pytest.mark.parametrize("what", there_are())
def test_what_can_be_chosen_is_what_there_is(what):
    words, table = there_are()[what]
    assert set(get_args(words) or words) == set(table)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fit", "--law", "pwer"], "--law pwer: unknown. Did you mean 'power'? Choose from: power, power_floor, "),
        (["fit", "--frontier", "hul"], "--frontier hul: unknown. Did you mean 'hull'? Choose from: none, "),
        (["fit", "--preset", "cherti"], "--preset cherti: unknown. Did you mean 'cherti2023'?"),
        (["run", "--precision", "fp8"], "Choose from: fp32, tf32, bf16, bf16-weights, fp16."),
        (["run", "--executor", "rya"], "--executor rya: unknown. Did you mean 'ray'?"),
        (["run", "--rerun", "allways"], "--rerun allways: unknown. Did you mean 'always'?"),
        (["run", "--keep-weights", "maybe"], "--keep-weights maybe: unknown. Choose from: yes, no."),
        (["check", "a", "--against", "b", "--undecided", "wran"], "--undecided wran: unknown. Did you mean 'warn'?"),
        (["list", "modles"], "WHAT modles: unknown. Did you mean 'models'?"),
        (["list"], "Missing argument 'WHAT'. Choose from: models, datasets, suites, tasks, studies, keys."),
    ],
)
def test_a_word_that_is_none_of_a_few_is_refused_with_those(command, words, says):
    code, out, err = command("clipeval", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert err.endswith(f"See: clipeval {words[0]} --help\n")


@pytest.mark.parametrize(("program", "name", "made"), COMMANDS, ids=lambda value: value if type(value) is str else "")
def test_help_says_every_word_that_may_be_chosen(program, name, made):
    for parameter in made.params:
        for word in parameter.type_descriptor.choices or ():
            assert word in f"{parameter.metavar} {parameter.help}".lower(), (parameter.name, word)


def test_help_shows_no_types_of_python():
    assert not re.findall(r"<(?:str|int|bool|float|path|list)\b", SNAPSHOT.read_text("utf-8"))


@pytest.mark.parametrize(("program", "name", "made"), COMMANDS, ids=lambda value: value if type(value) is str else "")
def test_a_command_has_three_examples_that_can_be_typed(program, name, made):
    """Those of words that are there on every machine are run below."""
    lines = made.epilog.replace("\\[", "[").splitlines()[1:]
    assert len(lines) == 3
    assert sum(line.startswith(f"{program} {name} ") for line in lines) >= 2
    for line in lines:
        other, command, *words = shlex.split(line)
        found = typer.main.get_command(PROGRAMS[other]).commands[command]  # type: ignore[attr-defined]
        try:
            found.make_context(command, [*words])
        except typer.Exit:
            assert "--keys" in words


@pytest.mark.parametrize("line", LOOKING)
def test_examples_that_look_around(command, line):
    code, out, _ = command(*shlex.split(line))
    assert code == 0
    assert out


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("word", ["-V", "--version"])
def test_version(command, program, word):
    assert command(program, word) == (0, f"{program} {__version__}\n", "")


def test_variables_are_said_and_exist():
    said = set(re.findall(r"CLIPEVAL_[A-Z]+", SNAPSHOT.read_text("utf-8").split("$ clipeval run")[0]))
    read = "\n".join(path.read_text("utf-8") for path in (ROOT / "clipeval").rglob("*.py") if path.name != "cli.py")
    assert said == set(re.findall(r"\bCLIPEVAL_[A-Z]+\b", read))


@pytest.fixture
def completed(command, monkeypatch, tmp_path):
    """What the shell is offered for the last of some words, in a folder with a configuration and results."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open_results").mkdir()
    (tmp_path / "own.yaml").write_text("datasets: {my-birds: folder}\nzoos: {mine: []}\nmodels: [{name: my-model}]\n")

    def call(line: str) -> list[str]:
        program, *_ = words = line.split(" ")
        monkeypatch.setenv(f"_{program.replace('-', '_').upper()}_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        code, out, err = command(program)
        assert (code, err) == (0, "")
        return out.split()

    return call


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("clipeval r", {"run", "report"}),
        ("clipeval run -m ViT-H-14,laion2b", {"ViT-H-14,laion2b_s32b_b79k"}),
        ("clipeval run -m RN50,y", {"RN50,yfcc15m"}),
        ("clipeval run op", {"open_clip", "openai", "open_results/"}),
        ("clipeval run -m my", set()),
        ("clipeval run -c own.yaml -m my", {"my-model"}),
        ("clipeval run -c own.yaml -m mi", {"mine"}),
        ("clipeval run -c own.yaml -d my", {"my-birds"}),
        ("clipeval run -d vtab/p", {"vtab/pcam", "vtab/pets"}),
        ("clipeval run -d vtab+", {"vtab+"}),
        ("clipeval run -t pro", {"probe"}),
        ("clipeval run -t linear", {"linear_probe"}),
        ("clipeval run --precision bf", {"bf16", "bf16-weights"}),
        ("clipeval list mod", {"models"}),
        ("clipeval cache clear pr", {"profiles"}),
        ("clipeval fit --law joint", {"joint_nd", "joint_shared", "joint_repeats"}),
        ("clipeval fit ch", {"cherti2023"}),
        ("clipeval fit own", set()),
        ("clipeval report open", {"open_clip", "open_results/"}),
        ("clipeval design gad", {"gadre2024"}),
        ("clipeval check a --format j", {"json", "junit"}),
        ("clipeval-train pre", {"pretrain"}),
        ("clipeval-train ladder p.yaml --results clip", {"clip_benchmark"}),
    ],
)
def test_the_shell_completes(completed, line, offered):
    """Where nothing is offered the shell completes paths by itself."""
    assert set(completed(line)) == offered


def test_a_broken_configuration_has_no_names(completed):
    Path("benchmarks.yaml").write_text("datasets: {my-birds: [")
    assert completed("clipeval run -d my-b") == []
    assert completed("clipeval run -d imagenet1k-u") == ["imagenet1k-unverified"]


def test_completion_waits_for_nothing_heavy():
    program = """
import atexit, os, sys
heavy = "torch numpy pandas pyarrow open_clip sklearn".split()
atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))
os.environ |= {"_CLIPEVAL_COMPLETE": "complete_bash", "COMP_WORDS": "clipeval run -m RN50,y", "COMP_CWORD": "3"}
from clipeval import cli
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr.strip()) == (["RN50,yfcc15m"], "[]")


def test_the_first_line_of_a_run_is_there_before_anything_heavy(tmp_path):
    """The program ends where it imports torch or open_clip."""
    program = """
import sys
def stop(event, words):
    if event == "import" and words[0] in ("torch", "open_clip"):
        raise SystemExit(9)
sys.addaudithook(stop)
from clipeval import cli
cli.main()
"""
    asked = "RN50-quickgelu,openai RN50-quickgelu,cc12m -d digits -d imagenet -t probe -t knn"
    words = ["run", *asked.split(), "--device", "cpu", "--offline", "-o", str(tmp_path / "results")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.returncode == 9
    first = f"clipeval {__version__} · 2 checkpoints x 2 data sets x 2 tasks = 8 cells, 0 done"
    assert done.stderr.splitlines()[0] == first


def test_words_without_an_option_are_models(command, monkeypatch, tmp_path):
    """A glob that nobody quoted is several words."""
    from clipeval.evaluation import run as runner

    asked = []
    monkeypatch.setattr(runner, "dry_run", lambda request: (asked.extend(request.models), ([], []))[1])
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    files = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    words = "-m", "RN50-quickgelu,openai", *files, "-d", "digits", "--plan", "--json"
    assert command("clipeval", "run", *words)[0] == 0
    assert asked == ["RN50-quickgelu,openai", *files]


def test_the_demo_prints_commands_that_can_be_pasted():
    script = (ROOT / "examples" / "demo.sh").read_text("utf-8")
    functions = script[script.index("quoted() {") : script.index('step "1/5')]
    words = ["true", "-m", "demo/ladder/*", "it's", "a b", "", "$HOME", "plain-word_1.x"]
    done = subprocess.run(["bash", "-c", functions + 'show "$@"', "demo", *words], capture_output=True, text=True)
    line = done.stdout.splitlines()[0]
    assert shlex.split(line) == ["$", *words]
    assert line.endswith(" plain-word_1.x")
