"""SIGKILL at random moments, then the same command: the final table is that of an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
from helpers import caption_shards, image_folder, tiny_checkpoint

import clipeval
from clipeval.results.schema import TIMING_COLUMNS

KILLS = 24


@pytest.fixture
def request_words(tmp_path):
    tiny_checkpoint(tmp_path / "a.pt", 0)
    tiny_checkpoint(tmp_path / "b.pt", 1)
    image_folder(tmp_path / "colours", per_class={"train": 20, "test": 30})
    caption_shards(tmp_path / "pairs", images=61)
    models = [str(tmp_path / name) for name in ("a.pt", "b.pt")]
    return models, [f"folder:{tmp_path}/colours", f"wds:{tmp_path}/pairs"], ["classification", "retrieval", "probe"]


DRIVER = """
import os, random, signal, sys, time
import clipeval, pandas, sklearn.linear_model, faiss
from clipeval.evaluation import local
from clipeval.models import loader

encode = loader.OpenClipEncoder.encode_images

def slow(self, pixels):
    time.sleep(0.05)  # so that kills fall into encoding as often as between
    return encode(self, pixels)

loader.OpenClipEncoder.encode_images = slow
chance = random.Random(7)
for kill in range({kills} + 1):
    child = os.fork()  # the imports are done: a kill falls into the run itself
    if child == 0:
        os.setpgid(0, 0)
        clipeval.run(*{words!r}, out={out!r}, batch_size=8, workers=2)
        os._exit(0)
    if kill < {kills}:
        time.sleep(chance.uniform(0.0, 0.6))
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else "finished", flush=True)
"""


def test_kill_anywhere_then_continue(request_words, tmp_path, monkeypatch):
    undisturbed = clipeval.run(*request_words, out=tmp_path / "undisturbed", batch_size=8, workers=0)
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "second-cache"))
    script = DRIVER.format(words=request_words, out=str(tmp_path / "out"), kills=KILLS)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    endings = done.stdout.split()
    assert endings.count("9") >= 20, (endings, done.stderr[-2000:])
    assert endings[-1] == "finished"
    frame = clipeval.read_results(tmp_path / "out")
    pd.testing.assert_frame_equal(
        frame.drop(columns=list(TIMING_COLUMNS)), undisturbed.drop(columns=list(TIMING_COLUMNS))
    )
