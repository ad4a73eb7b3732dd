"""On an NVIDIA GPU: ViT-B-32 and ViT-L-14 over 10,000 JPEGs in bf16 and fp16, images/s end to end for both tools, and
the share of time the GPU waits."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import peer
from bench.data import jpeg, write_split
from bench.measure import timed

IMAGES, CLASSES, BATCH = 10_000, 100, 256
DISTINCT = 1_000
"""JPEGs drawn; each is used ten times, which costs a decoder the same as a new one."""


def main() -> None:
    """Print one line per architecture and precision; says so and does nothing where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        print("no GPU that PyTorch can use on this machine: not measured")
        return
    workers = min(os.cpu_count() or 1, 16)
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, {workers} decoding processes, batch {BATCH}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write(root, shards=workers)
        for arch in ("ViT-B-32", "ViT-L-14"):
            checkpoint = _checkpoint(root, arch)
            for precision in ("bf16", "fp16"):
                bare = _bare_speed(arch, checkpoint, precision)
                ours = IMAGES / _ours(root, arch, checkpoint, precision, workers)
                theirs = IMAGES / _peer(root, arch, checkpoint, precision, workers)
                print(
                    f"{arch} {precision}: clipeval {ours:6.0f} images/s, GPU waits {1 - ours / bare:4.0%}; "
                    f"CLIP_benchmark {theirs:6.0f} images/s, GPU waits {1 - theirs / bare:4.0%}; ratio {ours / theirs:.2f}"
                )


def _ours(root: Path, arch: str, checkpoint: Path, precision: str, workers: int) -> float:
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "clipeval", "run", "-m", f"{arch},{checkpoint}", "-o", f"{cache}/out"]
        command += ["-d", f"wds:{root}/wds_classes", "-t", "classification", "--precision", precision, "--offline"]
        command += ["--batch-size", str(BATCH), "--workers", str(workers), "--device", "cuda"]
        return timed(command, CLIPEVAL_CACHE=cache).seconds


def _peer(root: Path, arch: str, checkpoint: Path, precision: str, workers: int) -> float:
    """CLIP_benchmark always uses autocast's default type on a GPU, fp16; bf16 is made the default for its process."""
    code = "import torch, sys\n"
    if precision == "bf16":
        code += "torch.set_autocast_dtype('cuda', torch.bfloat16)\n"
    code += "from clip_benchmark.cli import main\nmain()"
    command = [peer.python(), "-W", "ignore", "-c", code, "eval", "--model", arch, "--pretrained", str(checkpoint)]
    command += ["--batch_size", str(BATCH), "--num_workers", str(workers), "--dataset", "wds/classes"]
    command += ["--dataset_root", str(root / "wds_{dataset_cleaned}"), "--output", str(root / "peer.json")]
    return timed(command).seconds


def _bare_speed(arch: str, checkpoint: Path, precision: str) -> float:
    """Images per second of the image tower on pixels that are already on the GPU."""
    import torch

    from clipeval import config, models

    [spec] = models.resolve([f"{arch},{checkpoint}"], config.load())
    encoder = models.load(spec, device="cuda", precision=precision, offline=True)
    pixels = torch.zeros(BATCH, *encoder.preprocessing.size, 3, dtype=torch.uint8, device="cuda")
    for _ in range(3):
        encoder.encode_images(pixels)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(10):
        encoder.encode_images(pixels)
    end.record()
    torch.cuda.synchronize()
    return 10 * BATCH / (start.elapsed_time(end) / 1000)


def _checkpoint(root: Path, arch: str) -> Path:
    import open_clip
    import torch

    path = root / f"{arch}.pt"
    if not path.exists():
        torch.save({"state_dict": open_clip.create_model(arch).state_dict()}, path)
    return path


def _write(root: Path, shards: int) -> None:
    rng = np.random.default_rng(0)
    jpegs = [jpeg(rng) for _ in range(DISTINCT)]
    samples = [{"jpg": jpegs[i % DISTINCT], "cls": str(i % CLASSES).encode()} for i in range(IMAGES)]
    write_split(root / "wds_classes" / "test", samples, shards)
    (root / "wds_classes" / "classnames.txt").write_text("\n".join(f"class {c}" for c in range(CLASSES)))
    (root / "wds_classes" / "zeroshot_classification_templates.txt").write_text("a photo of {c}.")
