"""Nothing that lies in or beside a checkpoint is run, and nobody is asked whether it may be."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import CPU, TEXT, TINY, Hub, content_of, folder, random_model, tokenizer_files, trained
from helpers import tiny_checkpoint

from clipeval import models
from clipeval.errors import ModelError
from clipeval.models import ModelSpec

PAYLOAD = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import BertConfig, BertModel, PreTrainedTokenizer
class E(PreTrainedTokenizer):
    pass
class C(BertConfig):
    pass
class M(BertModel):
    config_class = C
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the payload creates; stdin says yes to every question."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 99))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "executed"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path / "hub", monkeypatch)


def evil(
    place: Path, marker: Path, tokenizer: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> Path:
    """A repository whose code creates ``marker``, named by its configurations."""
    tokenizer_files(place)
    (place / "tok.py").write_text(PAYLOAD.format(marker=str(marker)))
    named = {"tokenizer_class": "E", "auto_map": {"AutoTokenizer": ["tok.E", None]}}
    (place / "tokenizer_config.json").write_text(json.dumps(named if tokenizer is None else tokenizer))
    (place / "config.json").write_text(json.dumps(config or {"model_type": "bert"}))
    return place


def text(**settings: Any) -> dict[str, Any]:
    return TINY | {"text_cfg": TEXT | settings}


def refusal(spec: ModelSpec, marker: Path) -> str:
    messages = set()
    for offline in (True, False):
        with pytest.raises(ModelError) as caught:
            models.load(spec, **CPU | {"offline": offline})
        messages.add(str(caught.value))
    assert not marker.exists()
    return "\n".join(messages)


FORMS: list[dict[str, Any]] = [
    {"auto_map": {"AutoTokenizer": ["tok.E", None]}, "tokenizer_class": "E"},
    {"auto_map": ["tok.E", None], "tokenizer_class": "E"},
    {"auto_map": {"AutoTokenizer": [None, "org/evil--tok.E"]}, "tokenizer_class": "E"},
    {"tokenizer_class": "BertTokenizer", "init": {"auto_map": {"AutoTokenizer": ["tok.E", None]}}},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["trained", "local-dir", "hub"])
def test_tokenizers_with_code(tmp_path: Path, hub: Hub, marker: Path, kind: str, form: dict[str, Any]) -> None:
    place, config = hub.repository("org/evil"), text(hf_tokenizer_name="org/evil")
    if kind == "trained":
        spec = trained(tmp_path / "evil.pt", content_of() | {"model_cfg": config})
    elif kind == "local-dir":
        place, spec = tmp_path / "evil", folder(tmp_path / "evil", config)
    else:
        folder(hub.repository("org/checkpoint"), config)
        spec = ModelSpec("hf-hub:org/checkpoint", "hub", "", "hf-hub:org/checkpoint")
    evil(place, marker, form)
    assert "names code to run; refused, nothing was executed" in refusal(spec, marker)


@pytest.mark.parametrize(
    "setting",
    [
        {"trust_remote_code": True},
        {"tokenizer_type": "bert"},
        {"code_revision": "main"},
        {"gguf_file": "x"},
        {"cache_dir": "/tmp"},
        {"reduction_mask": "random"},
        {"bpe_path": "/etc/passwd"},
        {"additional_special_tokens": ["(a+)+$"]},
        {"clean": "x"},
        {"context_length": 0},
        {"_from_auto": True},
    ],
)
@pytest.mark.parametrize("name", ["org/evil", None])
def test_settings_of_a_tokenizer_that_are_not_allowed(
    tmp_path: Path, hub: Hub, marker: Path, setting: dict[str, Any], name: str | None
) -> None:
    """The exploit itself: a harmless file whose configuration asks for remote code."""
    evil(hub.repository("org/evil"), marker)
    config = text(tokenizer_kwargs=setting) if name is None else text(hf_tokenizer_name=name, tokenizer_kwargs=setting)
    message = refusal(trained(tmp_path / "evil.pt", content_of() | {"model_cfg": config}), marker)
    assert f"text_cfg.tokenizer_kwargs.{next(iter(setting))}: " in message


def test_the_settings_that_open_clip_uses_are_allowed(tmp_path: Path, hub: Hub) -> None:
    tokenizer_files(hub.repository("org/words"))
    kwargs = {"clean": "canonicalize", "strip_sep_token": True, "context_length": 24}
    config = text(hf_tokenizer_name="org/words", tokenizer_kwargs=kwargs)
    encoder = models.load(trained(tmp_path / "good.pt", content_of() | {"model_cfg": config}), **CPU)
    assert encoder.tokenize(["A CAT!"]).tolist() == [[2, 5, 8, *[0] * 21]]  # [CLS] a cat, and [SEP] is stripped


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "evil", "auto_map": {"AutoConfig": "tok.C", "AutoModel": "tok.M"}},
        {"model_type": "bert", "auto_map": {"AutoModel": "tok.M"}},
        {"model_type": "roberta", "encoder": {"model_type": "x", "auto_map": {"AutoModel": "tok.M"}}},
        {"model_type": "bert", "attn_implementation": "org/evil-kernel"},
        {"model_type": "bert", "_attn_implementation": "org/evil-kernel"},
        {"model_type": "llava"},
        {"model_type": "bert", "num_hidden_layers": 10**8},
        {"model_type": "bert", "vocab_size": 10**12},
        {"model_type": ["bert"]},
    ],
)
@pytest.mark.parametrize("kind", ["trained", "local-dir"])
def test_text_towers_with_code_or_without_bounds(
    tmp_path: Path, hub: Hub, marker: Path, kind: str, config: dict[str, Any]
) -> None:
    evil(hub.repository("org/evil"), marker, config=config)
    text_cfg = {"hf_model_name": "org/evil", "hf_tokenizer_name": "org/evil", "context_length": 24}
    model_cfg = TINY | {"text_cfg": text_cfg}
    if kind == "trained":
        spec = trained(tmp_path / "evil.pt", content_of() | {"model_cfg": model_cfg})
    else:
        spec = folder(tmp_path / "m")
        (tmp_path / "m" / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg}))
    message = refusal(spec, marker)
    assert "config.json: " in message


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize(
    "name", ["AutoModel", "pipeline", "E", "os", "AutoTokenizer", "TransfoXLTokenizer", "RagTokenizer"]
)
def test_a_tokenizer_class_that_is_no_tokenizer(tmp_path: Path, marker: Path, name: str) -> None:
    """transformers looks a class up by the name that the files give: none of them runs what lies beside."""
    spec = folder(tmp_path / "evil", text(hf_tokenizer_name="x"))
    evil(tmp_path / "evil", marker, {"tokenizer_class": name})
    for file in ("vocab.pkl", "vocab.bin", "pytorch_model.bin", "E.py", "tokenizer.py", "tokenization_e.py"):
        (tmp_path / "evil" / file).write_bytes(pickle.dumps(Bomb(marker)) if "." in file else b"")
    with contextlib.suppress(ModelError):
        models.load(spec, **CPU)
    assert not marker.exists()


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "spiece.model"])
@pytest.mark.parametrize("bad", ["pickle", "fifo", "folder", "list", "deep"])
def test_broken_files_of_a_tokenizer(tmp_path: Path, marker: Path, file: str, bad: str) -> None:
    spec = folder(tmp_path / "m", text(hf_tokenizer_name="x"))
    tokenizer_files(tmp_path / "m")
    place = tmp_path / "m" / file
    place.unlink(missing_ok=True)
    contents = {"pickle": pickle.dumps(Bomb(marker)), "list": b"[1]", "deep": b"[" * 100_000}
    if bad in contents:
        place.write_bytes(contents[bad])
    else:
        (os.mkfifo if bad == "fifo" else os.mkdir)(place)
    with contextlib.suppress(ModelError):
        models.load(spec, **CPU).tokenize(["a cat"])
    assert not marker.exists()


EXPLOITS = {
    "trained file, local tokenizer": lambda root: ["evil.pt"],
    "the same offline": lambda root: ["evil.pt", "--offline"],
    "local-dir offline": lambda root: ["local-dir:ld", "--offline"],
    "text tower": lambda root: ["tower.pt"],
}


@pytest.mark.parametrize("name", EXPLOITS)
def test_the_exploits_by_command(tmp_path: Path, marker: Path, name: str) -> None:
    """A folder beside the working directory, as in the file's configuration, and ``y`` on stdin."""
    content = torch.load(tiny_checkpoint(tmp_path / "good.pt"), weights_only=True)
    words = {"hf_tokenizer_name": "evil", "tokenizer_kwargs": {"trust_remote_code": True}}
    evil(tmp_path / "evil", marker, config={"model_type": "bert", "auto_map": {"AutoConfig": "tok.C"}})
    torch.save(content | {"model_cfg": with_text(content["model_cfg"], words)}, tmp_path / "evil.pt")
    tower = {"hf_model_name": "evil", "context_length": 77}
    torch.save(content | {"model_cfg": content["model_cfg"] | {"text_cfg": tower}}, tmp_path / "tower.pt")
    folder(tmp_path / "ld", text(**words))
    evil(tmp_path / "ld", marker)
    program = [
        sys.executable,
        "-m",
        "clipeval",
        "run",
        "-d",
        "digits",
        "--limit",
        "9",
        "-o",
        "out",
        "--workers",
        "0",
        "-m",
    ]
    done = subprocess.run(
        [*program, *EXPLOITS[name](tmp_path)],
        cwd=tmp_path,
        input="y\n" * 9,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(models.__file__).parents[2])},
        check=False,
    )
    assert not marker.exists()
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "refused, nothing was executed" in done.stderr or "trust_remote_code: unknown key" in done.stderr


def with_text(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return config | {"text_cfg": config["text_cfg"] | settings}


@pytest.mark.parametrize("start", ["finetune", "patch"])
def test_training_goes_through_the_same_door(
    tmp_path: Path, marker: Path, command: Callable[..., Any], start: str
) -> None:
    evil(tmp_path / "evil", marker)
    words = {"hf_tokenizer_name": str(tmp_path / "evil"), "tokenizer_kwargs": {"trust_remote_code": True}}
    trained(tmp_path / "evil.pt", content_of() | {"model_cfg": text(**words)})
    lines = [f"model: {tmp_path / 'evil.pt'}", "data: [digits]", f"out: {tmp_path / 'out'}"]
    lines += (
        ["iterations: 2", "batch_size: 4", "lr: 0.1"] if start == "finetune" else [f"finetuned: {tmp_path / 'evil.pt'}"]
    )
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    code, _, err = command("clipeval-train", start, tmp_path / "config.yaml")
    assert (code, marker.exists()) == (3, False), err
    assert "tokenizer_kwargs.trust_remote_code: unknown key" in err


def test_no_memory_for_torch_is_no_fault_of_the_checkpoint(tmp_path: Path) -> None:
    """A stand-in for a torch whose libraries do not fit into memory."""
    torch.save(random_model().state_dict(), tmp_path / "w.pt")
    (tmp_path / "stand_in" / "torch").mkdir(parents=True)
    reason = "libtorch_cpu.so: failed to map segment from shared object: Cannot allocate memory"
    (tmp_path / "stand_in" / "torch" / "__init__.py").write_text(f"raise ImportError({reason!r})")
    program = (
        "from clipeval import models; from clipeval.errors import ModelError\n"
        "spec = models.ModelSpec('m', 'file', 'ViT-B-32', 'w.pt', 'w.pt')\n"
        "for open in (lambda: models.describe(spec, offline=True), "
        "lambda: models.load(spec, device='cpu', precision='fp32', offline=True)):\n"
        "    try: open()\n"
        "    except ModelError as error: print(error)\n"
    )
    paths = os.pathsep.join([str(tmp_path / "stand_in"), str(Path(models.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
    )
    assert done.stdout.count("Cannot allocate memory. This says nothing of the checkpoint") == 2
    assert "broken" not in done.stdout


def test_no_memory_stays_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own refusal of an impossible allocation: not an error of the checkpoint, and told from one."""
    spec, load = trained(tmp_path / "t.pt"), torch.nn.Module.load_state_dict

    def allocate(*arguments: Any, **named: Any) -> Any:
        torch.empty(1 << 60)
        return load(*arguments, **named)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", allocate)
    with pytest.raises(MemoryError):
        models.load(spec, **CPU)
