"""Training a small CLIP from JPEG shards: samples per second of clipeval-train and of open_clip_train 3.3.

Both train the same architecture in fp32 on the same shards, batch size, number of decoding processes and cores. The
rate is taken from the second report on: start-up and the first batches do not count.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import peer
from bench.input import SHARDS, write_shards
from bench.measure import machine

BATCH, BATCHES, SIDE, WORKERS = 128, 48, 256, 2
MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 224, "patch_size": 32, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
_PEER = """
import sys, open_clip
open_clip.add_model_config(sys.argv[1])
from open_clip_train.main import main
main(sys.argv[2:])
"""
_REPORT = re.compile(r"Train Epoch: 0 \[\s*(\d+)/")


def main() -> None:
    """Print both rates and their ratio, twice in turn."""
    print(machine(), f"- ViT of width 128, batch {BATCH}, {WORKERS} decoding processes, JPEGs of {SIDE} px")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, SIDE)
        shards = f"{folder}/{{0..{SHARDS - 1}}}.tar"
        for attempt in range(2):
            mine, other = _ours(folder, shards, attempt), _theirs(folder, shards)
            print(f"clipeval-train {mine:6.1f} samples/s, open_clip_train {other:6.1f} samples/s: {mine / other:.2f} x")


def _ours(folder: Path, shards: str, attempt: int) -> float:
    config = {
        "model": MODEL,
        "arch": "small",
        "data": [{"source": "bench", "shards": shards}],
        "samples": BATCH * BATCHES,
        "batch_size": BATCH,
        "lr": 1e-3,
        "warmup": BATCH * 2,
        "workers": WORKERS,
        "out": str(folder / f"run{attempt}"),
    }
    path = folder / f"run{attempt}.yaml"
    path.write_text(json.dumps(config))
    subprocess.run(
        [sys.executable, "-m", "clipeval_train", "pretrain", str(path)],
        check=True,
        capture_output=True,
        env=os.environ | {"CLIPEVAL_CACHE": str(folder / "cache")},
    )
    lines = [json.loads(line) for line in (folder / f"run{attempt}" / "log.jsonl").read_text().splitlines()]
    first, last = next(line for line in lines if line["samples"] >= BATCH * BATCHES // 4), lines[-1]
    return (last["samples"] - first["samples"]) / (last["seconds"] - first["seconds"])


def _theirs(folder: Path, shards: str) -> float:
    (folder / "small.json").write_text(json.dumps(MODEL))
    command = [
        peer.python(), "-c", _PEER, str(folder / "small.json"),
        "--model", "small", "--train-data", shards, "--train-num-samples", str(BATCH * BATCHES),
        "--dataset-type", "webdataset", "--dataset-resampled", "--batch-size", str(BATCH), "--epochs", "1",
        "--workers", str(WORKERS), "--precision", "fp32", "--lr", "1e-3", "--warmup", "2", "--log-every-n-steps", "4",
        "--logs", str(folder / "logs"), "--device", "cpu",
    ]  # fmt: skip
    reports: list[tuple[int, float]] = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    output = []
    for line in process.stdout:
        output.append(line)
        if found := _REPORT.search(line):
            reports.append((int(found[1]), time.monotonic()))
    if process.wait() or len(reports) < 3:
        raise RuntimeError(f"open_clip_train ended in {process.returncode}:\n{''.join(output)[-3000:]}")
    (first, start), (last, end) = next(r for r in reports if r[0] >= BATCH * BATCHES // 4), reports[-1]
    return (last - first) / (end - start)
