"""One ViT-B-32 checkpoint file, end to end in fp32: 100 classes x 18 templates over 500 JPEGs of 256-512 px, and
retrieval over 200 images x 5 captions; on our side a linear probe (200 more training images) is included."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import peer
from bench.data import jpeg, write_split
from bench.measure import Usage, machine, timed

CLASSES, TEMPLATES, TEST_IMAGES, TRAIN_PER_CLASS, PAIRS, CAPTIONS = 100, 18, 500, 2, 200, 5
# The pairs are named flickr8k: CLIP_benchmark picks the task by the data set's name.
BATCH, WORKERS = 64, 2


def main() -> None:
    """Print seconds of both tools, and our time against the bare forward passes, a second checkpoint and a rerun."""
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        first, second = _checkpoints(root)
        _write_data(root)
        theirs = _peer(root, first)
        before = float(_code(root, _FORWARD.format(path=str(first))))
        ours = _ours(root, first, "out")
        after = float(_code(root, _FORWARD.format(path=str(first))))
        print(f"CLIP_benchmark {theirs.seconds:7.1f} s (zero-shot classification and retrieval)")
        print(f"clipeval       {ours.seconds:7.1f} s (the same and a linear probe)")
        print(f"clipeval is {theirs.seconds / ours.seconds:.2f} times faster")
        _compare_values(root)
        import_seconds = _seconds_of("import torch, open_clip, pandas, sklearn.linear_model, faiss")
        print(f"start-up (imports only) {import_seconds:.1f} s")
        forward = (before + after) / 2
        print(
            f"bare forward passes of the same images and texts: {before:.1f} s before our run, {after:.1f} s after it"
        )
        net = ours.seconds - import_seconds
        print(
            f"our total without start-up / bare forward passes: {net / forward:.3f}; with start-up: {ours.seconds / forward:.3f}"
        )
        decoded = int(_code(root, _DECODED.format(root=str(root), path=str(second), batch=BATCH)))
        print(f"images decoded for a second checkpoint: {decoded} of {TEST_IMAGES}")
        again = _ours(root, first, "out")
        print(f"rerun of the finished run: {again.seconds:.1f} s, {again.seconds - import_seconds:.1f} s over start-up")


def _peer(root: Path, checkpoint: Path) -> Usage:
    command = [peer.python(), "-W", "ignore", "-m", "clip_benchmark.cli", "eval"]
    command += ["--model", "ViT-B-32", "--pretrained", str(checkpoint), "--no_amp", "--batch_size", str(BATCH)]
    command += ["--num_workers", str(WORKERS), "--recall_k", "1", "5", "10"]
    command += ["--dataset", "wds/classes", "wds/flickr8k", "--dataset_root", str(root / "wds_{dataset_cleaned}")]
    return timed([*command, "--output", str(root / "peer_{dataset}.json")])


def _ours(root: Path, checkpoint: Path, out: str) -> Usage:
    command = [sys.executable, "-m", "clipeval", "run", "-m", f"ViT-B-32,{checkpoint}", "-o", str(root / out)]
    command += ["-d", f"wds:{root}/wds_classes", "-d", f"wds:{root}/wds_flickr8k", "--offline"]
    command += ["-t", "classification", "-t", "retrieval", "-t", "probe"]
    command += ["--batch-size", str(BATCH), "--workers", str(WORKERS), "--device", "cpu"]
    return timed(command, CLIPEVAL_CACHE=str(root / "cache"))


def _compare_values(root: Path) -> None:
    import pandas as pd

    rows = pd.read_parquet(root / "out" / "results.parquet").query("status == 'ok' and task != 'linear_probe'")
    ours = {row.metric: row.value for row in rows.itertuples()}
    for file in sorted(root.glob("peer_*.json")):
        for metric, value in json.loads(file.read_text())["metrics"].items():
            if metric in ours:
                print(f"  {metric:28} clipeval {ours[metric]:.6f}  CLIP_benchmark {value:.6f}")


def _seconds_of(code: str) -> float:
    return min(timed([sys.executable, "-c", code]).seconds for _ in range(2))


def _code(root: Path, code: str) -> str:
    output = timed([sys.executable, "-W", "ignore", "-c", code], CLIPEVAL_CACHE=str(root / "cache")).output
    [line] = [line for line in output.splitlines() if line.startswith("RESULT")]
    return line.removeprefix("RESULT ")


_FORWARD = f"""
import time, torch, numpy as np
from clipeval import config, machine, models
[spec] = models.resolve(["ViT-B-32,{{path}}"], config.load())
encoder = models.load(spec, device="cpu", precision="fp32", offline=True)
machine.set_threads(encoder.info.gmacs_image)
pixels = torch.zeros({BATCH}, 224, 224, 3, dtype=torch.uint8)
texts = [f"a photo of class {{{{c}}}}, style {{{{t}}}}." for c in range({CLASSES}) for t in range({TEMPLATES})]
texts += [f"caption {{{{k}}}} of picture {{{{i}}}} with a few more words" for i in range({PAIRS}) for k in range({CAPTIONS})]
tokens = encoder.tokenize(texts); lengths = encoder.token_lengths(tokens); order = np.argsort(lengths)
encoder.encode_images(pixels[:2])
started = time.monotonic()
left = {TEST_IMAGES + CLASSES * TRAIN_PER_CLASS + PAIRS}
while left > 0:
    encoder.encode_images(pixels[:left]); left -= {BATCH}
for start in range(0, len(order), {BATCH}):
    rows = order[start:start + {BATCH}]
    encoder.encode_tokens(tokens[rows][:, :int(lengths[rows[-1]])])
print("RESULT", time.monotonic() - started)
"""

_DECODED = """
import clipeval
from clipeval.embeddings.decoding import Decoding
count = 0
decode = Decoding.__call__
def counted(self, indices, into):
    global count
    count += len(indices)
    return decode(self, indices, into)
Decoding.__call__ = counted
frame = clipeval.run("ViT-B-32,{path}", "wds:{root}/wds_classes", "classification", out="{root}/second", batch_size={batch}, workers=0)
assert (frame.status == "ok").all(), frame.error
print("RESULT", count)
"""


def _checkpoints(root: Path) -> list[Path]:
    import open_clip
    import torch

    paths = []
    for seed in range(2):
        torch.manual_seed(seed)
        paths.append(root / f"b32-{seed}.pt")
        torch.save({"state_dict": open_clip.create_model("ViT-B-32").state_dict()}, paths[-1])
    return paths


def _write_data(root: Path) -> None:
    """Two sets in CLIP_benchmark's webdataset layout, two shards per split so that its loader can use two workers."""
    rng = np.random.default_rng(0)
    for split, count in (("test", TEST_IMAGES), ("train", CLASSES * TRAIN_PER_CLASS)):
        samples = [{"jpg": jpeg(rng), "cls": str(i % CLASSES).encode()} for i in range(count)]
        write_split(root / "wds_classes" / split, samples)
    (root / "wds_classes" / "classnames.txt").write_text("\n".join(f"class {c}" for c in range(CLASSES)))
    templates = "\n".join(f"a photo of {{c}}, style {t}." for t in range(TEMPLATES))
    (root / "wds_classes" / "zeroshot_classification_templates.txt").write_text(templates)
    captions = [
        "\n".join(f"caption {k} of picture {i} with a few more words" for k in range(CAPTIONS)) for i in range(PAIRS)
    ]
    write_split(root / "wds_flickr8k" / "test", [{"jpg": jpeg(rng), "txt": text.encode()} for text in captions])
    (root / "wds_flickr8k" / "dataset_type.txt").write_text("retrieval")
