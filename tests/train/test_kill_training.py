"""SIGKILL at random moments of training and saving, then the same command: the weights are those of a calm run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

KILLS = 21
SETTINGS = {"samples": 1287, "save_every": 32, "keep": 3, "ema": 0.9}

DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny_run import tiny_config
from clipeval_train.loop import pretrain
from clipeval_train.trainer import Trainer

folder = Path({folder!r})
pretrain(tiny_config(folder / "calm", **{settings!r}))
step = Trainer.gradient
chance = random.Random(5)
for kill in range({kills} + 1):
    told, tell = os.pipe()
    child = os.fork()  # the imports are done: a kill falls into the run itself
    if child == 0:
        Trainer.gradient = lambda self, *args: os.write(tell, b".") and step(self, *args)
        pretrain(tiny_config(folder / "killed", **{settings!r}))
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


def test_kill_anywhere_then_the_same_command(tmp_path):
    script = DRIVER.format(tests=str(Path(__file__).parent), folder=str(tmp_path), kills=KILLS, settings=SETTINGS)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    endings = [line.split() for line in done.stdout.splitlines()]
    assert [ending for ending, _ in endings].count("9") >= 20, (endings, done.stderr[-2000:])
    assert endings[-1] == ["finished", "0"], done.stderr[-2000:]
    assert sum(half_written != "0" for _, half_written in endings) >= 3, endings  # some fell into saving
    file = "checkpoints/samples_000000001287.pt"
    calm, killed = (torch.load(tmp_path / run / file, weights_only=True) for run in ("calm", "killed"))
    for part in ("state_dict", "ema"):
        assert killed[part].keys() == calm[part].keys()
        assert all(torch.equal(killed[part][key], calm[part][key]) for key in calm[part])
    assert len(list((tmp_path / "killed/checkpoints").iterdir())) == 3
