"""Compiled towers give the same embeddings under a key of their own, and are compiled once whatever the batches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers_folders
from helpers import image_folder, tiny_checkpoint
from torch._dynamo.utils import counters

import clipeval
from clipeval import config, models
from clipeval.errors import ModelError, UsageError
from clipeval.models.compiling import Compiler, require_compiler


def text(words: int) -> str:
    return " ".join(["thing"] * words)


@pytest.fixture
def graphs_only(monkeypatch):
    """Torch traces and guards as ever, but runs what it traced instead of generating code, which takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def both(word: str) -> tuple[Any, Any]:
    [spec] = models.resolve([word], config.packaged())
    asked: dict[str, Any] = {"device": "cpu", "precision": "fp32", "offline": True}
    plain, fast = models.load(spec, **asked), models.load(replace(spec, compiled=True), **asked)
    assert fast.identity == replace(plain.identity, encoder=f"{plain.identity.encoder}, compiled")
    assert fast.identity.image_key("fp32") != plain.identity.image_key("fp32")
    assert fast.identity.text_key("fp32") != plain.identity.text_key("fp32")
    return plain, fast


@pytest.mark.parametrize("kind", ["open_clip", "clip", "siglip"])
def test_ragged_batches_are_no_reason_to_compile_again(kind, tmp_path, graphs_only):
    if kind == "open_clip":
        word = str(tiny_checkpoint(tmp_path / "tiny.pt"))
    else:
        word = f"transformers:{transformers_folders.write(kind, tmp_path / kind)}"
    plain, fast = both(word)
    rng = np.random.default_rng(0)

    def compare(images: list[int], texts: list[tuple[int, int]]) -> int:
        for count in images:
            pixels = torch.from_numpy(rng.integers(0, 256, (count, *plain.record_shape), np.uint8))
            torch.testing.assert_close(fast.encode_images(pixels), plain.encode_images(pixels), rtol=1e-4, atol=1e-6)
        for count, words in texts:
            given, rows = [text(words)] * count, np.arange(count)
            ours, theirs = (encoder.tokenized(given).encode(rows) for encoder in (fast, plain))
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        return counters["stats"]["unique_graphs"]

    before = compare([7, 1], [(5, 3), (1, 4), (4, 30), (1, 30)])
    assert before > 0
    assert compare([2, 33, 1, 64, 5], [(2, 1), (64, 9), (3, 12), (1, 7), (5, 30), (9, 5)]) == before


def test_generated_code_is_right(tmp_path):
    """The whole way, where this machine has a compiler; where not, that is said."""
    if not shutil.which("g++"):
        with pytest.raises(UsageError, match=r"--compile: torch\.compile does not work here for cpu: "):
            require_compiler("cpu")
        return
    require_compiler("cpu")
    plain, fast = both(str(tiny_checkpoint(tmp_path / "tiny.pt")))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8))
    torch.testing.assert_close(fast.encode_images(pixels), plain.encode_images(pixels), rtol=1e-4, atol=1e-6)


def test_a_machine_without_a_compiler_says_so(tmp_path, monkeypatch, command):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "empty"))
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        model = tiny_checkpoint(tmp_path / "x.pt")
        code, out, err = command("clipeval", "run", "-m", model, "-d", "digits", "--device", "cpu", "--compile")
    assert (code, out) == (2, "")
    assert "--compile: torch.compile does not work here for cpu: InvalidCxxCompiler: " in err
    assert "no-such-compiler" in err
    assert "Leave --compile out" in err


def test_a_model_that_cannot_be_compiled_is_named(monkeypatch):
    def breaks(*_: Any) -> Any:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(torch, "compile", lambda function: breaks)
    with pytest.raises(ModelError, match="m: fails with --compile: no kernel for this"):
        Compiler("m", True)(torch.relu)(torch.zeros(3))
    assert Compiler("m", False)(torch.relu) is torch.relu


def test_a_compiled_run_is_a_measurement_of_its_own(tmp_path, graphs_only, capsys):
    tiny_checkpoint(tmp_path / "tiny.pt")
    image_folder(tmp_path / "colours")
    words = str(tmp_path / "tiny.pt"), f"folder:{tmp_path}/colours", "classification"
    tables = [clipeval.run(*words, out=tmp_path / "out", compile=on, workers=0) for on in (False, True, True)]
    assert [set(table.status) for table in tables] == [{"ok"}] * 3
    identities = [table.checkpoint_identity.iloc[0] for table in tables]
    assert identities[0] != identities[1] == identities[2]
    assert tables[1].started_at.equals(tables[2].started_at), "not measured twice"
    for table in tables[1:]:
        np.testing.assert_allclose(table.value, tables[0].value, atol=0.05)
        assert len(table) == len(tables[0]), "in place of the rows before"
