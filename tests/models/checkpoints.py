"""Small checkpoints of every kind, tokenizers of transformers, and a hub that lies in a local cache."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clipeval.models import ModelSpec, library, weights

VISION = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "layers": 2, "width": 32, "heads": 2}
TINY: dict[str, Any] = {"embed_dim": 20, "vision_cfg": VISION, "text_cfg": TEXT}
CPU: dict[str, Any] = {"device": "cpu", "precision": "fp32", "offline": True}
METADATA = {"source": "toy", "source_family": None, "unique_samples": 50.0, "samples_seen": 200, "seed": 3}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "the"]


def random_model(config: dict[str, Any] = TINY, seed: int = 0, tower: dict[str, Any] | None = None) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = library.build(config, tower).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.normal_(std=0.3)  # fresh weights are too small to show a difference
    return model


def content_of(config: dict[str, Any] = TINY, seed: int = 0, **changed: Any) -> dict[str, Any]:
    """What clipeval-train writes; ``changed`` are other top-level entries."""
    return {
        "format": weights.TRAINED_FORMAT,
        "arch": "toy",
        "model_cfg": copy.deepcopy(config),
        "state_dict": random_model(config, seed).state_dict(),
        "metadata": METADATA,
    } | changed


def trained(path: Path, content: dict[str, Any] | None = None) -> ModelSpec:
    torch.save(content_of() if content is None else content, path)
    return ModelSpec(path.as_posix(), "trained", pretrained=path.as_posix(), path=str(path))


def of_file(path: Path, arch: str = "tiny") -> ModelSpec:
    return ModelSpec(f"{arch},{path}", "file", arch, str(path), str(path))


def folder(path: Path, config: dict[str, Any] | None = None, seed: int = 0, **document: Any) -> ModelSpec:
    """A local-dir checkpoint; ``document`` are further entries of its configuration."""
    path.mkdir(parents=True, exist_ok=True)
    config = config or TINY
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config} | document))
    plain = config | {"text_cfg": {k: v for k, v in config["text_cfg"].items() if not k.startswith("hf_model")}}
    save_file(random_model(plain, seed).state_dict(), path / "open_clip_model.safetensors")
    return ModelSpec(f"local-dir:{path}", "local-dir", "", f"local-dir:{path}", str(path))


def tokenizer_files(path: Path, words: list[str] = WORDS) -> Path:
    """A word tokenizer of BERT's kind, in the files that its repositories have."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(words) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return path


class Hub:
    """Repositories in a cache folder laid out as huggingface_hub does."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._cache = cache
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))

    def repository(self, name: str) -> Path:
        """The folder of the newest revision of a repository, made where it is not there yet."""
        root = self._cache / f"models--{name.replace('/', '--')}"
        revision = "0123456789abcdef0123456789abcdef01234567"
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / "main").write_text(revision)
        (root / "snapshots" / revision).mkdir(parents=True, exist_ok=True)
        return root / "snapshots" / revision


def know_tiny(monkeypatch: pytest.MonkeyPatch, tag: dict[str, Any] | None = None) -> None:
    """open_clip gets the architecture ``tiny``, with a tag ``toy`` if ``tag`` says where."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", copy.deepcopy(TINY))
    if tag:
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"toy": tag})
