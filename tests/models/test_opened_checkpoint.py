"""A checkpoint is what its content is: its identity follows every byte that decides an embedding, and no other."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import (
    CPU,
    METADATA,
    TEXT,
    TINY,
    VISION,
    WORDS,
    Hub,
    content_of,
    folder,
    know_tiny,
    of_file,
    random_model,
    tokenizer_files,
    trained,
)
from safetensors.torch import save_file

from clipeval import models
from clipeval.errors import ModelError
from clipeval.identity import CheckpointIdentity
from clipeval.models import ModelSpec, library, weights
from clipeval.models import checkpoint as checkpoints

TEXTS = ["a photo of a cat", "the dog", "a"]
WITH_WORDS = TINY | {"text_cfg": TEXT | {"hf_tokenizer_name": "org/words", "vocab_size": 100}}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path / "hub", monkeypatch)


def identity(spec: ModelSpec) -> CheckpointIdentity:
    return models.open_checkpoint(spec, offline=True).identity


def make_tag(tmp_path: Path, hub: Hub) -> ModelSpec:
    save_file(random_model().state_dict(), hub.repository("org/tagged") / "open_clip_model.safetensors")
    return ModelSpec("tiny,toy", "tag", "tiny", "toy")


def make_file(tmp_path: Path, hub: Hub) -> ModelSpec:
    torch.save(random_model().state_dict(), tmp_path / "w.bin")
    return of_file(tmp_path / "w.bin")


def make_hf(tmp_path: Path, hub: Hub) -> ModelSpec:
    torch.save(random_model().state_dict(), hub.repository("org/files") / "w.pt")
    return ModelSpec("tiny,hf://org/files/w.pt", "hf", "tiny", "hf://org/files/w.pt")


def make_hub(tmp_path: Path, hub: Hub) -> ModelSpec:
    folder(hub.repository("org/whole"), WITH_WORDS, preprocess_cfg={"mean": [0.5, 0.4, 0.3], "resize_mode": "squash"})
    tokenizer_files(hub.repository("org/words"))
    return ModelSpec("hf-hub:org/whole", "hub", "", "hf-hub:org/whole")


def make_local(tmp_path: Path, hub: Hub) -> ModelSpec:
    tokenizer_files(tmp_path / "local")
    return folder(tmp_path / "local", WITH_WORDS, preprocess_cfg={"interpolation": "bilinear"})


def make_trained(tmp_path: Path, hub: Hub) -> ModelSpec:
    return trained(tmp_path / "t.pt", content_of(preprocess_cfg={"std": [0.5, 0.5, 0.5]}))


def make_tower(tmp_path: Path, hub: Hub) -> ModelSpec:
    """A text tower and a tokenizer of transformers, both named by a repository."""
    tower = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower |= {"intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 24}
    repository = tokenizer_files(hub.repository("org/bert"))
    (repository / "config.json").write_text(json.dumps(tower | {"_name_or_path": "org/bert"}))
    text = {"hf_model_name": "org/bert", "hf_tokenizer_name": "org/bert", "hf_proj_type": "mlp", "context_length": 16}
    config = TINY | {"text_cfg": text}
    content = content_of() | {"model_cfg": config, "state_dict": random_model(config, tower=tower).state_dict()}
    return trained(tmp_path / "tower.pt", content)


KINDS = [make_tag, make_file, make_hf, make_hub, make_local, make_trained, make_tower]


@pytest.mark.parametrize("make", KINDS)
def test_the_identity_is_that_of_the_loaded_encoder_and_builds_nothing(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path, Hub], ModelSpec]
) -> None:
    know_tiny(monkeypatch, {"hf_hub": "org/tagged/", "mean": (0.1, 0.2, 0.3)})
    spec = make(tmp_path, hub)
    with monkeypatch.context() as patch:
        patch.setattr(library, "build", lambda *_: pytest.fail("built"))
        planned = models.open_checkpoint(spec, offline=True)
        found = planned.identity
    for origin in (spec, planned):
        encoder = models.load(origin, **CPU)
        assert encoder.identity == found
        assert encoder.preprocessing == planned.preprocessing
        assert encoder.tokenize(TEXTS).shape == (3, encoder.context_length)
        assert encoder.encode_tokens(encoder.tokenize(TEXTS)).isfinite().all()
        assert encoder.info.checkpoint_sha256 == found.weights
    assert all(len(digest) == 64 for digest in (found.weights, found.model, found.preprocessing, found.tokenizer))
    assert found.image_key("fp32") == json.loads(json.dumps(found.image_key("fp32")))


def test_each_part_of_the_identity_follows_its_own_content(tmp_path: Path, hub: Hub) -> None:
    spec = make_local(tmp_path, hub)
    first = identity(spec)
    config = json.loads((tmp_path / "local" / "open_clip_config.json").read_text())

    def changed_by(document: dict[str, Any]) -> set[str]:
        (tmp_path / "local" / "open_clip_config.json").write_text(json.dumps(document))
        now = identity(spec)
        return {name for name in vars(now) if getattr(now, name) != getattr(first, name)}

    assert changed_by(config | {"metadata": METADATA, "arch": "other"}) == set()  # facts decide nothing
    for key, value in {"mean": [0, 0, 0], "std": [1, 1, 1], "fill_color": 3, "resize_mode": "longest"}.items():
        assert changed_by(config | {"preprocess_cfg": {key: value}}) == {"preprocessing"}
    assert changed_by(config | {"preprocess_cfg": {}}) == {"preprocessing"}
    assert changed_by(config | {"model_cfg": WITH_WORDS | {"quick_gelu": True}}) == {"model"}
    larger = WITH_WORDS | {"vision_cfg": VISION | {"image_size": 40}}
    assert changed_by(config | {"model_cfg": larger}) == {"model", "preprocessing"}
    tokens = WITH_WORDS | {"text_cfg": WITH_WORDS["text_cfg"] | {"tokenizer_kwargs": {"strip_sep_token": True}}}
    assert changed_by(config | {"model_cfg": tokens}) == {"model", "tokenizer"}
    assert changed_by(config) == set()
    folder(tmp_path / "local", WITH_WORDS, seed=1, preprocess_cfg=config["preprocess_cfg"])
    assert changed_by(config) == {"weights"}


@pytest.mark.parametrize("make", [make_local, make_hub])
def test_tokenizer_files_that_change_are_another_tokenizer(
    tmp_path: Path, hub: Hub, make: Callable[[Path, Hub], ModelSpec]
) -> None:
    spec = make(tmp_path, hub)
    place = tmp_path / "local" if spec.kind == "local-dir" else hub.repository("org/words")
    before = models.load(spec, **CPU)
    tokenizer_files(place, [*WORDS[:5], *reversed(WORDS[5:])])
    after = models.load(spec, **CPU)
    assert not torch.equal(before.tokenize(TEXTS), after.tokenize(TEXTS))
    assert before.identity.text_key("fp32") != after.identity.text_key("fp32")
    assert before.identity.image_key("fp32") == after.identity.image_key("fp32")
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "unk_token": "a"}))
    assert identity(spec).tokenizer not in (before.identity.tokenizer, after.identity.tokenizer)


def test_a_tower_of_transformers_is_in_the_identity(tmp_path: Path, hub: Hub) -> None:
    spec = make_tower(tmp_path, hub)
    before, file = identity(spec), hub.repository("org/bert") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "relu"}))
    assert identity(spec).model != before.model


def test_a_tokenizer_reads_no_file_that_is_not_in_its_digest(tmp_path: Path, hub: Hub) -> None:
    """Its configuration may name a vocabulary elsewhere, which would decide tokens and be in no digest."""
    spec = make_local(tmp_path, hub)
    before = models.load(spec, **CPU).tokenize(TEXTS)
    elsewhere = tokenizer_files(tmp_path / "elsewhere", [*WORDS[:5], *reversed(WORDS[5:])]) / "vocab.txt"
    settings = {"tokenizer_class": "BertTokenizer", "vocab_file": str(elsewhere)}
    (tmp_path / "local" / "tokenizer_config.json").write_text(json.dumps(settings))
    assert torch.equal(models.load(spec, **CPU).tokenize(TEXTS), before)


# --- files that change ---


def replaced(path: Path, other: bytes) -> None:
    (path.parent / "new").write_bytes(other)
    (path.parent / "new").replace(path)


def in_place(path: Path, other: bytes) -> None:
    """The same inode, size and modification time."""
    times = path.stat()
    path.write_bytes(other)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def there_and_back(path: Path, other: bytes) -> None:
    """Another file while it is read, and the old one put back: its inode, size and modification time are as before."""
    path.rename(path.with_suffix(".away"))
    path.write_bytes(other)
    replaced_by = weights.read

    def back(asked: Path) -> Any:
        content = replaced_by(asked)
        path.with_suffix(".away").replace(path)
        return content

    pytest.MonkeyPatch().setattr(weights, "read", back)


@pytest.mark.parametrize("change", [replaced, in_place, there_and_back])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_changes_between_its_digest_and_its_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, change: Callable[[Path, bytes], None]
) -> None:
    know_tiny(monkeypatch)
    path, read = tmp_path / f"w{suffix}", weights.read
    save = save_file if suffix == ".safetensors" else torch.save
    save(random_model(seed=1).state_dict(), path)
    other = path.read_bytes()
    save(random_model().state_dict(), path)
    assert len(other) == path.stat().st_size
    time.sleep(0.05)
    checkpoint = models.open_checkpoint(of_file(path), offline=True)
    assert checkpoint.identity.weights

    def read_late(asked: Path) -> Any:
        monkeypatch.setattr(weights, "read", read)
        change(path, other)
        return weights.read(asked)

    monkeypatch.setattr(weights, "read", read_late)
    with pytest.raises(ModelError, match="changed since it was opened"):
        models.load(checkpoint, **CPU)
    monkeypatch.setattr(weights, "read", read)
    models.load(of_file(path), **CPU)  # opened anew it is the file that is there now


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_mapped_file_that_changes_while_weights_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    know_tiny(monkeypatch)
    path, copy = tmp_path / f"w{suffix}", library.load_weights
    (save_file if suffix == ".safetensors" else torch.save)(random_model().state_dict(), path)
    time.sleep(0.05)

    def copy_late(model: Any, tensors: Any, origin: Path) -> None:
        with path.open("r+b") as file:
            file.seek(-64, os.SEEK_END)
            file.write(b"\1")
        copy(model, tensors, origin)

    monkeypatch.setattr(library, "load_weights", copy_late)
    with pytest.raises(ModelError, match="changed since it was opened"):
        models.load(of_file(path), **CPU)


def test_a_checkpoint_that_changes_after_planning(tmp_path: Path) -> None:
    spec = trained(tmp_path / "t.pt")
    planned = models.open_checkpoint(spec, offline=True)
    assert planned.info.source == "toy"
    time.sleep(0.05)
    trained(tmp_path / "t.pt", content_of(seed=1))
    with pytest.raises(ModelError, match="changed since it was opened"):
        models.load(planned, **CPU)


def test_tokenizer_files_that_change_after_planning(tmp_path: Path, hub: Hub) -> None:
    spec = make_local(tmp_path, hub)
    planned = models.open_checkpoint(spec, offline=True)
    assert planned.identity
    tokenizer_files(tmp_path / "local", WORDS[:-1])
    with pytest.raises(ModelError, match=r"vocab\.txt' changed while the model was loaded"):
        models.load(planned, **CPU)


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know_tiny(monkeypatch)
    calls, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: calls.append(args) or load(*args, **kwargs))
    spec = trained(tmp_path / "t.pt")
    models.load(spec, **CPU)
    assert len(calls) == 1
    models.load(of_file(tmp_path / "t.pt"), **CPU)
    assert len(calls) == 2
    planned = models.open_checkpoint(spec, offline=True)
    assert planned.info.source == "toy"
    assert planned.identity.tokenizer == planned.tokenizer.digest
    assert len(calls) == 3


def test_a_trained_checkpoint_exported_to_the_hub_keeps_its_facts(tmp_path: Path, hub: Hub) -> None:
    folder(hub.repository("org/mine"), TINY, arch="toy", metadata=METADATA)
    info = models.describe(ModelSpec("m", "hub", "", "hf-hub:org/mine"), offline=True)
    assert (info.arch, info.source, info.samples_seen) == ("toy", "toy", 200)


# --- what is no file ---


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_regular_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """A pipe whose writer never comes would be waited for, /dev/zero never ends."""
    know_tiny(monkeypatch)
    make(tmp_path / "w.pt")
    for spec in (of_file(tmp_path / "w.pt"), ModelSpec("t", "trained", path=str(tmp_path / "w.pt"))):
        with pytest.raises(ModelError, match="not a regular file"):
            models.describe(spec, offline=True)
    spec = folder(tmp_path / "local")
    (tmp_path / "local" / checkpoints.CONFIG_FILE).unlink()
    make(tmp_path / "local" / checkpoints.CONFIG_FILE)
    with pytest.raises(
        ModelError, match=r"open_clip_config\.json: cannot be read: (it is not a regular file|Is a directory)"
    ):
        models.describe(spec, offline=True)


def test_configurations_that_are_too_large_or_too_deep(tmp_path: Path) -> None:
    spec = folder(tmp_path / "local")
    file = tmp_path / "local" / checkpoints.CONFIG_FILE
    for content, expected in (
        ("[" * 100_000, "not a readable JSON file"),
        ("[1, 2]", "expected a mapping"),
        ('{"model_cfg": ' + "9" * 10_000 + "}", "not a readable JSON file"),
        (" " * (1 << 24) + "{}", "bytes are more than the limit of 16,777,216"),
        ("\x00\xff", "not a readable JSON file"),
    ):
        file.write_text(content)
        with pytest.raises(ModelError, match=expected):
            models.describe(spec, offline=True)
