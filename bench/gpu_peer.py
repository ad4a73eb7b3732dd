"""CLIP_benchmark's images per second over the shards of ``bench.gpu_sections``, by its own loader and loop."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import peer
from bench.measure import timed

BATCH = 256
_LIMIT = 100
_ANSWER = "RATE "
_CODE = """
import json, sys, time, itertools, torch, open_clip
given = json.loads(sys.argv[1])
device = given["device"]
if given["config"]:
    open_clip.add_model_config(given["config"])
from clip_benchmark.models.open_clip import load_open_clip
from clip_benchmark.datasets.builder import build_dataset
from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier
model, transform, tokenizer = load_open_clip(given["arch"], given["checkpoint"], device=device)
model.eval()
for name, amp, dtype, tf32 in given["precisions"]:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    if amp:
        torch.set_autocast_dtype(device, getattr(torch, dtype))
    data = build_dataset("wds/classes", root=given["root"], transform=transform, split="test")
    loader = torch.utils.data.DataLoader(
        data.batched(given["batch"]), batch_size=None, shuffle=False, num_workers=given["workers"]
    )
    batches = itertools.islice(loader, -(-given["images"] // given["batch"]))
    classifier = zero_shot_classifier(model, tokenizer, data.classes, data.templates, device, amp)
    started = time.perf_counter()
    logits, _ = run_classification(model, classifier, batches, device, amp)
    print("\\nRATE", json.dumps([name, len(logits) / (time.perf_counter() - started)]), flush=True)
"""
_PRECISIONS = {
    "fp32": (False, "", False),
    "tf32": (False, "", True),
    "bf16": (True, "bfloat16", True),
    "fp16": (True, "float16", True),
}
"""Name -> autocast, its type, TF32. It has no bf16 weights."""


def rates(root: Path, arch: str, device: str, workers: int, small: bool, images: int) -> dict[str, float] | str:
    """Images per second by precision, or why there are none."""
    if importlib.util.find_spec("clip_benchmark") is None:
        return "not installed"
    names = _PRECISIONS if device == "cuda" else ("fp32", "bf16")
    given = {
        **{"arch": arch, "checkpoint": str(root / f"{arch}.pt"), "config": "", "root": str(root / "wds_classes")},
        **{"device": device, "batch": 8 if small else BATCH, "workers": workers, "images": images},
        "precisions": [(name, *_PRECISIONS[name]) for name in names],
    }
    if small:
        given |= {"arch": "tiny-peer", "checkpoint": str(root / "tiny-peer.pt"), "config": str(root / "tiny-peer.json")}
        _write_toy(root)
    reason = ""
    for interpreter in _interpreters():
        try:
            output = timed(["timeout", str(_LIMIT), interpreter, "-W", "ignore", "-c", _CODE, json.dumps(given)]).output
        except RuntimeError as error:
            reason = f"fails: {str(error).strip().splitlines()[-1]:.100}"
            continue
        lines = [line.removeprefix(_ANSWER) for line in output.splitlines() if line.startswith(_ANSWER)]
        return dict(map(json.loads, lines))
    return reason


def _interpreters() -> Iterator[str]:
    """This one, and where it fails there the one with older packages."""
    yield sys.executable
    try:
        yield peer.python()
    except (subprocess.CalledProcessError, OSError):
        return


def _write_toy(root: Path) -> None:
    import torch

    content = torch.load(root / "tiny.pt", weights_only=True)
    (root / "tiny-peer.json").write_text(json.dumps(content["model_cfg"]))
    torch.save(content["state_dict"], root / "tiny-peer.pt")
