"""What training scripts put around weights is taken off again, and nothing of it changes a value."""

import argparse
import pathlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from checkpoints import CPU, TINY, content_of, know_tiny, of_file, random_model, trained
from safetensors.torch import save_file

from clipeval import models
from clipeval.errors import ModelError
from clipeval.models import library, weights
from clipeval.models.layout import weights_in
from clipeval_train import checkpoint as trainer

Tensors = dict[str, torch.Tensor]
NAMES = list(random_model().state_dict())


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    know_tiny(monkeypatch)


def named(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def loaded(path: Path, content: Any) -> Tensors:
    """The weights of the model after loading ``content``."""
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    state: Tensors = models.load(of_file(path), **CPU).model.state_dict()
    return state


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module._orig_mod."],
)
def test_names_with_any_wrappers(tmp_path: Path, prefix: str, suffix: str) -> None:
    expected = random_model().state_dict()
    found = loaded(tmp_path / f"w{suffix}", named(prefix)(expected))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def inside(tensors: Tensors) -> Tensors:
    """As torch.compile, FSDP and checkpointing of parts of a model name them."""
    parts = {
        "visual.": "visual._orig_mod.",
        "transformer.resblocks.1.": "transformer.resblocks.1._fsdp_wrapped_module.",
    }
    for old, new in parts.items():
        tensors = {name.replace(old, new, 1) if name.startswith(old) else name: t for name, t in tensors.items()}
    return tensors


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"epoch": 3, "state_dict": named("module.")(state), "optimizer": {"state": {}}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=1e-3, out=pathlib.Path("x"))},
        lambda state: {"model": {"name": "a configuration"}, "model_state_dict": state},
        lambda state: {"module": state, "lr_scheduler": None, "ds_version": "0.16"},
        lambda state: {"model": {"state_dict": named("model.module.")(state)}, "log": defaultdict(list, a=[1])},
        lambda state: named("module.")(state) | {"n_averaged": torch.tensor(3)},
        lambda state: dict(state) | {"epoch": 7, "lr": np.float32(0.1)},
        lambda state: {"state_dict": {name: tensor.numpy() for name, tensor in state.items()}},
        inside,
    ],
)
def test_weights_wherever_they_lie(tmp_path: Path, wrapped: Callable[[Tensors], Any]) -> None:
    expected = random_model().state_dict()
    found = loaded(tmp_path / "w.pt", wrapped(expected))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_head_beside_the_model_is_left_and_said(tmp_path: Path) -> None:
    state = random_model().state_dict()
    content = named("model.")(state) | {"head.weight": torch.zeros(3, 20), "loss.scale": torch.zeros(1)}
    for head in (content, state | {"head.weight": torch.zeros(3, 20), "head.bias": torch.zeros(3)}):
        found = loaded(tmp_path / "w.pth", {"state_dict": head})
        assert torch.equal(found["text_projection"], state["text_projection"])
        opened = models.open_checkpoint(of_file(tmp_path / "w.pth"), offline=True)
        assert "tensors beside the model's weights are not used (2): head.weight, " in opened.remarks[-1]
    part = state | {"visual.adapter.weight": torch.zeros(3)}  # of a tower, so the tower is another
    with pytest.raises(ModelError, match=r"has 'visual\.adapter\.weight', unlike tiny"):
        loaded(tmp_path / "w.pth", part)
    with pytest.raises(ModelError, match="has 'logit_bias', unlike tiny"):
        loaded(tmp_path / "w.pth", state | {"logit_bias": torch.zeros(1)})


def test_a_running_average_is_taken_only_where_it_is_alone(tmp_path: Path) -> None:
    plain, average = random_model(seed=1).state_dict(), random_model(seed=2).state_dict()
    both = {"model": plain, "model_ema": average}
    assert torch.equal(loaded(tmp_path / "w.pt", both)["text_projection"], plain["text_projection"])
    opened = models.open_checkpoint(of_file(tmp_path / "w.pt"), offline=True)
    assert "weights under 'model' are used, not their running average under 'model_ema'" in opened.remarks[-1]
    alone = {"state_dict_ema": {"module": average}, "ema_decay": 0.99}
    assert torch.equal(loaded(tmp_path / "w.pt", alone)["text_projection"], average["text_projection"])
    opened = models.open_checkpoint(of_file(tmp_path / "w.pt"), offline=True)
    assert "only weights are a running average ('state_dict_ema')" in opened.remarks[-1]
    own = trained(tmp_path / "own.pt", content_of() | {"ema": average})
    assert "not their running average under 'ema'" in models.open_checkpoint(own, offline=True).remarks[-1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (named("student.")(random_model().state_dict()), "all names begin with `student.`, unlike tiny"),
        (
            named("student.")(random_model().state_dict()) | named("teacher.")(random_model().state_dict()),
            "its names begin with `student.`, `teacher.`, unlike tiny",
        ),
        ({"text_model.a": torch.zeros(1), "vision_model.b": torch.zeros(1)}, "those of transformers' own models"),
        ({"model": {"a": torch.zeros(1)}, "module": {"a": torch.zeros(1)}}, "under 'model' and 'module': which are"),
        ({"module.visual.a": torch.zeros(1), "module._orig_mod.visual.a": torch.zeros(1)}, "the same weights twice"),
        ({"epoch": 3, "state_dict": {"a": [1, 2]}}, "holds no model weights"),
    ],
)
def test_names_that_say_what_they_are(tmp_path: Path, content: Any, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        loaded(tmp_path / "w.pt", content)
    assert expected in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_widened(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in random_model().state_dict().items()}
    found = loaded(tmp_path / "w.pt", {"state_dict": named("module._orig_mod.")(state)})
    assert all(found[name].dtype == torch.float32 for name in state)
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in state.items())


@pytest.mark.parametrize("cfg", [{}, {"custom_text": True}, {"custom_text": True, "init_logit_bias": -10.0}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("older", [False, True])
def test_conversions_are_open_clip_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cfg: dict[str, Any], prefix: str, older: bool
) -> None:
    """``older``: without a prefix of the text tower, with a scale of one element, before the logit bias."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY | cfg)
    state = random_model(TINY | cfg).state_dict()
    if older:
        state = {name.removeprefix("text."): tensor for name, tensor in state.items() if name != "logit_bias"}
        state["logit_scale"] = state["logit_scale"].reshape(1)
    torch.save({"state_dict": named(prefix)(state)}, tmp_path / "w.pt")
    theirs = library.build(TINY | cfg)
    open_clip.load_checkpoint(theirs, str(tmp_path / "w.pt"))
    ours = models.load(of_file(tmp_path / "w.pt"), **CPU).model
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


def test_the_trainer_reads_by_the_same_function(tmp_path: Path) -> None:
    content = content_of() | {"best": np.float64(0.25), "history": np.arange(6).reshape(2, 3)}
    trained(tmp_path / "a.pt", content | {"state_dict": named("_orig_mod.")(content["state_dict"])})
    assert trainer.load(tmp_path / "a.pt")["best"] == 0.25
    trainer.export(tmp_path / "a.pt", tmp_path / "folder")
    exported = weights_in(weights.read(tmp_path / "folder" / "open_clip_model.safetensors"), tmp_path)
    assert list(exported.tensors) == sorted(NAMES)
