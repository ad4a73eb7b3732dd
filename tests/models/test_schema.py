"""Configurations of a checkpoint: all of open_clip's pass, and what has another type or size is refused at once."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import time
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from checkpoints import CPU, METADATA, TEXT, TINY, VISION, content_of, folder, trained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipeval import models
from clipeval.errors import ModelError
from clipeval.models import profile, rules, schema

NOT_FETCHED = {"hf_model_name", "hf_tokenizer_name"}


def nested(times: int = 27) -> list[Any]:
    """A list that has 2^27 parts, if one walks through it."""
    value: list[Any] = ["x"]
    for _ in range(times):
        value = [value, value]
    return value


def refusal(content: dict[str, Any], path: Path) -> str:
    """The message for a trained checkpoint with this content, by describing it and by loading it, within seconds."""
    started, spec = time.monotonic(), trained(path, content)
    with pytest.raises(ModelError) as caught:
        models.describe(spec, offline=True)
    with contextlib.suppress(ModelError):
        assert models.open_checkpoint(spec, offline=True).identity
    with pytest.raises(ModelError):
        models.load(spec, **CPU)
    assert time.monotonic() - started < 20
    assert len(str(caught.value)) < 1500
    return str(caught.value)


def with_cfg(tower: str, **changed: Any) -> dict[str, Any]:
    content = content_of()
    content["model_cfg"][tower] |= changed
    return content


@pytest.mark.parametrize("arch", open_clip.list_models())
def test_every_architecture_of_open_clip_passes(arch: str) -> None:
    config = open_clip.get_model_config(arch)
    assert schema.check_model_cfg({"model_cfg": config}, "f") == config
    kwargs = config["text_cfg"].get("tokenizer_kwargs") or {}
    rules.check(kwargs, schema.TOKENIZER, "f")


@pytest.mark.parametrize(("arch", "tag"), open_clip.list_pretrained())
def test_every_preprocessing_of_open_clip_passes(arch: str, tag: str) -> None:
    settings = open_clip.get_pretrained_cfg(arch, tag)
    known = {"mean", "std", "interpolation", "resize_mode"}
    found = schema.check_preprocess_cfg({"preprocess_cfg": json.loads(json.dumps(settings))}, "f")
    assert known & set(found) == known & set(settings)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda: content_of(model_cfg=TINY | {"vision_cfg": None}), "model_cfg.vision_cfg: None; expected a mapping"),
        (lambda: content_of(model_cfg=TINY | {"text_cfg": [1]}), r"model_cfg.text_cfg: \[1\]; expected a mapping"),
        (lambda: content_of(model_cfg=[1]), "`model_cfg` with embed_dim"),
        (lambda: content_of(model_cfg=TINY | {"embed_dim": "x"}), "embed_dim: 'x'; expected a whole number from 1"),
        (lambda: content_of(model_cfg=TINY | {"embed_dim": True}), "embed_dim: True; expected a whole number"),
        (lambda: content_of(model_cfg=TINY | {"breadth": 3}), "model_cfg.breadth: unknown key. Allowed: embed_dim"),
        (lambda: content_of(model_cfg=TINY | {3: 3}), "model_cfg.3: unknown key"),
        (lambda: content_of(model_cfg=TINY | {"multimodal_cfg": None}), "multimodal_cfg: None; expected a mapping"),
        (lambda: content_of(model_cfg=TINY | {"multimodal_cfg": {"layers": 1e9}}), "multimodal_cfg.layers: 1000"),
        (lambda: with_cfg("vision_cfg", image_size=0), "vision_cfg.image_size: 0; expected a whole number from 1 to"),
        (lambda: with_cfg("vision_cfg", image_size=10**6), "vision_cfg.image_size: 1000000; expected"),
        (lambda: with_cfg("vision_cfg", image_size=[10**400] * 2), "vision_cfg.image_size: "),
        (lambda: with_cfg("vision_cfg", image_size=4096, patch_size=1), "makes 16,777,216 patches"),
        (lambda: with_cfg("vision_cfg", layers=10**8), "vision_cfg.layers: 100000000; expected"),
        (lambda: with_cfg("vision_cfg", layers=[10**8] * 4), "vision_cfg.layers: "),
        (lambda: with_cfg("vision_cfg", width=float("nan")), "vision_cfg.width: nan"),
        (lambda: with_cfg("vision_cfg", width=torch.zeros(3)), "vision_cfg.width: <Tensor>"),
        (lambda: with_cfg("vision_cfg", patch_size=0), "vision_cfg.patch_size: 0"),
        (lambda: with_cfg("vision_cfg", norm_kwargs={"device": "meta"}), "vision_cfg.norm_kwargs"),
        (lambda: with_cfg("vision_cfg", timm_model_name="hf-hub:evil/model"), "expected a name of timm's own"),
        (lambda: with_cfg("vision_cfg", timm_model_name="local-dir:/tmp/x"), "expected a name of timm's own"),
        (lambda: with_cfg("vision_cfg", timm_model_name="no_such_model"), "cannot build this model configuration"),
        (lambda: with_cfg("text_cfg", context_length=0), "text_cfg.context_length: 0; expected a whole number"),
        (lambda: with_cfg("text_cfg", layers=10**8), "text_cfg.layers: 100000000"),
        (lambda: with_cfg("text_cfg", heads=7), "cannot build this model configuration"),
        (lambda: with_cfg("text_cfg", vocab_size=10**12), "text_cfg.vocab_size: 1000000000000"),
        (lambda: with_cfg("text_cfg", hf_tokenizer_name=nested()), "model_cfg: .* has more than 1,000,000 parts"),
        (lambda: content_of(preprocess_cfg=[1]), "preprocess_cfg: "),
        (lambda: content_of(preprocess_cfg={"mean": "x"}), "preprocess_cfg.mean: 'x'"),
        (lambda: content_of(preprocess_cfg={"std": [1, 0, 1]}), "preprocess_cfg.std: "),
        (lambda: content_of(preprocess_cfg={"interpolation": "nearest"}), "expected one of bicubic, bilinear, random"),
        (lambda: content_of(preprocess_cfg={"fill_color": [1, 2]}), "preprocess_cfg.fill_color"),
        (lambda: content_of(arch=["x"]), "arch: "),
        (lambda: content_of(metadata=METADATA | {"samples_seen": "many"}), "metadata.samples_seen: 'many'; expected a"),
        (lambda: content_of(metadata=METADATA | {"samples_seen": [1]}), r"metadata.samples_seen: \[1\]"),
        (lambda: content_of(metadata=METADATA | {"samples_seen": 10**400}), "metadata.samples_seen: 1000"),
        (lambda: content_of(metadata=METADATA | {"samples_seen": -1}), "metadata.samples_seen: -1"),
        (lambda: content_of(metadata=METADATA | {"samples_seen": torch.ones(1)}), "metadata.samples_seen: <Tensor>"),
        (lambda: content_of(metadata=METADATA | {"gpu_hours": "x"}), "metadata.gpu_hours: 'x'"),
        (lambda: content_of(metadata=METADATA | {"energy_kwh": float("inf")}), "metadata.energy_kwh: inf"),
        (lambda: content_of(metadata=METADATA | {"samples_seen_from": 3}), "metadata.samples_seen_from: 3"),
        (lambda: content_of(metadata=METADATA | {"source": nested()}), "metadata: .* has more than 1,000,000 parts"),
        (lambda: content_of(metadata=METADATA | {"notes": nested()}), "metadata: .* has more than 1,000,000 parts"),
        (lambda: content_of(metadata=METADATA | {"source": "x" * 10**6}), "metadata.source: 'xx"),
        (lambda: content_of(metadata=METADATA | {"mixture": [0.5, 0.5]}), "metadata.mixture: .*; expected a map"),
        (lambda: content_of(metadata=METADATA | {"mixture": {"a": 0.5, "b": 0.4}}), "shares that sum to 1"),
        (lambda: content_of(metadata=METADATA | {"mixture": {"a": 1.5, "b": -0.5}}), "shares that sum to 1"),
        (lambda: content_of(metadata=METADATA | {"mixture": {1: 1.0}}), "shares that sum to 1"),
        (lambda: content_of(metadata=[1]), "`metadata` is missing"),
        (lambda: content_of(state_dict={3: torch.ones(1)}), "holds no model weights"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    made = content()
    if "holds no" in expected:  # which the weights say, when they are loaded
        with pytest.raises(ModelError, match=expected):
            models.load(trained(tmp_path / "odd.pt", made), **CPU)
        return
    message = refusal(made, tmp_path / "odd.pt")
    assert re.search(expected, message), message
    assert "odd.pt" in message or "cannot build" in message


def test_the_same_bounds_hold_in_a_folder(tmp_path: Path) -> None:
    document = {"model_cfg": TINY | {"vision_cfg": VISION | {"layers": 10**8}}}
    spec = folder(tmp_path / "m")
    (tmp_path / "m" / "open_clip_config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"open_clip_config\.json: model_cfg\.vision_cfg\.layers: 100000000"):
        models.describe(spec, offline=True)
    document = {"model_cfg": TINY, "metadata": {"samples_seen": "x"}}
    (tmp_path / "m" / "open_clip_config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"metadata\.samples_seen: 'x'"):
        models.describe(spec, offline=True)


def test_a_configuration_larger_than_its_weights_makes_no_room_for_itself(tmp_path: Path) -> None:
    """Each key is within its bounds, and all together would be terabytes."""
    large = {"width": 1 << 14, "layers": 100, "head_width": 128, "patch_size": 32, "image_size": 64}
    content = content_of()
    content["model_cfg"]["vision_cfg"] |= large
    with pytest.raises(ModelError, match=r"its configuration describes [\d,]+ weights, but it holds"):
        models.load(trained(tmp_path / "large.pt", content), **CPU)


def test_the_largest_configuration_is_profiled_in_seconds() -> None:
    started = time.process_time()
    vision = {"image_size": 4096, "patch_size": 32, "layers": 100, "width": 1024, "head_width": 64}
    text = {"context_length": 8192, "vocab_size": 10**7, "layers": 100, "width": 1024, "heads": 16}
    assert profile.measure({"embed_dim": 1024, "vision_cfg": vision, "text_cfg": text}).gmacs > 0
    assert time.process_time() - started < 20


def test_any_value_is_shown_in_a_few_words() -> None:
    assert rules.shortened(10**5000) == "a number of thousands of digits"
    assert rules.shortened(float("nan")) == "nan"
    assert all(len(rules.shortened(value)) < 700 for value in (nested(), "x" * 10**7, {"k" * 10**6: nested()}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    *((name,) for name in ("model_cfg", "metadata", "preprocess_cfg", "arch")),
    *(("model_cfg", name) for name in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text")),
    *(("model_cfg", "vision_cfg", name) for name in (*VISION, "timm_model_name", "pool_type", "act_kwargs")),
    *(("model_cfg", "text_cfg", name) for name in (*TEXT, "tokenizer_kwargs", "hf_tokenizer_name", "pool_type")),
    *(("metadata", name) for name in METADATA),
    *(("preprocess_cfg", name) for name in ("mean", "std", "fill_color", "interpolation")),
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_at_any_place_is_read_or_refused(tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    content = copy.deepcopy(CONTENT) | {"preprocess_cfg": {}}
    within = content
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    spec = trained(tmp_path / "any.pt", content)
    with contextlib.suppress(ModelError):
        checkpoint = models.open_checkpoint(spec, offline=True)
        assert checkpoint.info.model == spec.name
        assert len(checkpoint.identity.digest) == 64


CONTENT = {"format": "clipeval-train-1", "arch": "toy", "model_cfg": TINY, "state_dict": {}, "metadata": METADATA}
