"""The command line: exit codes and messages, and that help needs no torch."""

import json
import subprocess
import sys

import pytest
import yaml
from tiny_run import tiny_config

from clipeval_train import loop


@pytest.fixture
def train(tmp_path, command):
    """``clipeval-train`` with FILE in place of a small configuration's path."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(json.loads(tiny_config(tmp_path / "out").model_dump_json())))

    def run(*arguments):
        return command("clipeval-train", *(path if word == "FILE" else word for word in arguments))

    return run


def test_pretrain_prints_the_checkpoint_and_again_says_finished(train, tmp_path):
    code, out, err = train("pretrain", "FILE", "samples=64", "warmup=8")
    assert (code, out.strip()) == (0, str(tmp_path / "out/checkpoints/samples_000000000064.pt"))
    assert "samples/s" in err
    again = train("pretrain", "FILE", "samples=64", "warmup=8")
    assert again[:2] == (0, out)
    assert "already finished" in again[2]


def test_export_prints_what_open_clip_loads(train, tmp_path):
    train("pretrain", "FILE", "samples=64", "warmup=8")
    code, out, _ = train("export", str(tmp_path / "out"), "-o", str(tmp_path / "exported"))
    assert (code, out.strip()) == (0, f"local-dir:{tmp_path / 'exported'}")
    files = sorted(path.name for path in (tmp_path / "exported").iterdir())
    assert files == ["open_clip_config.json", "open_clip_model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pretrain", "FILE", "lr=x"], 2, "lr: expected a number"),
        (["pretrain", "missing.yaml"], 2, "missing.yaml: cannot read the configuration"),
        (["pretrain", "FILE", "model=ViT-B-31"], 2, "Did you mean 'ViT-B-32'?"),
        (["pretrain"], 2, "Missing argument"),
        (["pretrian", "FILE"], 2, "No such command"),
        (["pretrain", "FILE", "out=/dev/null/x"], 3, "cannot write"),
        (["export", "FILE.pt", "-o", "x"], 2, "no checkpoint of clipeval-train is there"),
    ],
)
def test_mistakes_end_in_their_exit_code_without_a_traceback(train, arguments, code, message):
    found, out, err = train(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_an_interrupt_exits_130(train, monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "pretrain", interrupted)
    code, _, err = train("pretrain", "FILE")
    assert code == 130
    assert err == "Interrupted. The same command continues from the newest checkpoint.\n"


def test_a_bug_exits_70_with_a_traceback(train, monkeypatch):
    monkeypatch.setattr(loop, "pretrain", lambda config: 1 / 0)
    code, _, err = train("pretrain", "FILE")
    assert code == 70
    assert "ZeroDivisionError" in err


def test_help_does_not_import_torch():
    program = (
        "import sys; sys.argv = ['clipeval-train', 'pretrain', '--help']\n"
        "from clipeval_train.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'open_clip'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "OUT/log.jsonl" in done.stdout
