"""Images per second of image towers of growing size on one intra-op thread and on all cores."""

from __future__ import annotations

import time

from bench.measure import machine

SHAPES = {
    "width 32, 2 layers, 32 px": (32, 2, 32, 8),
    "width 64, 4 layers, 32 px": (64, 4, 32, 8),
    "width 128, 6 layers, 64 px": (128, 6, 64, 8),
    "width 192, 12 layers, 224 px": (192, 12, 224, 32),
    "width 384, 12 layers, 224 px": (384, 12, 224, 32),
}
SECONDS = 2.0


def main() -> None:
    """Print one line per tower: this is where the threshold in clipeval/machine.py comes from."""
    import torch

    from clipeval.machine import cores

    print(machine())
    for name, (width, layers, size, patch) in SHAPES.items():
        tower, gmacs = _tower(width, layers, size, patch)
        speeds = []
        for threads in (1, cores()):
            torch.set_num_threads(threads)
            speeds.append(_speed(tower, torch.rand(64, 3, size, size)))
        one, all_cores = speeds
        print(f"{name:30} {gmacs:7.4f} GMACs: 1 thread {one:8.0f}/s, {cores()} threads {all_cores:8.0f}/s")


def _tower(width: int, layers: int, size: int, patch: int):
    import open_clip

    vision = {"image_size": size, "layers": layers, "width": width, "patch_size": patch, "head_width": min(64, width)}
    text = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 1, "layers": 1}
    tokens = (size // patch) ** 2 + 1
    gmacs = layers * (12 * width * width * tokens + 2 * tokens * tokens * width) / 1e9
    return open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text).eval().visual, gmacs


def _speed(tower, batch) -> float:
    import torch

    with torch.inference_mode():
        tower(batch)
        started, images = time.monotonic(), 0
        while time.monotonic() - started < SECONDS:
            tower(batch)
            images += len(batch)
    return images / (time.monotonic() - started)
