"""Each precision computes in what it says, shares nothing with another, and leaves torch as it was."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers_folders
from helpers import image_folder, tiny_checkpoint

import clipeval
from clipeval import config, models, precision
from clipeval.evaluation.request import Options
from clipeval.identity import CheckpointIdentity, DatasetIdentity, Measure, cell_id
from clipeval.models.text_tower import CausalTextTower

TEXTS = ["a red square", "two", "a photo of something that is rather long"]


def settings() -> dict[str, str]:
    """All that torch says of 32-bit arithmetic, read one by one."""
    backends: Any = torch.backends
    return {
        "conv": backends.cudnn.conv.fp32_precision,
        "rnn": backends.cudnn.rnn.fp32_precision,
        "matmul": backends.cuda.matmul.fp32_precision,
        "onednn": backends.mkldnn.matmul.fp32_precision,
        "onednn conv": backends.mkldnn.conv.fp32_precision,
    }


@pytest.fixture(params=["highest", "high", "medium"])
def the_callers(request):
    """What the caller of clipeval has chosen for its own products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield settings(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)


def test_fp32_is_exact_and_the_callers_settings_come_back(the_callers):
    before, matmul = the_callers
    for name in (*precision.PRECISIONS, "fp32"):
        with precision.computing(name, "cpu"):
            inside = settings()
        nvidia = "tf32" if name == "tf32" else "ieee"
        assert inside == {key: "ieee" if key.startswith("onednn") else nvidia for key in before}, name
        assert settings() == before
    with pytest.raises(ZeroDivisionError), precision.computing("tf32", "cpu"):
        raise ZeroDivisionError
    assert settings() == before
    assert torch.get_float32_matmul_precision() == matmul
    assert torch.backends.cuda.matmul.allow_tf32 == (matmul != "highest"), "the old way of asking still answers"
    assert torch.backends.cudnn.allow_tf32


def test_a_run_computes_exactly_and_leaves_nothing_behind(tmp_path, monkeypatch, the_callers):
    seen = []

    def spy(owner, name):
        function = getattr(owner, name)

        def spied(self, tensor, *given, **named):
            if not tensor.is_meta:  # as the ones that multiplications are counted with
                flags = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
                seen.append((name, set(settings().values()), *flags))
            return function(self, tensor, *given, **named)

        monkeypatch.setattr(owner, name, spied)

    spy(open_clip.CLIP, "encode_image")
    spy(CausalTextTower, "encode")
    image_folder(tmp_path / "colours")
    tiny_checkpoint(tmp_path / "tiny.pt")
    words = str(tmp_path / "tiny.pt"), f"folder:{tmp_path}/colours", "classification"
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    for name in ("fp32", "bf16", "bf16-weights", "fp32"):
        table = clipeval.run(*words, out=tmp_path / name, precision=name, workers=0)
        assert set(table.precision) == {name}
        assert set(table.status) == {"ok"}
    assert {name for name, *_ in seen} == {"encode_image", "encode"}
    assert all((exact, inference) == ({"ieee"}, True) for _, exact, inference, _ in seen)
    # the fourth run read what the first had stored
    assert [autocast for name, _, _, autocast in seen if name == "encode"] == [False, True, False]
    assert settings() == the_callers[0]
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, grad)
    assert not torch.is_autocast_enabled("cpu")


def test_older_versions_of_torch_are_told_in_their_way(monkeypatch):
    cudnn, matmul = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=False)
    monkeypatch.setattr(torch, "backends", SimpleNamespace(cudnn=cudnn, cuda=SimpleNamespace(matmul=matmul)))
    for name in ("ieee", "tf32"):
        with precision.exactness(name):
            assert cudnn.allow_tf32 == matmul.allow_tf32 == (name == "tf32")
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (True, False)


def test_threads_do_not_take_each_others_settings_away():
    """The first to leave would restore what the second needs; and what the second found would be kept for ever."""
    before, wrong = settings(), []

    def work(name: str) -> None:
        for _ in range(300):
            with precision.exactness(name), precision.exactness(name):
                if settings()["conv"] != name:
                    wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("ieee", "tf32", "ieee")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert settings() == before


def loaded(word: str, name: str, device: str = "cpu") -> Any:
    [spec] = models.resolve([word], config.packaged())
    return models.load(spec, device=device, precision=name, offline=True)


@pytest.fixture(params=["open_clip", "transformers clip", "transformers siglip"])
def word(request, tmp_path):
    family, _, kind = request.param.partition(" ")
    if family == "open_clip":
        return str(tiny_checkpoint(tmp_path / "tiny.pt"))
    return f"transformers:{transformers_folders.write(kind, tmp_path / kind)}"


def embedded(encoder: Any) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (5, *encoder.record_shape), np.uint8))
    return [encoder.encode_images(pixels), encoder.tokenized(TEXTS).encode(np.arange(3))]


def test_weights_of_bf16_are_rounded_and_used_as_they_are(word):
    """Against the same model in fp32 arithmetic on weights rounded by hand, which differs by what activations lose; and
    nothing mixes when checkpoints at several precisions are loaded in turn."""
    half = loaded(word, "bf16-weights")
    exact = loaded(word, "fp32")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in exact.model.parameters()} == {torch.float32}
    first = embedded(exact)
    got = embedded(half)
    assert all(map(torch.equal, embedded(exact), first))
    by_hand = loaded(word, "fp32")
    with torch.no_grad():
        for parameter in by_hand.model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    for ours, rounded, unrounded in zip(got, embedded(by_hand), first, strict=True):
        assert ours.dtype == torch.float32
        assert not torch.equal(ours, unrounded)
        torch.testing.assert_close(ours, rounded, rtol=0, atol=0.05 * float(rounded.abs().max()))
    assert not torch.equal(got[0], embedded(loaded(word, "bf16"))[0])


def test_no_precision_shares_a_key_or_a_cell_with_another():
    checkpoint = CheckpointIdentity("w" * 64, "m", "p", "t", "clipeval 1, open_clip 3")
    names = precision.PRECISIONS
    measure = Measure("zeroshot_classification", 1, None, 0, "default", None, "fp32")
    data = DatasetIdentity("f")
    for make in (
        checkpoint.image_key,
        checkpoint.text_key,
        lambda name: cell_id(checkpoint, data, replace(measure, precision=name)),
    ):
        made = [make(name) for name in names]
        assert all(one != other for one, other in itertools.combinations(made, 2))


def test_only_a_gpu_has_some(tmp_path):
    assert [name for name in precision.PRECISIONS if precision.refusal(name, "cpu")] == ["tf32", "fp16"]
    for name in ("fp32", "bf16", "bf16-weights"):
        assert Options(out=tmp_path, device="cpu", precision=name).precision == name


def test_tensor_cores_are_asked_for(monkeypatch):
    capability = (7, 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert "needs tensor cores" in precision.refusal("tf32", "cuda:1")
    assert precision.refusal("fp16", "cuda:1") == ""
    capability = (8, 0)
    assert precision.refusal("tf32", "cuda:1") == ""
