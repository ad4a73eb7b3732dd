"""Encoding an ImageNet-sized prompt set (1,000 classes x 80 templates) with ViT-B-32, timed on a fixed sample of it."""

from __future__ import annotations

import json
import sys

from bench import peer
from bench.measure import machine, timed

CLASSES = tuple(range(37, 1000, 100))
"""Every hundredth class: 10 classes x 80 templates = 800 of the 80,000 prompts."""

_INPUTS = f"""
import json, time, torch, open_clip, logging
logging.disable(logging.WARNING)
from clip_benchmark.datasets.builder import get_dataset_default_task
import clip_benchmark.datasets.builder as builder, os
folder = os.path.dirname(builder.__file__)
names = json.load(open(os.path.join(folder, "en_classnames.json")))["imagenet1k"]
templates = json.load(open(os.path.join(folder, "en_zeroshot_classification_templates.json")))["imagenet1k"]
names = [names[i] for i in {CLASSES!r}]
torch.manual_seed(0)
"""

_PEER = (
    _INPUTS
    + """
from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier
model = open_clip.create_model("ViT-B-32").eval()
tokenizer = open_clip.get_tokenizer("ViT-B-32")
zero_shot_classifier(model, tokenizer, names[:1], templates[:4], "cpu", amp=False)
started = time.monotonic()
weights = zero_shot_classifier(model, tokenizer, names, templates, "cpu", amp=False)
print("RESULT", json.dumps([time.monotonic() - started, weights.T.tolist()]))
"""
)

_OURS = (
    _INPUTS
    + """
import tempfile, os
os.environ["CLIPEVAL_CACHE"] = tempfile.mkdtemp()
import numpy as np
from pathlib import Path
from clipeval import config, machine, models
from clipeval.embeddings import texts
from clipeval.tasks.zeroshot_classification import class_vectors
path = Path(os.environ["CLIPEVAL_CACHE"]) / "b32.pt"
torch.save({"state_dict": open_clip.create_model("ViT-B-32").state_dict()}, path)
[spec] = models.resolve([f"ViT-B-32,{path}"], config.load())
encoder = models.load(spec, device="cpu", precision="fp32", offline=True)
machine.set_threads(encoder.info.gmacs_image)
encoder.encode_tokens(encoder.tokenize(["warm up"]))
started = time.monotonic()
store = texts.TextStore(encoder.identity.text_key(encoder.precision), encoder.embed_dim)
prompts = [[t.format(c=name) for t in templates] for name in names]
unique = list(dict.fromkeys(p for row in prompts for p in row))
texts.embed(encoder, store, unique, 64, lambda *_: None)
position = {text: i for i, text in enumerate(unique)}
vectors = class_vectors(store.get(unique), [np.array([position[p] for p in row]) for row in prompts])
print("RESULT", json.dumps([time.monotonic() - started, vectors.tolist()]))
"""
)


def main() -> None:
    """Print seconds and ratio; the class vectors must agree."""
    print(machine())
    results = []
    for python, code in ((sys.executable, _OURS), (peer.python(), _PEER)):
        output = timed([python, "-W", "ignore", "-c", code]).output
        [line] = [line for line in output.splitlines() if line.startswith("RESULT")]
        results.append(json.loads(line.removeprefix("RESULT ")))
    (ours, our_vectors), (theirs, their_vectors) = results
    prompts = len(CLASSES) * 80
    for name, seconds in (("clipeval", ours), ("CLIP_benchmark", theirs)):
        print(f"{name:15} {seconds:7.2f} s for {prompts} prompts ({prompts / seconds:.0f}/s)")
    print(f"clipeval is {theirs / ours:.1f} times faster")
    worst = max(abs(a - b) for x, y in zip(our_vectors, their_vectors, strict=True) for a, b in zip(x, y, strict=True))
    print(f"largest difference in a class vector: {worst:.1e}")
