"""SIGKILL at random moments of training and saving, then the same command: the weights are those of a calm run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finetune_runs import base_checkpoint

KILLS = 21
PRETRAIN = """
from tiny_run import tiny_config
from clipeval_train.loop import pretrain
def train(name):
    pretrain(tiny_config(folder / name, samples=1287, save_every=32, keep=3, ema=0.9))
"""
FINETUNE = """
from finetune_runs import small_config
from clipeval_train.finetune.classification import finetune
def train(name):
    settings = {"iterations": 40, "save_every": 1, "keep": 3, "ema": 0.9, "train_head": True, "drop_path": 0.3}
    finetune(small_config(folder / "base.pt", ["builtin:digits"], folder / name, **settings))
"""

DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
folder = Path({folder!r})
from clipeval_train.trainer import Trainer
{train}
train("calm")
step = Trainer.gradient
chance = random.Random(5)
for kill in range({kills} + 1):
    told, tell = os.pipe()
    child = os.fork()  # the imports are done: a kill falls into the run itself
    if child == 0:
        Trainer.gradient = lambda self, *args: os.write(tell, b".") and step(self, *args)
        train("killed")
        os._exit(0)
    os.close(tell)
    if kill < {kills}:
        os.read(told, 1)
        began = time.monotonic()
        os.read(told, 1)
        time.sleep(chance.uniform(0.0, time.monotonic() - began))  # a step and a save
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(told)
    half_written = len(list((folder / "killed/checkpoints").glob(".*.tmp")))
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else "finished", half_written, flush=True)
"""


@pytest.mark.parametrize(
    ("train", "last", "parts"),
    [
        (PRETRAIN, "samples_000000001287.pt", ("state_dict", "ema")),
        (FINETUNE, "iteration_00000040.pt", ("state_dict", "heads")),
    ],
)
def test_kill_anywhere_then_the_same_command(tmp_path, train, last, parts):
    base_checkpoint(tmp_path / "base.pt")
    tests = Path(__file__).parent
    script = DRIVER.format(tests=str(tests), folder=str(tmp_path), kills=KILLS, train=train)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, str(tests.parent)])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    endings = [line.split() for line in done.stdout.splitlines()]
    assert [ending for ending, _ in endings].count("9") >= 20, (endings, done.stderr[-2000:])
    assert endings[-1] == ["finished", "0"], done.stderr[-2000:]
    assert sum(half_written != "0" for _, half_written in endings) >= 3, endings  # some fell into saving
    calm, killed = (torch.load(tmp_path / run / "checkpoints" / last, weights_only=True) for run in ("calm", "killed"))
    for part in parts:
        assert_same(killed[part], calm[part])
    assert killed["metadata"].get("evaluations") == calm["metadata"].get("evaluations")
    assert len(list((tmp_path / "killed/checkpoints").iterdir())) == 3


def assert_same(one, other):
    """Bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert torch.equal(one, other) if torch.is_tensor(one) else one == other
