"""The contrastive loss of 32,768 pairs of 512 numbers, forward and backward in one process: CPU time and peak memory above
the embeddings, ours and open_clip's ClipLoss."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

from bench.measure import machine, peak_mib, timed

PAIRS, WIDTH = 32_768, 512
NEEDED_RATIO = 8


def main() -> None:
    """Print one line per loss and the ratios. open_clip's needs about 18 GiB of free memory at the full size."""
    print(f"{machine()}; {PAIRS:,} pairs, embeddings 2 x {PAIRS * WIDTH * 4 / 2**20:.0f} MiB in fp32")
    found = {}
    for name in ("clipeval", "open_clip"):
        output = timed([sys.executable, "-m", "bench.loss", name, str(PAIRS)]).output
        seconds, mib = found[name] = tuple(map(float, output.split()[-2:]))
        print(f"{name:>9}: {seconds:6.1f} CPU seconds, {mib:8,.0f} MiB above the embeddings")
    (our_seconds, our_mib), (their_seconds, their_mib) = found["clipeval"], found["open_clip"]
    print(
        f"clipeval takes 1/{their_mib / our_mib:.1f} of the memory (aim: 1/{NEEDED_RATIO} or less) and "
        f"{our_seconds / their_seconds:.2f} of the CPU time"
    )


def _measure(name: str, pairs: int) -> None:
    """Print CPU seconds, and MiB by which the peak grows, of one forward and backward pass."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(pairs, WIDTH), dim=-1).requires_grad_() for _ in range(2))
    scale = torch.tensor(100.0, requires_grad=True)
    loss = _ours() if name == "clipeval" else _theirs()
    loss(images[:64], texts[:64], scale).backward()  # what a first call loads is not the loss's
    images.grad = texts.grad = None
    before, started = _resident_mib(), time.process_time()
    loss(images, texts, scale).backward()
    print(time.process_time() - started, peak_mib() - before)


def _resident_mib() -> float:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _ours():
    import torch

    from clipeval_train.distributed import World
    from clipeval_train.loss import contrastive

    world = World(0, 1, 0, torch.device("cpu"))
    return lambda images, texts, scale: contrastive("clip", images, texts, scale, None, world)


def _theirs():
    from open_clip.loss import ClipLoss

    return ClipLoss()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=_measure.__doc__)
    parser.add_argument("name", choices=("clipeval", "open_clip"))
    parser.add_argument("pairs", type=int)
    _measure(**vars(parser.parse_args()))
