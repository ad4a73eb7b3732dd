"""Every architecture of open_clip, and every family of transformers, against the library that it comes from.

For each a model with random weights is written by that library and read by both. Compared are the pixels and embeddings
of images, tokens, and the embeddings of texts at full length and in one batch cut to its longest text; the largest
difference is given relative to the largest value. Tokenizers and text towers of a hub come from one on the loopback,
small ones in their place; towers have the sizes of those published. One process each, so that memory is given back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
MOST = 2e-5
"""Relative difference of embeddings in fp32 that sums in another order make."""
TEXTS = ["a photo of a cat", "x", "a much longer caption about seven purple elephants in a room"]
SHAPES = ((301, 222, 3), (97, 640, 3))
TOWERS = {
    "roberta-base": {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "pad_token_id": 1},
    "xlm-roberta-base": {
        "model_type": "xlm-roberta",
        "vocab_size": 250002,
        "max_position_embeddings": 514,
        "pad_token_id": 1,
    },
    "google/mt5-base": {
        **{"model_type": "mt5", "vocab_size": 250112, "d_model": 768, "d_ff": 2048, "d_kv": 64, "num_layers": 12},
        **{"num_heads": 12, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    },
}
"""Configurations of text towers as they are published, where they differ from the defaults of transformers."""


def main(*words: str) -> None:
    """Print one line each, then how many agree. ``--child`` is for the processes that it starts."""
    parser = argparse.ArgumentParser(prog="python -m bench architectures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures or families; default: all")
    parser.add_argument("--max-params", type=float, default=5e8, help="leave out larger ones")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.child:
        [name] = asked.names
        found = (_family if name.startswith("transformers:") else _architecture)(name, Path(asked.child))
        print("RESULT", json.dumps(found))
        return
    sys.path.insert(0, str(TESTS))
    results = [_shown(found) for found in _all(asked.names or list(_names(asked.max_params)))]
    print(f"{sum(results)} of {len(results)} agree")
    raise SystemExit(not all(results))


def _names(most: float) -> Iterator[str]:
    from clipeval.models import zoo
    from clipeval.models.transformers.library import KINDS

    rows = sorted(zoo.architectures().values(), key=lambda row: row.params)
    yield from (row.arch for row in rows if row.params <= most)
    yield from (f"transformers:{kind}" for kind in KINDS)


def _all(names: list[str]) -> Iterator[dict[str, Any]]:
    import open_clip
    import transformers_folders
    from loopback_hub import Hub, models

    with tempfile.TemporaryDirectory() as place, Hub(Path(place)) as hub:
        for arch in open_clip.list_models():
            text = open_clip.get_model_config(arch)["text_cfg"]
            for name in {text.get("hf_tokenizer_name"), text.get("hf_model_name")} - {None}:
                if ("model", name) not in hub.repositories:
                    own = {"config.json": json.dumps(TOWERS[name]).encode()} if name in TOWERS else {}
                    strips = text.get("tokenizer_kwargs", {}).get("strip_sep_token")  # BERT's, that has one
                    tokenizer = transformers_folders.bert_files() if strips else models.tokenizer_files()
                    hub.repository(name, tokenizer | own)
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                yield _of_child(name, folder, hub.environment | {"PYTHONPATH": f"{Path.cwd()}:{TESTS}"})


def _of_child(name: str, folder: str, environment: dict[str, str]) -> dict[str, Any]:
    started = time.monotonic()
    command = [sys.executable, "-m", "bench", "architectures", name, "--child", folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"})
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT ")) if lines else {}
    last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    return {"name": name, "seconds": time.monotonic() - started} | (found or {"failed": last[:300]})


def _shown(found: dict[str, Any]) -> bool:
    differences = {key: value for key, value in found.items() if key.endswith("difference")}
    agrees = (
        "failed" not in found
        and found.get("tokens_equal", True)
        and all(value <= MOST for value in differences.values())
    )
    said = found.get("failed") or ", ".join(
        f"{key.partition('_')[0]} {value:.1e}" for key, value in differences.items()
    )
    size = f"{found.get('params', 0) / 1e6:6.0f} M"
    print(
        f"{'agrees' if agrees else 'DIFFERS':8} {found['name']:40} {size} {found['seconds']:5.0f} s  {said}", flush=True
    )
    return agrees


def _images() -> list[Any]:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in SHAPES]


def _difference(ours: Any, theirs: Any) -> float:
    """The largest, relative to the largest value; infinite where a value is not finite."""
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return float("inf")
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _spread(model: Any) -> None:
    """Fresh weights are too alike to show a difference."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "logit" not in name:
                parameter.add_(torch.randn_like(parameter) * parameter.std().clamp(min=1e-3) * 0.5)


def _architecture(arch: str, folder: Path) -> dict[str, Any]:
    """open_clip's own model, and clipeval's of the file that it was saved to."""
    import numpy as np
    import open_clip
    import torch

    from clipeval import config, models

    torch.manual_seed(0)
    settings = {"pretrained_hf": False} if "hf_model_name" in open_clip.get_model_config(arch)["text_cfg"] else {}
    theirs, _, transform = open_clip.create_model_and_transforms(arch, **settings)
    theirs.eval()
    _spread(theirs)
    params = sum(parameter.numel() for parameter in theirs.parameters())
    torch.save({"state_dict": theirs.state_dict()}, folder / "w.pt")
    [spec] = models.resolve([f"{arch},{folder / 'w.pt'}"], config.packaged())
    encoder: Any = models.load(spec, device="cpu", precision="fp32", offline=False)
    pixels = torch.from_numpy(np.stack([encoder.pixels(image) for image in _images()]))
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (encoder.preprocessing.mean, encoder.preprocessing.std)
    )
    tokens = open_clip.get_tokenizer(arch)(TEXTS)
    lengths = encoder.token_lengths(tokens)
    with torch.inference_mode():
        normalised = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
        texts = theirs.encode_text(tokens)
        found = {
            "params": params,
            "tokens_equal": torch.equal(tokens, encoder.tokenize(TEXTS)),
            "image_difference": _difference(encoder.encode_images(pixels), theirs.encode_image(normalised)),
            "text_difference": _difference(encoder.encode_tokens(tokens), texts),
            "cut_text_difference": _difference(encoder.encode_tokens(tokens[:, : int(lengths.max())]), texts),
        }
        if _as_open_clip(encoder.preprocessing, theirs.visual.preprocess_cfg):
            whole = theirs.encode_image(torch.stack([transform(image) for image in _images()]))
            found["whole-path_difference"] = _difference(encoder.encode_images(pixels), whole)
    return found


def _as_open_clip(ours: Any, theirs: dict[str, Any]) -> bool:
    """Whether a bare file is preprocessed as open_clip would, which always takes OpenAI's settings."""
    same = (ours.mean, ours.std) == (tuple(theirs["mean"]), tuple(theirs["std"]))
    return same and all(getattr(ours, key) == theirs[key] for key in ("interpolation", "resize_mode"))


def _family(name: str, folder: Path) -> dict[str, Any]:
    """transformers' own model in its default size, and clipeval's of the folder that it was saved to."""
    import torch
    import transformers_folders

    from clipeval import config, models

    kind = name.removeprefix("transformers:")
    place = transformers_folders.write(kind, folder / kind, whole=True)
    [spec] = models.resolve([f"transformers:{place}"], config.packaged())
    encoder: Any = models.load(spec, device="cpu", precision="fp32", offline=False)
    images, texts = transformers_folders.theirs(place, _images(), TEXTS)
    pixels = torch.stack([torch.from_numpy(encoder.pixels(image)) for image in _images()])
    tokenized = encoder.tokenized(TEXTS)
    rows = torch.cat([tokenized.encode(row) for row in torch.arange(len(TEXTS)).numpy()[:, None]])
    return {
        "params": encoder.info.params,
        "image_difference": _difference(encoder.encode_images(pixels), images),
        "text_difference": _difference(tokenized.encode(torch.arange(len(TEXTS)).numpy()), texts),
        "cut_text_difference": _difference(rows, texts),
    }
