"""Retrieval scoring, 5,000 images x 25,000 captions x 512: seconds and peak memory above the inputs."""

from __future__ import annotations

import json
import sys

from bench import peer
from bench.measure import machine, timed

IMAGES, CAPTIONS, WIDTH = 5_000, 5, 512

_INPUTS = f"""
import json, time, numpy as np
from bench.measure import peak_mib
rng = np.random.default_rng(0)
images = rng.standard_normal(({IMAGES}, {WIDTH})).astype(np.float32)
texts = np.repeat(images, {CAPTIONS}, axis=0) + 6 * rng.standard_normal(({IMAGES * CAPTIONS}, {WIDTH})).astype(np.float32)
images /= np.linalg.norm(images, axis=1, keepdims=True); texts /= np.linalg.norm(texts, axis=1, keepdims=True)
owner = np.repeat(np.arange({IMAGES}), {CAPTIONS})
"""

_OURS = (
    _INPUTS
    + """
import array_api_compat.numpy, faiss, sklearn  # start-up is not scoring
from clipeval.tasks import zeroshot_retrieval
ids = [str(i) for i in range(len(images))]
before, started = peak_mib(), time.monotonic()
result = zeroshot_retrieval.evaluate(images, texts, owner, ids)
values = {m.name: m.value for m in result.metrics}
print("RESULT", json.dumps([time.monotonic() - started, peak_mib() - before, values]))
"""
)

_PEER = (
    _INPUTS
    + """
import torch
from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k
images, texts = torch.from_numpy(images), torch.from_numpy(texts)
before, started = peak_mib(), time.monotonic()
scores = texts @ images.t()
positive = torch.zeros_like(scores, dtype=bool)
positive[torch.arange(len(scores)), torch.from_numpy(owner)] = True
values = {}
for k in (1, 5, 10):
    values[f"image_retrieval_recall@{k}"] = (batchify(recall_at_k, scores, positive, 64, "cpu", k=k) > 0).float().mean().item()
    values[f"text_retrieval_recall@{k}"] = (batchify(recall_at_k, scores.T, positive.T, 64, "cpu", k=k) > 0).float().mean().item()
print("RESULT", json.dumps([time.monotonic() - started, peak_mib() - before, values]))
"""
)


def main() -> None:
    """Print both tools' figures and ratios; the values must agree."""
    print(machine())
    ours, theirs = _run(sys.executable, _OURS), _run(peer.python(), _PEER)
    for name, (seconds, mib, _) in (("clipeval", ours), ("CLIP_benchmark", theirs)):
        print(f"{name:15} {seconds:7.2f} s  {mib:7.0f} MiB")
    print(
        f"clipeval is {theirs[0] / ours[0]:.1f} times faster on {theirs[1] / max(ours[1], 1e-9):.1f} times less memory"
    )
    worst = max(abs(ours[2][name] - value) for name, value in theirs[2].items())
    print(f"largest difference of a recall value: {worst:.1e} (float32 mean on their side)")


def _run(python: str, code: str) -> tuple[float, float, dict[str, float]]:
    output = timed([python, "-W", "ignore", "-c", code]).output
    [line] = [line for line in output.splitlines() if line.startswith("RESULT")]
    seconds, mib, values = json.loads(line.removeprefix("RESULT "))
    return seconds, mib, values
