"""Training from JPEG shards: samples per second of clipeval-train and of open_clip_train 3.3.

Both train the same architecture at the same precision on the same shards, batch size, number of decoding processes and
cores: a small ViT in fp32 on a CPU, ViT-B/32 and ViT-B/16 in bf16 where there is a GPU. The first quarter of the batches
does not count.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import peer
from bench.input import SAMPLES, SHARDS, write_shards
from bench.measure import machine

SIDE = 256
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


@dataclass(frozen=True)
class Case:
    """What both train."""

    name: str
    model: dict[str, object] | str
    batch: int
    batches: int
    workers: int
    precision: str = "fp32"
    device: str = "cpu"

    @property
    def first(self) -> int:
        """Samples before the count begins."""
        return self.batch * self.batches // 4


def cases() -> list[Case]:
    """What this machine can train in minutes."""
    import torch

    cores = len(os.sched_getaffinity(0))
    if not torch.cuda.is_available():
        return [Case("ViT of width 128, fp32", MODEL, 128, 48, 2)]
    return [Case(f"{name}, bf16", name, 512, 64, cores, "bf16", "cuda") for name in ("ViT-B-32", "ViT-B-16")]


def main() -> None:
    """Print both rates and their ratio, twice in turn."""
    print(machine())
    for case in cases():
        print(f"{case.name}, batch {case.batch}, {case.workers} decoding processes, JPEGs of {SIDE} px")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_shards(folder, SIDE, max(SAMPLES, 8 * case.batch))
            shards = f"{folder}/{{0..{SHARDS - 1}}}.tar"
            for attempt in range(2):
                mine, costs = _ours(case, folder, shards, attempt)
                other = _theirs(case, folder, shards)
                print(
                    f"clipeval-train {mine:7.1f} samples/s ({costs}), open_clip_train {other:7.1f} samples/s: "
                    f"{mine / other:.2f} x"
                )


def _ours(case: Case, folder: Path, shards: str, attempt: int) -> tuple[float, str]:
    config = {
        "model": case.model,
        "arch": "small",
        "data": [{"source": "bench", "shards": shards}],
        "samples": case.batch * case.batches,
        "batch_size": case.batch,
        "lr": 1e-3,
        "warmup": case.batch * 2,
        "workers": case.workers,
        "precision": case.precision,
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
    log = (folder / f"run{attempt}" / "log.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, log) if "samples_per_second" in line]
    first, last = next(line for line in lines if line["samples"] >= case.first), lines[-1]
    mfu = f"MFU {last['mfu']:.1%}, " if last.get("mfu") else ""
    costs = f"{mfu}waiting for data {last['data_wait']:.1%}"
    return (last["samples"] - first["samples"]) / (last["seconds"] - first["seconds"]), costs


def _theirs(case: Case, folder: Path, shards: str) -> float:
    (folder / "small.json").write_text(json.dumps(MODEL))
    samples = case.batch * case.batches
    command = [
        peer.python(), "-c", _PEER, str(folder / "small.json"),
        "--model", case.model if isinstance(case.model, str) else "small", "--train-data", shards,
        "--train-num-samples", str(samples), "--dataset-type", "webdataset", "--dataset-resampled",
        "--batch-size", str(case.batch), "--epochs", "1", "--workers", str(case.workers),
        "--precision", "amp_bf16" if case.precision == "bf16" else case.precision, "--lr", "1e-3", "--warmup", "2",
        "--log-every-n-steps", "4", "--logs", str(folder / "logs"), "--device", case.device,
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
    (first, start), (last, end) = next(report for report in reports if report[0] >= case.first), reports[-1]
    return (last - first) / (end - start)
