"""How a command ends: its own verdict whoever reads it, a sentence for faults of the machine, a traceback for bugs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import image_folder, tiny_checkpoint

from clipeval import exits

CLIPEVAL = f"{sys.executable} -m clipeval"


@pytest.fixture
def shell(tmp_path):
    """Run a line of bash; a pipe has the exit code of the first command that fails."""

    def call(line):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def tables(tmp_path):
    """600 cells, more than a pipe holds: the same ones, and others that have become worse."""
    for name, value in (("good", 0.5), ("worse", 0.1)):
        lines = [f"m,d{i},zeroshot_classification,acc1,{value},1000,ok" for i in range(600)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["model,dataset,task,metric,value,n,status", *lines]))
    (tmp_path / "rules.yaml").write_text("rules: [{min: 0.2}]")


@pytest.mark.parametrize("form", ["text", "json", "junit", "github"])
@pytest.mark.parametrize(("current", "code"), [("good", 0), ("worse", 1)])
def test_a_reader_that_has_gone_does_not_change_the_verdict(shell, tables, form, current, code):
    words = f"check {current}.csv --against good.csv --rules rules.yaml --format {form}"
    assert shell(f"{CLIPEVAL} {words} | head -1")[0] == code


@pytest.mark.parametrize(
    "words", ["list models", "list models --json", "list models --format md", "fit --bootstrap 100 --json", "--help"]
)
def test_a_reader_of_something_else_has_gone(shell, words):
    code, _, err = shell(f"{CLIPEVAL} {words} | true")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("to", [">/dev/full", ">&-"])
@pytest.mark.parametrize(
    "words",
    ["check good.csv --against good.csv", "list tasks", "list tasks --json", "list tasks --format md", "--version"],
)
def test_a_full_or_closed_stdout_is_one_line_and_exit_3(shell, tables, words, to):
    code, out, err = shell(f"{CLIPEVAL} {words} {to}")
    assert (code, out) == (3, "")
    reason = "No space left on device" if "full" in to else "it is closed"
    assert err == f"clipeval: standard output: cannot write: {reason}.\n"


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_without_stderr_the_code_and_the_data_are_the_same(shell, tables, to):
    code, out, err = shell(f"{CLIPEVAL} check good.csv --against good.csv --format json {to}")
    assert (code, err) == (0, "")
    assert json.loads(out)["counts"]["pass"] == 600
    assert shell(f"{CLIPEVAL} run -c nothing.yaml {to}")[0] == 2


def test_an_ascii_terminal(shell):
    """Names and dashes that it cannot show are escapes; JSON stays JSON."""
    assert shell(f"PYTHONIOENCODING=ascii {CLIPEVAL} list tasks")[0] == 0
    same = shell(f"PYTHONIOENCODING=ascii {CLIPEVAL} list models --json | {sys.executable} -m json.tool")
    assert same[0] == 0


def test_usage_errors_are_one_line(command):
    for words, said in (
        (["run", "--limit", "x\x1b"], "clipeval run: Invalid value for '--limit'"),
        (["run", "--modle", "x"], "clipeval run: No such option: --modle"),
        (["check"], "clipeval check: Missing argument 'CURRENT'"),
        (["rnu"], "clipeval: No such command 'rnu'. Did you mean 'run'?"),
        (["run", "--json=1"], "clipeval: Option '--json' does not take a value"),
        (["run", "--limit", "9" * 5000], "clipeval run: Invalid value for '--limit'"),
    ):
        code, out, err = command("clipeval", *words)
        assert (code, out) == (2, "")
        assert err.startswith(said)
        assert err.count("\n") == 1


def test_help_and_no_words(command):
    assert command("clipeval", "--help")[0] == 0
    code, out, err = command("clipeval")
    assert (code, err) == (2, "")
    assert "Usage: clipeval" in out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (exits.typer.Abort(), 130, ""),
        (EOFError("Ran out of input"), 70, "this is a bug"),
        (RecursionError("too deep"), 70, "this is a bug"),
        (ValueError("a\n::error::b\x1b[31m"), 70, r"ValueError: a"),
        (MemoryError(), 3, "test: out of memory. Close other programs"),
        (MemoryError("8 GB"), 3, "test: out of memory: 8 GB. Close"),
        (OSError(36, "File name too long", "aaa"), 3, "test: aaa: File name too long."),
        (BrokenPipeError(32, "Broken pipe"), 3, "test: Broken pipe."),
        (exits.ClipevalError("::error::x\n::error::y"), 70, r"test: ::error::x\n::error::y"),
    ],
)
def test_every_error_has_its_code(error, code, said, capsys, monkeypatch):
    def command(prog_name):
        raise error

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(exits, "_leave", sys.exit)  # this process goes on
    with pytest.raises(SystemExit) as stop:
        exits.guarded(command, "test")
    signal.signal(signal.SIGINT, before)
    err = capsys.readouterr().err
    assert stop.value.code == code
    assert said in err
    assert ("Traceback" in err) == (said == "this is a bug" or isinstance(error, ValueError))
    assert "\x1b" not in err
    assert not any(line.lstrip().startswith("::") for line in err.splitlines())


def test_warnings_and_prints_of_others_are_harmless(shell, tmp_path):
    (tmp_path / "p.py").write_text(
        "import warnings, logging, sys\nfrom clipeval.exits import guarded\n"
        "def command(prog_name):\n"
        "    warnings.warn('x\\n::error::w\\x1b]0;t\\x07')\n"
        "    logging.warning('::error::l\\x9b')\n"
        "    print('a\\n  ::error::p', file=sys.stderr)\n"
        "    print('##[error]x\\r::error::q')\n"
        "guarded(command, 'p')\n"
    )
    code, out, err = shell(f"{sys.executable} p.py")
    assert code == 0
    for line in (out + err).replace("\r", "\n").split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
    assert not set("\x1b\x07\x9b") & set(out + err)


@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("group", [True, False])
def test_two_interrupts_leave_no_traceback(tmp_path, group, gap):
    """The second falls into the end of the command or of the interpreter."""
    tiny_checkpoint(tmp_path / "a.pt")
    image_folder(tmp_path / "colours", per_class={"test": 60})
    words = ["-m", tmp_path / "a.pt", "-d", f"folder:{tmp_path}/colours", "-o", tmp_path / "out", "--batch-size", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clipeval", "run", *words, "--workers", "1"],
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONFAULTHANDLER": "1"},
    )
    while process.poll() is None and not (tmp_path / "out" / ".lock").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    for _ in range(2):
        try:
            os.killpg(process.pid, signal.SIGINT) if group else process.send_signal(signal.SIGINT)
        except ProcessLookupError:
            break
        time.sleep(gap)
    err = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "ignored" not in err


def test_an_interrupt_waits_for_the_end_of_an_import(shell, tmp_path):
    """Interrupted ``exec`` of text, as dataclasses do while a library is imported, would end the process with -2."""
    (tmp_path / "library.py").write_text(
        "import os, signal, time\n"
        "end = time.monotonic() + 0.3\n"
        "exec('os.kill(os.getpid(), signal.SIGINT)\\nwhile time.monotonic() < end: pass')\n"
        "print('imported', flush=True)\n"
    )
    (tmp_path / "p.py").write_text(
        "import time\nfrom clipeval.exits import guarded\n"
        "def command(prog_name):\n"
        "    import library\n"
        "    for _ in range(100):\n"
        "        time.sleep(0.1)\n"
        "    print('not interrupted')\n"
        "guarded(command, 'p')\n"
    )
    assert shell(f"{sys.executable} p.py; echo $?")[1:] == ("imported\n130\n", "")


def test_an_interrupt_ends_a_process_whose_threads_go_on(shell, tmp_path):
    (tmp_path / "p.py").write_text(
        "import atexit, threading, time\nfrom clipeval.exits import guarded\n"
        "atexit.register(print, 'cleaned')\n"
        "def command(prog_name):\n"
        "    threading.Thread(target=time.sleep, args=(3600,)).start()\n"
        "    exec('raise KeyboardInterrupt')\n"
        "guarded(command, 'p')\n"
    )
    assert shell(f"{sys.executable} p.py; echo $?")[1:] == ("cleaned\n130\n", "")
